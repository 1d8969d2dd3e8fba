"""The one front door: every subcommand of `python cli.py`."""

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from lit_t6.process_end import ProcessEnd

TRAINERS = ("fit", "validate", "test", "predict")
CHECKPOINT = "logs/quickstart/version_0/checkpoints/last.ckpt"
EXAMPLES = {
    "prepare": """\
  python cli.py prepare my_texts/ --output data/mine --vocab_size 4096
  python cli.py prepare web.jsonl.gz --output data/web --text_key content --tokenizer gpt2/tokenizer.json
""",
    "fit": """\
  python cli.py fit --config configs/quickstart.yaml
      the same command again goes on with a run that was interrupted (--auto_resume false starts afresh)
  python cli.py fit --config configs/quickstart.yaml --config configs/attention/mha.yaml --trainer.max_steps 100
      files stack, and a typed option wins wherever it stands
  python cli.py fit --config configs/quickstart.yaml --model.attention MQA --trainer.logger.init_args.name mqa
      a mechanism at the same number of parameters, logged under another name; `budget` lists them
  python cli.py fit --config configs/quickstart.yaml --model.attention.rank_q 4 --print_config
      what would run, as YAML; --model.attention.help TPAConfig lists a mechanism's settings
  python cli.py fit --config configs/model/small.yaml --data.path data/mine --trainer.devices 8 --trainer.strategy ddp
""",
    "validate": f"""\
  python cli.py validate --ckpt_path {CHECKPOINT}
      model and data are those of the checkpoint; what you type wins
  python cli.py validate --ckpt_path {CHECKPOINT} --data.path data/other
""",
    "test": f"""\
  python cli.py test --ckpt_path {CHECKPOINT}
      needs data prepared with --test_fraction above 0
""",
    "predict": f"""\
  python cli.py predict --ckpt_path {CHECKPOINT} --predictions.path losses.jsonl
  python cli.py predict --ckpt_path {CHECKPOINT} --data.predict_split test
""",
    "generate": f"""\
  python cli.py generate --ckpt_path {CHECKPOINT} --prompt "It was" --seed 1
  python cli.py generate --ckpt_path {CHECKPOINT} --temperature 0 --max_new_tokens 50
      the likeliest token each time: the same text without a seed
  python cli.py generate --ckpt_path {CHECKPOINT} --prompt "It was" --stop '["\\n\\n"]'
      ends before the first empty line; a text also ends at end-of-text and after --max_new_tokens
  python cli.py generate --ckpt_path {CHECKPOINT} --prompts_file prompts.txt --num_samples 4 --output texts.jsonl
      a prompt a line (or .jsonl with a "prompt" each), four texts of each, all computed as one batch
  python cli.py generate --ckpt_path {CHECKPOINT} --prompts_file prompts.txt --batch_size 8
      eight rows at a time, where memory is short; stderr says how much the cache takes
""",
    "budget": """\
  python cli.py budget
      every mechanism at the same number of parameters
  python cli.py budget --base configs/model/medium.yaml --config configs/attention/tpa.yaml --config MHA
  python cli.py budget --base configs/model/medium.yaml --config TPA --config TPA,rank_q=4 --config TPA,rank_k=1
      one mechanism at several settings; files, a short name and settings of one model are joined by commas
  python cli.py budget -c configs/paper/xl-tpa.yaml -c configs/paper/xl-mha.yaml --context 32768 --batch_size 8
  python cli.py budget --model.d_model 2048 --model.attention.head_dim 128 --format json
""",
    "convert": """\
  python cli.py convert --from upstream --arch T6 T6-small/ --tokenizer gpt2/tokenizer.json --output t6-small.ckpt
      T6-small/ holds config.json beside pytorch_model.bin or model.safetensors, as the authors' code saves them
  python cli.py convert --from upstream --arch llama-gqa weights.pt --config_json config.json --output gqa.ckpt
""",
    "completion": """\
  lit-t6 completion bash > ~/.local/share/bash-completion/completions/lit-t6
  lit-t6 completion zsh > "${fpath[1]}/_lit-t6"
""",
}
OVERVIEW = """\
usage: python cli.py COMMAND [options]          (or: lit-t6 COMMAND [options])

Train T6, the tensor product attention transformer, and its rivals; see what they can do.

data
  prepare    text files, JSONL or folders → tokenizer + token shards
training (Lightning; every option of a YAML file is also a --dotted.option)
  fit        train a model; the same command again goes on after an interruption
  validate   loss, perplexity and bits per byte of a checkpoint on the validation split
  test       the same on the test split
  predict    the loss of every document, as JSONL
choose
  budget     parameters, cache bytes and decode cost of configurations, as a table; needs no data
use
  generate   continue prompts with a trained model
  convert    make a checkpoint of a model that the authors' own code (tensorgi/TPA) trained
  completion a script with which the shell completes commands and options

examples
{examples}
`python cli.py COMMAND --help` lists the options of a command; --debug shows where an error arose.

exit status: 0 done; 1 an error; 75 a signal ended the training, the checkpoint is saved and the same command goes on;
130 stopped at once by Ctrl-C (in a training: by the second), 143 or 138 by SIGTERM or SIGUSR1 before the first step.
""".format(examples="".join(EXAMPLES[command] for command in ("prepare", "fit", "validate", "budget", "generate")))


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
    from lit_t6.training.generate import stop_strings
    from lit_t6.training.options import take_options

    typed, others = take_options(arguments, "--stop")  # the parser would read a stop string as YAML
    stops = [f"--stop={json.dumps(stop_strings(option.partition('=')[2]))}" for option in typed]
    return generate_text(**_given(_function_parser("generate", generate_text), [*others, *stops]))


