"""The one front door: every subcommand of `python cli.py`."""

import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

OVERVIEW = """\
usage: python cli.py COMMAND [options]          (or: lit-t6 COMMAND [options])

Train T6, the tensor product attention transformer, and its rivals; see what they can do.

data
  prepare    text files, JSONL or folders → tokenizer + token shards
training (Lightning; every option of a YAML file is also a --dotted.option)
  fit        train a model
  validate   loss, perplexity and bits per byte of a checkpoint on the validation split
  test       the same on the test split
  predict    the loss of every document, as JSONL
use
  generate   continue a prompt with a trained model

examples
  python cli.py prepare my_texts/ --output data/mine --vocab_size 4096
  python cli.py fit --config configs/quickstart.yaml --config configs/attention/mha.yaml --trainer.max_steps 100
  python cli.py fit --config configs/quickstart.yaml --model.attention.rank_q 4 --print_config
  python cli.py validate --ckpt_path logs/quickstart/version_0/checkpoints/last.ckpt
  python cli.py fit --config configs/quickstart.yaml --ckpt_path logs/quickstart/version_0/checkpoints/last.ckpt
  python cli.py generate --ckpt_path logs/quickstart/version_0/checkpoints/last.ckpt --prompt "**ROMEO**"

`python cli.py COMMAND --help` lists the options of a command; --debug shows where an error arose.
"""

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_RESUME_WORDS = ("last", "best", "hpc")


def _prepare(arguments: list[str]) -> Any:
    from lit_t6.data import prepare_corpus

    parser = _function_parser("prepare", prepare_corpus, skip={"inputs"})
    parser.add_argument(
        "inputs", nargs="+", help="text files (a document each), JSONL files (a document a line), or folders of them"
    )
    options = _given(parser, arguments)
    manifest = prepare_corpus(**options)
    print(f"{options['output']}: vocabulary of {manifest.vocab_size:,}")
    for name, split in manifest.splits.items():
        print(f"  {name:<10} {split.documents:>9,} documents {split.tokens:>13,} tokens {split.bytes:>15,} bytes")
    fit = f"python cli.py fit --config configs/quickstart.yaml --data.path {options['output']}"
    print(f"next: {fit} --model.vocab_size {manifest.vocab_size}")
    return manifest


def _generate(arguments: list[str]) -> Any:
    from lit_t6.training import generate_text

    return generate_text(**_given(_function_parser("generate", generate_text), arguments))


def _function_parser(name: str, function: Callable[..., Any], skip: set[str | int] | None = None) -> Any:
    """A parser whose options and help are the function's own arguments and docstring."""
    from jsonargparse import ArgumentParser

    description = (function.__doc__ or "").split("\n    Args:")[0]
    parser = ArgumentParser(prog=f"cli.py {name}", description=description)
    parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options")
    parser.add_function_arguments(function, skip=skip)
    return parser


def _given(parser: Any, arguments: list[str]) -> dict[str, Any]:
    options = parser.parse_args(configs_first(arguments)).as_dict()
    return {name: value for name, value in options.items() if name != "config"}


def _run_trainer(command: str, arguments: list[str]) -> Any:
    from lit_t6.training import read_checkpoint
    from lit_t6.training.cli import T6CLI

    options = configs_first(arguments)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _option_value(options, "--ckpt_path")
        if checkpoint is not None and checkpoint not in (*_RESUME_WORDS, "null"):
            from_checkpoint = Path(folder) / "checkpoint.yaml"
            from_checkpoint.write_text(yaml.safe_dump(read_checkpoint(checkpoint).options()), encoding="utf-8")
            options = ["--config", str(from_checkpoint), *options]
        return T6CLI.run([command, *options])


def configs_first(options: Sequence[str]) -> list[str]:
    """Move every `--config FILE` to the front, in order, so that an override holds wherever it stands."""
    configs: list[str] = []
    others: list[str] = []
    rest = iter(options)
    for option in rest:
        if option in ("-c", "--config"):
            configs += [option, *(value for value in (next(rest, None),) if value is not None)]
        elif option.startswith("--config="):
            configs.append(option)
        else:
            others.append(option)
    return configs + others


def _option_value(options: Sequence[str], name: str) -> str | None:
    """What was typed for an option; the last word counts."""
    value = None
    for option, following in zip_longest(options, options[1:]):
        if option == name:
            value = following
        elif option.startswith(name + "="):
            value = option.removeprefix(name + "=")
    return value


COMMANDS: dict[str, Callable[[list[str]], Any]] = {
    "prepare": _prepare,
    **{command: partial(_run_trainer, command) for command in TRAINER_COMMANDS},
    "generate": _generate,
}


def run(words: Sequence[str]) -> Any:
    """Run a command line and return what it made.

    Args:
        words: a command and its options, as typed after `cli.py`.

    Returns:
        The manifest of `prepare`, the text of `generate`; of the others the finished run, with its `trainer`, `model`
        and `datamodule`.

    Raises:
        ValueError: an error of the user's.
    """
    if words[0] not in COMMANDS:
        raise ValueError(f"{words[0]!r} is not a command; expected one of {', '.join(COMMANDS)}.")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning's own call, told at every run
    return COMMANDS[words[0]](list(words[1:]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line as a process does.

    Args:
        arguments: the words after `cli.py`; those of the process if not given.

    Returns:
        The exit status: 0, or 1 after an error of the user's, which is printed as one line. Options that do not exist
        end the process with status 2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return 0
    try:
        run(words)
    except ValueError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
