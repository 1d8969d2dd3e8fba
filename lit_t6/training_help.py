"""What `--help` shows of fit, validate, test and predict: the options that matter, in groups; all others on request."""

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from lit_t6.command_help import EXAMPLES
from lit_t6.command_line.complaints import nearest
from lit_t6.command_line.trainers import PURPOSES, TRAINERS

MECHANISMS = "TPA, TPA-KVonly, TPA-Qonly, MHA, MQA, GQA, MLA, MFA"


class Option(NamedTuple):
    """A line of the help."""

    key: str
    default: str
    """As YAML; empty for an option that has none."""
    purpose: str
    commands: Sequence[str] = TRAINERS
    """That the option matters to."""


_FIT = ("fit",)
_EVALUATIONS = ("validate", "test", "predict")
GROUPS: dict[str, list[Option]] = {
    "general": [
        Option("config", "", "YAML file of options; of several the later win, and what is typed wins over all"),
        Option("ckpt_path", "", "the checkpoint to evaluate; model and data are its own, unless typed", _EVALUATIONS),
        Option("print_config", "", "print what would run, as YAML, and end"),
        Option("seed_everything", "0", "of weights and of random numbers; the order of data has data.seed", _FIT),
        Option("debug", "", "where an error arose"),
    ],
    "model": [
        Option("model.d_model", "768", "width of the residual stream", _FIT),
        Option("model.num_layers", "12", "blocks of attention and feed-forward", _FIT),
        Option("model.max_seq_len", "1024", "tokens of a training sequence", _FIT),
        Option("model.vocab_size", "50304", "at least the tokenizer's; prepare prints it", _FIT),
        Option("model.init", "upstream", "how the attention's projections start: upstream, paper or variance", _FIT),
        Option("model.compile", "false", "compile with torch.compile; kept in ~/.cache/lit_t6 for the next run", _FIT),
        Option("model.recompute", "none", "save memory by computing again: none, selective or (slower) full", _FIT),
    ],
    "attention (--model.attention.help TPA explains all settings of a mechanism)": [
        Option("model.attention", "TPA", MECHANISMS, _FIT),
        Option("model.attention.num_heads", "null", "null solves it for 4·d_model² weights a layer, to compare", _FIT),
        Option("model.attention.head_dim", "64", "size of a head", _FIT),
        Option("model.attention.num_kv_heads", "null", "key/value heads of GQA and TPA-Qonly", _FIT),
        Option("model.attention.rank_q", "6", "TPA: outer products of the queries", _FIT),
        Option("model.attention.rank_k", "2", "TPA: of the keys; the cache grows with it", _FIT),
        Option("model.attention.rank_v", "2", "TPA: of the values; the cache grows with it", _FIT),
        Option("model.attention.rope_fraction", "1.0", "share of each head that RoPE rotates", _FIT),
        Option("model.attention.head_norm", "false", "RMSNorm on what each head reads", _FIT),
    ],
    "data": [
        Option("data.path", "data/shakespeare", "folder that prepare made"),
        Option("data.batch_size", "16", "sequences a device and forward pass", _FIT),
        Option(
            "data.global_batch_size", "null", "sequences an optimizer step over all devices; sets accumulation", _FIT
        ),
        Option("data.eval_batch_size", "null", "sequences a device in evaluation; null takes batch_size"),
        Option("data.eval_windows", "null", "evaluate on this many sequences from the split's start; null for all"),
        Option("data.seq_len", "null", "tokens of a sequence; null takes model.max_seq_len"),
        Option("data.predict_split", "validation", "train, validation or test", ("predict",)),
        Option("data.num_workers", "2", "loader processes a device; 0 reads in the main process"),
        Option("data.mask_documents", "false", "keep attention within documents"),
        Option("data.seed", "0", "of the order of training", _FIT),
    ],
    "optimizer (AdamW; linear warm-up, then a cosine)": [
        Option("model.optimizer.lr", "0.0006", "highest learning rate", _FIT),
        Option("model.optimizer.min_lr", "3.0e-05", "where the cosine ends", _FIT),
        Option("model.optimizer.warmup_steps", "2000", "steps of the warm-up", _FIT),
        Option("model.optimizer.decay_steps", "null", "step at which the cosine ends; null: trainer.max_steps", _FIT),
        Option("model.optimizer.weight_decay", "0.1", "on matrices only", _FIT),
        Option("model.optimizer.betas", "[0.9, 0.95]", "of AdamW", _FIT),
        Option("trainer.gradient_clip_val", "1.0", "norm at which gradients are clipped", _FIT),
    ],
    "trainer": [
        Option("trainer.max_steps", "-1", "optimizer steps; -1 for no limit", _FIT),
        Option("trainer.max_epochs", "null", "passes over the data", _FIT),
        Option("trainer.max_time", "null", "end after DD:HH:MM:SS", _FIT),
        Option(
            "trainer.val_check_interval", "null", "validate after so many batches (steps with global_batch_size)", _FIT
        ),
        Option("trainer.limit_val_batches", "null", "batches of a validation at most", ("fit", "validate")),
        Option("trainer.limit_test_batches", "null", "batches at most", ("test",)),
        Option("trainer.limit_predict_batches", "null", "batches at most", ("predict",)),
        Option("trainer.accelerator", "auto", "cpu, gpu; auto takes a GPU if there is one"),
        Option("trainer.devices", "auto", "how many, or a list of which, as in [0,2]"),
        Option("trainer.num_nodes", "1", "hosts", _FIT),
        Option("trainer.strategy", "auto", "ddp for several devices; fsdp shares the model out among them", _FIT),
        Option("trainer.precision", "null", "bf16-mixed, 32-true, …; null is bf16-mixed on a GPU that has it"),
        Option("trainer.deterministic", "null", "true: the same numbers again on a GPU", _FIT),
        Option("trainer.enable_progress_bar", "null", "false: no bar, and no lines of progress in a log file"),
        Option("trainer.callbacks", "null", "classes of Lightning's or yours, as in YAML", _FIT),
    ],
    "logging (TensorBoard)": [
        Option("trainer.logger.init_args.save_dir", "logs", "where runs are kept: SAVE_DIR/NAME/version_N", _FIT),
        Option("trainer.logger.init_args.name", "t6", "of the experiment", _FIT),
        Option("trainer.logger.init_args.version", "null", "a name for the run; null counts", _FIT),
        Option("trainer.log_every_n_steps", "null", "steps between points of the curves; null is 50", _FIT),
        Option("samples.prompt", "''", "text that the model continues at every validation; '' starts a document", _FIT),
        Option("samples.max_new_tokens", "64", "length of these samples; 0 for none", _FIT),
        Option(
            "diagnostics.every_n_validations",
            "1",
            "look at TPA's factors so often; 0 never. A picture at the 1st, 2nd, 4th, 8th …",
            _FIT,
        ),
    ],
    "checkpoints": [
        Option("checkpoint.monitor", "val/loss", "the best checkpoint is the one at which this is lowest", _FIT),
        Option("checkpoint.save_top_k", "1", "how many of the best to keep", _FIT),
        Option("checkpoint.dirpath", "null", "folder; null is checkpoints/ in the run's folder", _FIT),
        Option("on_save_error", "warn", "a checkpoint cannot be written: warn and go on, or stop", _FIT),
        Option("convert", "false", "with --ckpt_path of another model: take the weights that fit"),
        Option("weights_only", "null", "false: run code that the checkpoint holds; only if you trust it", _EVALUATIONS),
    ],
    "resuming": [
        Option("auto_resume", "true", "the same command goes on with its unfinished run; false starts afresh", _FIT),
        Option("ckpt_path", "null", "go on from this checkpoint", _FIT),
        Option("resume.every_n_minutes", "10.0", "save the whole state so often; 0 does not", _FIT),
        Option("resume.every_n_steps", "0", "and at multiples of so many steps; 0 does not", _FIT),
        Option("resume.keep", "2", "how many of these to keep", _FIT),
        Option("guards.on_nonfinite", "stop", "a loss that is not finite: stop, or skip the step", _FIT),
    ],
    "predictions": [
        Option("predictions.path", "predictions.jsonl", "the file; it appears when all is done", ("predict",)),
        Option("predictions.overwrite", "false", "true: replace the file if it is there", ("predict",)),
    ],
}


