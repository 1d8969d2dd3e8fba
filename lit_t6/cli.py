"""The one front door: every subcommand of `python cli.py`."""

import json
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

from lit_t6.command_help import EXAMPLES, OVERVIEW
from lit_t6.command_line.trainers import TRAINERS
from lit_t6.function_options import chosen, function_parser, given
from lit_t6.process_end import ProcessEnd, hold_everything, reader_is_gone
from lit_t6.sweep_commands import SWEEPS, sweep
from lit_t6.training_help import help_section, section_help, short_help


def _prepare(arguments: list[str]) -> Any:
    from lit_t6.data import prepare_corpus

    parser = function_parser("prepare", prepare_corpus, skip={"inputs"})
    parser.add_argument(
        "inputs", nargs="+", help="text files (a document each), JSONL files (a document a line), or folders of them"
    )
    options = given(parser, arguments)
    manifest = prepare_corpus(**options)
    print(f"{options['output']}: vocabulary of {manifest.vocab_size:,}")
    for name, split in manifest.splits.items():
        print(f"  {name:<10} {split.documents:>9,} documents {split.tokens:>13,} tokens {split.bytes:>15,} bytes")
    fit = f"python cli.py fit --config configs/quickstart.yaml --data.path {options['output']}"
    print(f"next: {fit} --model.vocab_size {manifest.vocab_size}")
    return manifest


def _generate(arguments: list[str]) -> Any:
    from lit_t6.command_line.options import take_options
    from lit_t6.training import generate_text
    from lit_t6.training.generate import stop_strings

    typed, others = take_options(arguments, "--stop")  # the parser would read a stop string as YAML
    stops = [f"--stop={json.dumps(stop_strings(option.partition('=')[2]))}" for option in typed]
    return generate_text(**given(function_parser("generate", generate_text), [*others, *stops]))


def _budget(arguments: list[str]) -> Any:
    from lit_t6.budget_table import print_budgets
    from lit_t6.command_line.options import arrange, take_options
    from lit_t6.command_line.parsing import parse
    from lit_t6.model import T6Config

    overrides, others = take_options(arguments, "--model")
    parser = function_parser("budget", print_budgets, skip={"models", "base", "overrides"}, config=False)
    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE[,NAME][,KEY=VALUE]"}
    parser.add_argument("-c", "--config", help="a model; once for each", **several)
    parser.add_argument("--base", help="what comes under each model", **several)
    # For the help, completion and the names of options; what they mean depends on each model's mechanism.
    parser.add_class_arguments(T6Config, "model")
    helps = [word for word in overrides if word.startswith("--model.attention.help=")]
    options = parse(parser, arrange([*others, *helps])).as_dict()
    del options["model"]
    return print_budgets(options.pop("config"), overrides=overrides, **options)