def _budget(arguments: list[str]) -> Any:
    from lit_t6.budget_table import print_budgets
    from lit_t6.training.cli_settings import build_model
    from lit_t6.training.options import arrange, parse, take_options

    overrides, others = take_options(arguments, "--model")
    parser = _function_parser("budget", print_budgets, skip={"models", "base", "overrides"}, config=False)
    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE[,NAME][,KEY=VALUE]"}
    parser.add_argument("-c", "--config", help="a model; once for each", **several)
    parser.add_argument("--base", help="what comes under each model", **several)
    # For the help, completion and the names of options; what they mean depends on each model's mechanism.
    parser.add_function_arguments(build_model, "model", skip={"optimizer", "compile"})
    helps = [word for word in overrides if word.startswith("--model.attention.help=")]
    options = parse(parser, arrange([*others, *helps])).as_dict()
    del options["model"]
    return print_budgets(options.pop("config"), overrides=overrides, **options)


def _convert(arguments: list[str]) -> Any:
    from lit_t6.conversion import convert_upstream

    parser = _function_parser("convert", convert_upstream, skip={"path", "overwrite"})
    parser.add_argument("path", help="what to convert: a folder, or one file of weights")
    parser.add_argument(
        "--from", choices=("upstream",), required=True, help="whose checkpoint it is: the authors' code"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    options = _given(parser, arguments)
    del options["from"]  # one source so far
    model = convert_upstream(**options)
    output = options["output"]
    print(f"{output}: {model.config.attention.label}, {sum(p.numel() for p in model.parameters()):,} parameters")
    tokenizer = "" if options["tokenizer"] else " --tokenizer tokenizer.json"
    print(f"next: python cli.py generate --ckpt_path {output}{tokenizer}")
    print(f"      python cli.py validate --ckpt_path {output} --data.path data/mine")
    return model


def print_completion(shell: Literal["bash", "zsh", "tcsh"]) -> None:
    """Print a script with which the shell completes `lit-t6`: commands, options, files.

    Args:
        shell: which one.

    Raises:
        ValueError: the package `shtab` is not installed.
    """
    from jsonargparse import capture_parser

    from lit_t6.completion import completion_script

    parsers = {command: capture_parser(partial(run, [command])) for command in COMMANDS if command not in TRAINERS}
    parsers["fit"] = capture_parser(partial(run, ["fit"]))
    trainers: dict[str, Any] = parsers["fit"]._subcommands_action.choices  # type: ignore[union-attr]  # one for four
    print(completion_script(shell, parsers | trainers))


def _completion(arguments: list[str]) -> Any:
    return print_completion(**_given(_function_parser("completion", print_completion), arguments))


def _function_parser(
    name: str, function: Callable[..., Any], skip: set[str | int] | None = None, config: bool = True
) -> Any:
    """A parser whose options and help are the function's own arguments and docstring."""
    from jsonargparse import ArgumentParser

    from lit_t6.training.options import HelpFormatter

    parser = ArgumentParser(
        prog=f"cli.py {name}",
        description=(function.__doc__ or "").split("\n    Args:")[0],
        epilog=f"examples:\n{EXAMPLES[name]}",
        formatter_class=HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    if config:
        parser.add_argument("-c", "--config", action="config", help="YAML file with any of the options")
    parser.add_function_arguments(function, skip=skip, as_positional=name == "completion")
    return parser


def _given(parser: Any, arguments: list[str]) -> dict[str, Any]:
    from lit_t6.training.options import arrange, parse

    options = parse(parser, arrange(arguments)).as_dict()
    return {name: value for name, value in options.items() if name != "config"}


def _run_trainer(command: str, arguments: list[str], ends_process: bool = False) -> Any:
    from lit_t6.training.cli import T6CLI

    return T6CLI.run(command, arguments, f"examples:\n{EXAMPLES[command]}", ends_process)


COMMANDS: dict[str, Callable[..., Any]] = {
    "prepare": _prepare,
    **{command: partial(_run_trainer, command) for command in TRAINERS},
    "budget": _budget,
    "generate": _generate,
    "convert": _convert,
    "completion": _completion,
}


def run(words: Sequence[str], ends_process: bool = False) -> Any:
    """Run a command line and return what it made.

    Args:
        words: a command and its options, as typed after `cli.py`.
        ends_process: whether the process ends with it, which has a training keep its handlers of signals to the end;
            see `SaveOnInterrupt`.

    Returns:
        The manifest of `prepare`, the rows of `budget`, what `generate` printed, the model of `convert`; of the others
        the finished run, with its `trainer`, `model` and `datamodule`.

    Raises:
        ValueError: an error of the user's.
        SystemExit: a signal ended a training: its code is 75 if a checkpoint was saved.
    """
    if words[0] not in COMMANDS:
        from lit_t6.training.options import nearest

        names = ", ".join(COMMANDS)
        raise ValueError(f"there is no command {words[0]!r}{nearest(words[0], COMMANDS)} There are {names}.")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning's own call, told at every run
    options = {"ends_process": ends_process} if words[0] in TRAINERS else {}
    return COMMANDS[words[0]](list(words[1:]), **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line as a process does.

    Args:
        arguments: the words after `cli.py`; those of the process if not given.

    Returns:
        The exit status: 0, or 1 after an error of the user's, which is printed as one line, or 130 after Ctrl-C. A
        training that a signal ended raises SystemExit with 75 if it saved a checkpoint; see `SaveOnInterrupt`.
    """
    with ProcessEnd() as end:
        end.status = _status(list(sys.argv[1:] if arguments is None else arguments))
    return end.status


def _status(words: list[str]) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        if not words or words[0] in ("-h", "--help", "help"):
            print(OVERVIEW, end="")
        else:
            run(words, ends_process=True)
        if words[:1] != ["fit"]:  # of all others, what they print is what they are for
            sys.stdout.flush()
    except (ValueError, OSError) as error:
        if debug:
            raise
        with suppress(OSError):
            print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
    return 0