_MORE = """\
In [brackets]: what holds where no file and nothing typed says otherwise. More help:
  python cli.py {command} --help all          every option
  python cli.py {command} --help trainer      those of a section:
{sections}
  python cli.py {command} --model.attention.help TPA, --trainer.callbacks.help EarlyStopping
                                      the settings of a class
"""
_INDENT = 38
_KEYS: dict[str, tuple[str, ...]] = {
    "general": ("config", "print_config", "seed_everything", "ckpt_path", "verbose"),
    "attention": ("model.attention",),
    "optimizer": ("model.optimizer", "trainer.gradient_clip_val", "trainer.gradient_clip_algorithm"),
    "logging": ("trainer.logger", "trainer.log_every_n_steps", "samples", "diagnostics"),
    "checkpoints": ("checkpoint", "on_save_error", "convert", "weights_only"),
    "resuming": ("auto_resume", "ckpt_path", "resume", "guards"),
}
"""Beginnings of the keys under a heading, where the heading is none itself."""


def short_help(command: str) -> str:
    """What a person needs first of a training command: usage, examples, and the options that matter.

    Args:
        command: fit, validate, test or predict.
    """
    needed = "" if command == "fit" else "--ckpt_path FILE "
    lines = [f"usage: python cli.py {command} {needed}[--config FILE ...] [--dotted.option VALUE ...]"]
    lines += ["", PURPOSES[command], "", "examples:", EXAMPLES[command].rstrip()]
    for title, options in GROUPS.items():
        shown = [_line(option) for option in _for(options, command)]
        if shown:
            lines += ["", f"{title}:", *shown]
    sections = ", ".join(_heading(title) for title, options in GROUPS.items() if any(_for(options, command)))
    indent = " " * _INDENT
    sections = textwrap.fill(sections, 120, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines) + f"\n\n{_MORE.format(command=command, sections=sections)}"


