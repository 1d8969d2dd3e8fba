"""The table of a run, as Markdown that reads well as text."""

from collections.abc import Sequence

from lit_t6.bench.results import Entry, Results
from lit_t6.command_line.markdown import aligned


def markdown(results: Results) -> str:
    """The table, what it means, and worst and best ratios.

    Args:
        results: of a run.
    """
    columns = results.columns()
    names = [results.label(column) for column in columns]
    header = ["H", "batch", "cache", "floor", "ours", "of floor", *names]
    rows = [_row(results, shape, columns) for shape in results.shapes]
    table = aligned([header, *rows], right=range(6))
    return "\n".join([*table, "", *_legend(results), "", *_summary(results, columns, names)]) + "\n"


def _row(results: Results, shape: tuple[int, int, int], columns: Sequence[str]) -> list[str]:
    ours = results.ours(shape)
    cells = [str(shape[0]), str(shape[1]), f"{shape[2]:,}"]
    if ours is None or ours.ms is None:
        first = next((e for e in results.entries if e.shape == shape and e.is_ours), None)
        cells += ["", first.status if first else "", ""]
    else:
        floor = results.floor_ms(ours)
        cells += [f"{floor:.4f}", f"{ours.ms:.4f}", f"{floor / ours.ms:.2f}"]
    return cells + [_cell(results.best(shape, column), ours) for column in columns]


def _cell(entry: Entry | None, ours: Entry | None) -> str:
    if entry is None:
        return ""
    if entry.ms is None:
        return entry.status
    ratio = f" {entry.ms / ours.ms:.2f}×" if ours is not None and ours.ms else ""
    way = f" {entry.library} {entry.variant}".rstrip() if entry.mechanism != "TPA" else f" {entry.variant}"
    return f"{entry.ms:.4f}{ratio}{way}"


def _legend(results: Results) -> list[str]:
    settings, facts = results.settings, results.facts
    rate, by = results.best_rate()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    ours = next((e for e in results.entries if e.is_ours), None)
    each = f" ({ours.cache_bytes // (ours.batch * ours.cache):,} bytes a token at H {ours.num_heads})" if ours else ""
    lines = [
        f"Milliseconds of one decode step of one layer, {settings['dtype']}, heads of {settings['head_dim']}; ours: "
        f"TPA ({', '.join(map(str, settings['ranks']))}). n×: over ours; above 1, ours is faster.",
        f"Floor: TPA's cache{each}, without padding, at {rate:,.0f} GB/s, the best rate of the run, by {by}.",
        "Of every mechanism the fastest way, which is named. Of what has no time, decode.json says why.",
        f"{facts['same']['device']}; {versions}.",
        *facts["commands"],
    ]
    if results.without_graphs:
        lines.insert(
            1, "Without CUDA graphs: where Python takes longer to start a step than the GPU for it, that time."
        )
    lines += [f"Left out: {label}, {why}." for label, why in results.not_tried().items()]
    if results.stopped:
        lines.append(f"Of {results.planned} points {len(results.shapes)} were begun: {results.stopped}.")
    return [f"{line}  " for line in lines]


def _summary(results: Results, columns: Sequence[str], names: Sequence[str]) -> list[str]:
    lines = []
    for column, name in zip(columns, names, strict=True):
        ratios = {}
        for shape in results.shapes:
            ours, other = results.ours(shape), results.best(shape, column)
            if ours is not None and other is not None and ours.ms and other.ms:
                ratios[shape] = other.ms / ours.ms
        if ratios:
            worst, best = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
            lines.append(
                f"* {name}: {ratios[worst]:.2f}× (worst, {place(worst)}) to {ratios[best]:.2f}× (best, {place(best)})"
            )
    fractions = {shape: results.floor_ms(e) / e.ms for shape in results.shapes if (e := results.ours(shape)) and e.ms}
    if fractions:
        worst, best = min(fractions, key=fractions.__getitem__), max(fractions, key=fractions.__getitem__)
        lines.append(
            f"* of the floor: {fractions[worst]:.2f} (worst, {place(worst)}) to {fractions[best]:.2f} "
            f"(best, {place(best)})"
        )
    return lines + [f"* wrong: {e.name} at {place(e.shape)}: {e.why}" for e in results.wrong]


def place(shape: tuple[int, int, int]) -> str:
    """A point in words.

    Args:
        shape: H, B and M.
    """
    return f"H {shape[0]}, batch {shape[1]}, cache {shape[2]:,}"
