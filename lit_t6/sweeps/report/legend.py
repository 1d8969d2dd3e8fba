"""What stands under the table of a report: what its columns mean, and how far they can be relied on."""

from lit_t6.sweeps.report.findings import CellFindings, Findings
from lit_t6.sweeps.report.statistics import CONFIDENCE, LEVEL, t_quantile
from lit_t6.training.messages import counted

_NATS = ("val/loss", "train/loss")
_EQUAL = 0.01
"""Share by which parameters may differ without a word."""


def legend(found: Findings) -> list[str]:
    """A list of what the columns mean."""
    several = max((len(cell.trials) for cell in found.cells), default=0) > 1
    lines = [f"Bold: the best {'mean' if several else 'value'}."] if found.best else []
    lines += [_means(found)] if several else []
    if found.study.baseline:
        lines.append(_differences(found))
    if found.study.search is not None:
        lines.append(
            "Each setting was tried once: the best of many is better than it would be again. Train the best with "
            "several seeds, as the cells of another study, before believing in the order."
        )
    elif len(found.ranked()) > 2:
        lines.append("The best was chosen by these same values: trained again, it is likely to be a little worse.")
    if any(len(cell.completed) < len(cell.trials) for cell in found.cells):
        lines.append("Cells of which trials are missing are compared by those that are left.")
    return [f"* {line}" for line in [*lines, *_sizes(found), *_units(found)]]


def _means(found: Findings) -> str:
    counts = sorted({cell.value.count for cell in found.cells if cell.value is not None and cell.value.count > 1})
    quantiles = [t_quantile(0.5 + CONFIDENCE / 2, count - 1) for count in counts]
    widths = ", ".join(f"{wide:.1f} with {count} seeds" for wide, count in zip(quantiles, counts, strict=True))
    wide = f" (standard errors to each side: {widths})" if counts else ""
    others = " What else is recorded: the last values, means over the same seeds." if found.recorded else ""
    return (
        "Mean and standard deviation (over n − 1) are of the n seeds that completed, n/all in the table; a seed draws "
        f"the weights and the order of the data. Interval: of the mean, by Student's t{wide}.{others}"
    )


def _differences(found: Findings) -> str:
    compared = sum(cell.difference is not None and cell.difference.p is not None for cell in found.cells)
    better = "below" if found.study.objective.direction == "minimize" else "above"
    said = (
        f"− {found.study.baseline}: mean of the differences to it by seed, over seeds that both completed, with their "
        f"own interval; {better} zero is better."
    )
    if not compared:
        return said
    return (
        f"{said} p (Holm): two-sided paired t-test of them, by Holm's method corrected for the "
        f"{counted(compared, 'comparison')} of this table; below {LEVEL:g} a cell differs. The intervals are not "
        "corrected: where nothing differs, one of 20 misses zero."
    )


def _sizes(found: Findings) -> list[str]:
    """How far cells are of equal size, and by what."""
    sizes = [size for cell in found.cells if (size := _parameters(cell)) is not None]
    if found.study.match == "parameters":
        name = found.matched_to or found.study.baseline
        base = next((cell for cell in found.cells if cell.name == name), None)
        target = found.study.match_to or (base and _parameters(base))
        aim = f"{found.study.match_to:,}" if found.study.match_to else f"those of {name}"
        apart = max((abs(size - target) / target for size in sizes), default=None) if target else None
        within = f"; all are within {_percent(apart)} of them" if apart is not None else ""
        return [f"Parameters are matched: each cell has the head count that brings them nearest to {aim}{within}."]
    if sizes and max(sizes) > (1 + _EQUAL) * min(sizes):
        spread = _percent(max(sizes) / min(sizes) - 1)
        return [f"Parameters are not matched by the study: the largest cell has {spread} more than the smallest."]
    return []


def _units(found: Findings) -> list[str]:
    said = []
    if any(cell.fact("cache_bytes_per_token") is not None for cell in found.cells):
        said.append("Cached bytes: what decoding keeps of a token in all layers, in the type that activations have.")
    if nats := [tag for tag in found.recorded if tag in _NATS]:
        said.append(f"{' and '.join(nats)}: nats a token.")
    if speeds := [tag for tag in found.recorded if tag.startswith("perf/")]:
        said.append(
            f"{' and '.join(speeds)}: at the end of each trial, and slower where others shared the machine: no "
            "comparison of speed, for which there is `cli.py bench`."
        )
    return said


def _parameters(cell: CellFindings) -> int | None:
    size = cell.fact("num_parameters")
    return None if size is None else int(size)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:,.0f} %"
