"""The tables of a report: Markdown for people, CSV for programs."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lit_t6.command_line.markdown import aligned
from lit_t6.sweeps.report.findings import UNFINISHED, CellFindings, Findings
from lit_t6.sweeps.report.importance import Importance
from lit_t6.sweeps.report.statistics import Estimate
from lit_t6.sweeps.report.varied import columns_of
from lit_t6.sweeps.study import REASONS

NOTHING = "–"
_FORMULAS = ("=", "+", "-", "@", "\t")
OUTCOMES = ("completed", "pruned", *REASONS, UNFINISHED)
_FACTS = ("num_parameters", "cache_bytes_per_token", "num_heads")


def cells_csv(found: Findings) -> str:
    """A row a cell: what it varies, sizes, outcomes, mean with deviation and interval, difference to the baseline.

    Numbers are whole, to be computed with; what is not known is empty. The same trials give the same bytes.
    """
    varied = columns_of(found)
    head = ["cell", *(f"set {c.name}" if c.name in _FACTS else c.name for c in varied), *_FACTS, "trials", *OUTCOMES]
    head += ["mean", "standard_deviation", "low", "high"]
    head += ["pairs", "difference", "difference_deviation", "difference_low", "difference_high", "p", "p_holm"]
    head += [f"{tag} {what}" for tag in found.recorded for what in ("mean", "standard_deviation")]
    rows = []
    for cell in found.cells:
        row: list[Any] = [cell.name, *(column.values.get(cell.name) for column in varied), *map(cell.fact, _FACTS)]
        told = [trial.outcome for trial in cell.trials]
        row += [len(told), *map(told.count, OUTCOMES), *_numbers(cell.value)[1:]]
        other = cell.difference
        row += [*_numbers(other.of if other else None), other and other.p, other and other.corrected]
        for tag in found.recorded:
            row += _numbers(cell.figure(tag))[1:3]
        rows.append(row)
    return _csv([head, *rows])


def trials_csv(found: Findings) -> str:
    """A row a trial, with all its figures, and the seconds of all its attempts."""
    objective = found.study.objective.metric
    head = ["cell", "seed", "outcome", objective, *found.recorded, *_FACTS, "steps", "seconds", "attempts", "reason"]
    rows = []
    for trial in found.trials:
        row: list[Any] = [trial.job.cell, trial.job.seed, trial.outcome, trial.value]
        row += [trial.metric(tag) for tag in found.recorded] + [trial.facts.get(name) for name in _FACTS]
        rows.append([*row, trial.record.get("step"), trial.seconds, *map(trial.record.get, ("attempts", "reason"))])
    return _csv([head, *rows])


def _numbers(of: Estimate | None) -> list[Any]:
    return [None] * 5 if of is None else [of.count, of.mean, of.deviation, of.low, of.high]


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_entry(value) for value in row] for row in rows)
    return text.getvalue()


def _entry(value: Any) -> Any:
    """A value as it may stand in a CSV: in one line, and no formula to a spreadsheet, which "=1+1" or "@a" would be."""
    if not isinstance(value, str):
        return "" if value is None else value
    line = "\n".join(value.splitlines())  # a lone carriage return, as of a progress bar, ends a row for some readers
    return f"'{line}" if line.startswith(_FORMULAS) else line


def cells_markdown(found: Findings) -> list[str]:
    """The table of cells; of a search, the best first and those without a value last."""
    objective, base = found.study.objective.metric, found.study.baseline
    varied = columns_of(found) if found.study.search else []
    many = max((len(cell.trials) for cell in found.cells), default=0) > 1
    head = ["cell", *(column.name for column in varied), "completed", f"mean {objective}" if many else objective]
    head += ["standard deviation", "95 % interval"] if many else []
    head += ["parameters", "cached bytes a token"]
    head += [f"− {base}", "95 % interval", "p (Holm)"] if base else []
    head += found.recorded
    names = [cell.name for cell in found.cells]
    settings = [alike({name: column.values.get(name) for name in names}) for column in varied]
    figures = [
        alike({cell.name: of and of.mean for cell in found.cells for of in [cell.figure(tag)]})
        for tag in found.recorded
    ]
    rows = []
    for cell in _in_order(found):
        shown = [said[cell.name] for said in settings]
        name = found.label(cell)
        row = [f"**{name}**" if cell is found.best else name, *shown, cell.outcomes(), *_mean(cell, many)]
        row += [_whole(cell.fact("num_parameters")), _whole(cell.fact("cache_bytes_per_token"))]
        row += _difference(cell, base) if base else []
        rows.append(row + [said[cell.name] for said in figures])
    left = {0, *(1 + place for place, column in enumerate(varied) if not column.is_numeric), 1 + len(varied)}
    escaped = [[text.replace("|", r"\|") for text in row] for row in [head, *rows]]
    return aligned(escaped, right=set(range(len(head))) - left)


def _in_order(found: Findings) -> list[CellFindings]:
    if found.study.search is None:
        return list(found.cells)
    ranked = found.ranked()
    return [*ranked, *(cell for cell in found.cells if cell not in ranked)]


def _mean(cell: CellFindings, many: bool) -> list[str]:
    of = cell.value
    if of is None:
        return [NOTHING] * (3 if many else 1)
    if not many:
        return [f"{of.mean:.4f}"]
    return [f"{of.mean:.4f}", NOTHING if of.deviation is None else f"{of.deviation:.4f}", interval(of)]


def _difference(cell: CellFindings, base: str) -> list[str]:
    other = cell.difference
    if cell.name == base or other is None:
        return ["baseline" if cell.name == base else NOTHING, "", ""]
    p = NOTHING if other.corrected is None else "< 0.001" if other.corrected < 0.001 else f"{other.corrected:.3f}"
    return [f"{other.of.mean:+.4f}", interval(other.of, "+.4f"), p]


def interval(of: Estimate, format: str = ".4f") -> str:
    """An interval in words."""
    if of.low is None or of.high is None:
        return NOTHING
    return f"{of.low:{format}} to {of.high:{format}}"


def _whole(value: Any) -> str:
    return NOTHING if value is None else f"{value:,}"


def alike(values: Mapping[str, Any]) -> dict[str, str]:
    """Values of a column in words, of numbers with fractions all with as many decimals as any needs for four digits.

    Args:
        values: by cell; None where a cell has none.
    """
    numbers = [abs(value) for value in values.values() if isinstance(value, float)]
    shown = [f"{number:.4g}" for number in numbers if number < 1000]
    if any("e" in text for text in shown) and len(shown) == len(numbers):
        form = ".3e"  # of numbers as small as learning rates
    elif len(shown) < len(numbers):
        form = ",.0f" if min(numbers) >= 100 else ",.1f"
    else:
        form = f".{max((len(text.partition('.')[2]) for text in shown), default=0)}f"
    return {
        name: NOTHING if value is None else f"{value:{form}}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }


def importance_markdown(shares: Sequence[Importance]) -> list[str]:
    """The table of parameters of a search."""
    rows = [[each.name, str(each.trials), f"{100 * each.share:.0f} %"] for each in shares]
    return aligned([["parameter", "trials that have it", "variance explained"], *rows], right={1, 2})
