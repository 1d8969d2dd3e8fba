"""How a study was made: what all of its trainings have in common, and the commands that make it again."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_t6.command_line.markdown import aligned
from lit_t6.sweeps.report.described import Description
from lit_t6.sweeps.report.findings import Findings
from lit_t6.sweeps.saved_study import CONFIGS_NAME, STUDY_NAME
from lit_t6.sweeps.study import Study, load_study


def in_common(descriptions: Sequence[Description]) -> list[tuple[str, str]]:
    """Settings and data that all trainings have, by name; of others it is said that they are varied.

    Args:
        descriptions: of the trainings; those whose folders are not here tell nothing.
    """
    known = [each for each in descriptions if each.settings]
    found = []
    for name, tell in _TOLD.items():
        told = {tell(each) for each in known}
        if told and None not in told:
            found.append((name, str(told.pop()) if len(told) == 1 else "varied"))
    return found


def how(found: Findings, common: Sequence[tuple[str, str]], again: str, command: str) -> list[str]:
    """The last part of a report.

    Args:
        found: by the study.
        common: see `in_common`.
        again: command that trains it anew; empty if that is not known.
        command: that made the report.
    """
    versions: dict[str, set[str]] = {}
    for trial in found.trials:
        for name, version in (trial.record.get("versions") or {}).items():
            versions.setdefault(name, set()).add(version)
    devices = sorted({str(trial.facts["device"]) for trial in found.trials if trial.facts.get("device")})
    tokens = ", ".join(f"{name} {' and '.join(sorted(each))}" for name, each in versions.items())
    files = shlex.join(str(path) for path in found.study.files)
    rows = [[name, said.replace("|", r"\|")] for name, said in common]
    return [
        *([*aligned([["all trials", ""], *rows], right=set()), ""] if rows else []),
        f"* study: `{files}`, seeds {', '.join(map(str, found.study.seeds))}",
        *([f"* trained anew: `{again}`"] if again else []),
        f"* this report: `{command}`",
        f"* versions: {tokens or 'not recorded'}",
        f"* device of a trial: {'; '.join(devices) or 'not recorded'}",
        f"* time: {_time(found)}",
        "* numbers: `cells.csv` (a row a cell), `trials.csv` (a row a trial; seconds: of all its attempts)",
    ]


def _time(found: Findings) -> str:
    """How long all trials computed, those attempts among it that came to nothing."""
    seconds = sum(trial.seconds or 0.0 for trial in found.trials)
    said = f"all trials together {seconds / 60:,.1f} minutes"
    if not any(trial.spent for trial in found.trials):
        again = any((trial.record.get("attempts") or 1) > 1 for trial in found.trials)
        return said + ", the last attempt of each alone: the storage, which has the others, is not here" * again
    in_vain = sum(trial.spent.in_vain for trial in found.trials if trial.spent)
    if not in_vain:
        return said
    return f"{said}, all attempts counted: {in_vain / 60:,.1f} of them in such as failed, were killed or interrupted"


def anew(
    study: Study,
    folder: Path,
    overrides: Mapping[str, Any] | None = None,
    archive: str | None = None,
    logs: str = "logs",
) -> str:
    """The command that trains a study again from the start, in place of going on with what is finished.

    Of a study that is named by its folder, or by an archive, the settings are copied to a folder of their own.

    Args:
        study: that was asked.
        folder: of the study; of an archive, where that is unpacked.
        overrides: settings of the study that were typed.
        archive: that brought the study.
        logs: folder of all logs.
    """
    first, *others = study.files
    typed = {name: value for name, value in (overrides or {}).items() if archive is None or name != "name"}
    if archive is None and not (first.name == STUDY_NAME and first.parent.resolve() == folder.resolve()):
        words = [str(first), *map(str, others)]
        if load_study(words, typed).seeds != study.seeds:  # the study was begun with others
            typed["seeds"] = list(study.seeds)
        return shlex.join(["python", "cli.py", "sweep", "run", *words, *_options(typed)])
    name = f"{study.name}-again"
    fresh = Path(logs) / "sweeps" / name
    kept = [STUDY_NAME, *([CONFIGS_NAME] if any((folder / CONFIGS_NAME).glob("*")) else [])]
    if archive is None:
        copy = ["cp", "-r", *(str(first.parent / each) for each in kept), str(fresh)]
    else:
        inside = [f"{folder.name}/{each}" for each in kept]
        copy = ["tar", "-xzf", archive, "-C", str(fresh), "--strip-components=1", *inside]
    typed = {**typed, "name": name}
    run = ["python", "cli.py", "sweep", "run", str(fresh / STUDY_NAME), *map(str, others), *_options(typed)]
    return " && ".join(map(shlex.join, (["mkdir", "-p", str(fresh)], copy, run)))


def _options(typed: Mapping[str, Any]) -> list[str]:
    return [word for name, value in typed.items() for word in (f"--{name}", str(value))]


# What is told of a training.


def _setting(key: str) -> Callable[[Description], str | None]:
    def tell(of: Description) -> str | None:
        value = of.settings.get(key)
        return None if value is None else f"{value:,}" if isinstance(value, int) else str(value)

    return tell


def _context(of: Description) -> int:
    """T, tokens of a sequence; 0 if that is not known."""
    return int(of.settings.get("data.seq_len") or of.settings.get("model.max_seq_len") or 0)


def _sequences(of: Description) -> int:
    """Of an optimizer step, over all devices; 0 if that is not known."""
    if whole := of.settings.get("data.global_batch_size"):
        return int(whole)
    counts = [
        of.settings.get(key) for key in ("trainer.devices", "trainer.num_nodes", "trainer.accumulate_grad_batches")
    ]
    product = int(of.settings.get("data.batch_size") or 0)
    for count in counts:
        product *= int(str(count)) if str(count).isdigit() else 0
    return product


def _length(of: Description) -> str | None:
    steps, epochs = of.settings.get("trainer.max_steps"), of.settings.get("trainer.max_epochs")
    return f"{steps:,} steps" if steps and steps > 0 else f"{epochs} epochs" if epochs and epochs > 0 else None


def _batch(of: Description) -> str | None:
    if not (size := of.settings.get("data.batch_size")):
        return None
    sequences = _sequences(of)
    whole = f", {sequences:,} a step = {sequences * _context(of):,} tokens" if sequences and _context(of) else ""
    return f"{size:,} sequences a device{whole}"


def _rate(of: Description) -> str | None:
    key = "model.optimizer."
    rate, least, warmup = (of.settings.get(key + name) for name in ("lr", "min_lr", "warmup_steps"))
    if rate is None:
        return None
    end = f", at the end {float(least):g}" if least is not None else ""
    return f"{float(rate):g}{end}" + (f"; {warmup:,} steps of warmup" if warmup else "")


def _precision(of: Description) -> str | None:
    return of.words.get("device", "").partition("precision ")[2] or of.settings.get("trainer.precision")


def _split(of: Description, name: str) -> int | None:
    """Tokens of a split of the data."""
    found = re.search(rf"([\d,]+) {name}\b", of.words.get("data", "").rpartition(": tokens ")[2])
    return int(found[1].replace(",", "")) if found else None


def _trained(of: Description) -> str | None:
    """Tokens of a whole training, as it was planned: what came to nothing has been trained on fewer."""
    steps = of.settings.get("trainer.max_steps") or 0
    tokens = steps * _sequences(of) * _context(of) if steps > 0 else of.tokens
    if not tokens:
        return None
    split = _split(of, "train")
    return f"{tokens:,} tokens" + (f", {tokens / split:.2g} times the {split:,} there are" if split else "")


def _validated(of: Description) -> str | None:
    if of.settings.get("trainer.limit_val_batches") not in (None, 1.0):
        return None
    split, windows = _split(of, "validation"), of.settings.get("data.eval_windows")
    seen = windows * _context(of) if windows else None
    if seen and (split is None or seen < split):
        return f"{seen:,} tokens, the first" + (f" of {split:,}" if split else "")
    return f"{split:,} tokens, all there are" if split else None


_TOLD: dict[str, Callable[[Description], str | None]] = {
    "layers": _setting("model.num_layers"),
    "model width": _setting("model.d_model"),
    "context": lambda of: f"{_context(of):,} tokens" if _context(of) else None,
    "vocabulary": _setting("model.vocab_size"),
    "length": _length,
    "batch": _batch,
    "learning rate": _rate,
    "weight decay": _setting("model.optimizer.weight_decay"),
    "precision": _precision,
    "data": _setting("data.path"),
    "trained on": _trained,
    "validated on": _validated,
}