def _convert(arguments: list[str]) -> Any:
    from lit_t6.command_line.options import arrange, option_value
    from lit_t6.conversion import convert_shards, convert_upstream
    from lit_t6.interop import UPSTREAM_ARCHS

    of_shards = option_value(arrange(arguments), "--from") == "shards"
    convert: Callable[..., Any] = convert_shards if of_shards else convert_upstream
    parser = function_parser("convert", convert, skip={"path"})
    archs = textwrap.fill(
        ", ".join(UPSTREAM_ARCHS), 100, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    if not of_shards:
        parser.epilog = f"archs, names of the authors' model files:\n{archs}\n\n{parser.epilog}"
    parser.add_argument("path", help="what to convert: a folder, or one file of weights")
    parser.add_argument(
        "--from",
        choices=("upstream", "shards"),
        required=True,
        help="whose checkpoint it is: the authors' code, or ours in a folder of shards (--from shards --help)",
    )
    options = given(parser, arguments)
    del options["from"]
    model = convert(**options)
    output = options["output"]
    print(f"{output}: {model.config.attention.label}, {sum(p.numel() for p in model.parameters()):,} parameters")
    tokenizer = "" if of_shards or options["tokenizer"] else " --tokenizer tokenizer.json"
    print(f"next: python cli.py generate --ckpt_path {output}{tokenizer}")
    print(f"      python cli.py validate --ckpt_path {output}{'' if of_shards else ' --data.path data/mine'}")
    return model


def _bench(arguments: list[str]) -> Any:
    examples = "".join(EXAMPLES[f"bench {name}"] for name in BENCHMARKS)
    overview = f"usage: python cli.py bench {{{','.join(BENCHMARKS)}}} [options]\n\nexamples:\n{examples}"
    unnamed = "bench: measures the speed of something, which needs a name."
    return chosen(BENCHMARKS, arguments, "benchmark", unnamed, overview)


def _bench_decode(arguments: list[str]) -> Any:
    from lit_t6.bench import bench_decode
    from lit_t6.command_line.options import join_lists

    parser = function_parser("bench decode", bench_decode)
    lists = ("d_model", "num_heads", "batch", "cache", "ranks", "mechanisms", "peers")
    return bench_decode(**given(parser, join_lists(arguments, lists)))


def _bench_train(arguments: list[str]) -> Any:
    from lit_t6.bench import bench_train
    from lit_t6.command_line.options import join_lists, take_options

    words = ["--config" if word == "-c" else word for word in arguments]
    # As elsewhere, --config may be typed once for each file; here also with several at once.
    files, others = take_options(join_lists(words, ("config", "batch", "seq_len")), "--config")
    listed = [file.partition("=")[2].strip("[]") for file in files]
    typed = [f"--config=[{','.join(listed)}]"] if listed else []
    return bench_train(**given(function_parser("bench train", bench_train, config=False), [*others, *typed], set()))


BENCHMARKS: dict[str, Callable[[list[str]], Any]] = {"decode": _bench_decode, "train": _bench_train}


def print_completion(shell: Literal["bash", "zsh", "tcsh"]) -> None:
    """Print a script with which the shell completes `lit-t6`: commands, options, files.

    In bash and zsh it completes `./cli.py` too; not `python cli.py`, whose words are those of `python` to a shell.

    Args:
        shell: which one.

    Raises:
        ValueError: the package `shtab` is not installed.
    """
    from jsonargparse import capture_parser

    from lit_t6.completion import completion_script

    groups = {"bench": BENCHMARKS, "sweep": SWEEPS}
    commands = [[command] for command in COMMANDS if command not in (*TRAINERS, *groups)]
    commands += [[group, name] for group, names in groups.items() for name in names]
    parsers = {" ".join(words): capture_parser(partial(run, words)) for words in commands}
    print(completion_script(shell, parsers | _trainer_parsers()))


def _trainer_parsers() -> dict[str, Any]:
    from jsonargparse import capture_parser

    whole: Any = capture_parser(partial(run, ["fit"]))
    return dict(whole._subcommands_action.choices)  # one for four


def _completion(arguments: list[str]) -> Any:
    return print_completion(**given(function_parser("completion", print_completion), arguments))


def _run_trainer(command: str, arguments: list[str], ends_process: bool = False) -> Any:
    section = help_section(arguments)
    if section == "all":
        arguments = ["--help"]  # the parser's own
    elif section is not None:
        print(section_help(_trainer_parsers()[command], section) if section else short_help(command), end="")
        raise SystemExit(0)
    from lit_t6.command_line.options import arrange
    from lit_t6.command_line.parsing import check_that_files_are_there

    check_that_files_are_there(arrange(arguments))
    from lit_t6.training.cli import T6CLI

    return T6CLI.run(command, arguments, f"examples:\n{EXAMPLES[command]}", ends_process)


COMMANDS: dict[str, Callable[..., Any]] = {
    "prepare": _prepare,
    **{command: partial(_run_trainer, command) for command in TRAINERS},
    "budget": _budget,
    "bench": _bench,
    "sweep": sweep,
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
        The manifest of `prepare`, the rows of `budget`, the results of a benchmark, how a study stands, what
        `generate` printed, the model of `convert`; of the others the finished run, with its `trainer`, `model` and
        `datamodule`.

    Raises:
        ValueError: an error of the user's.
        SystemExit: a signal ended a training: its code is 75 if a checkpoint was saved.
    """
    if words[0] not in COMMANDS:
        from lit_t6.command_line.complaints import nearest

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
    hold_everything()
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
    except SystemExit as end:
        # rich's, which prints the figures of evaluations, where nobody reads them
        if words[:1] != ["fit"] and isinstance(end.__context__, BrokenPipeError):
            return 0
        raise
    except (ValueError, OSError) as error:
        if debug:
            raise
        if isinstance(error, BrokenPipeError) and reader_is_gone():
            return 0  # they have read what they wanted
        said = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            said = f"{error.filename}: {error.strerror}."
        with suppress(OSError):
            print(f"error: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
    return 0