def _for(options: Sequence[Option], command: str) -> list[Option]:
    return [option for option in options if command in option.commands]


def _heading(title: str) -> str:
    """A heading as it is typed, without what explains it."""
    return title.partition(" (")[0]


def _line(option: Option) -> str:
    default = f" [{option.default}]" if option.default else ""
    return f"{f'  --{option.key} ':<{_INDENT}}{option.purpose}{default}"


def help_section(words: Sequence[str]) -> str | None:
    """What help was asked for: the section named after `--help`, "" if none is, None without `--help`."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("-h", "--help"):
            following = "".join(words[number + 1 : number + 2])
            return value if equals else "" if following.startswith("-") else following
    return None


def section_help(parser: Any, section: str) -> str:
    """The whole help of the options of one section.

    Args:
        parser: of the command; it is of no use afterwards.
        section: such as "trainer", a heading of the short help, or the beginning of keys such as "model.optimizer".

    Raises:
        ValueError: there is no such section.
    """
    keys = {action: [option.removeprefix("--") for option in action.option_strings] for action in parser._actions}
    beginnings = tuple(f"{key}." for key in _KEYS.get(section, (section,)))
    shown = [a for a, names in keys.items() if any(f"{name}.".startswith(beginnings) for name in names)]
    if not shown:
        dotted = {name.partition(".")[0] for names in keys.values() for name in names if "." in name}
        sections = sorted({*dotted, *_KEYS})
        near = nearest(section, sections)
        raise ValueError(f"--help {section}: there is no such section{near} There are all, {', '.join(sections)}.")
    for action in parser._actions:
        if action not in shown:
            action.help = argparse.SUPPRESS
    known = {name for names in keys.values() for name in names}
    listed = next((options for title, options in GROUPS.items() if _heading(title) == section), [])
    others = [_line(option) for option in listed if section in _KEYS and option.key not in known]
    parser.epilog = "\n".join(["more:", *others]) if others else ""
    return str(parser.format_help()).rstrip() + "\n"
