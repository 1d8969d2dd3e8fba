"""The table of a run, as Markdown that reads well as text."""

from lit_t6.bench.training.case import OURS
from lit_t6.bench.training.results import Entry, Results
from lit_t6.command_line.markdown import aligned

HEADER = (
    *("model", "attention", "code"),
    *("tokens/s", "× authors'", "× MHA", "ms a step", "MFU", "peak GiB", "first step s", "graphs", "late", "breaks"),
)


def markdown(results: Results) -> str:
    """A table for each group of models of the same sizes, and what it means.

    Args:
        results: of a run.
    """
    lines: list[str] = []
    for group in results.groups:
        entries = results.of_group(group)
        lines += [title(entries[0]), "", *_table(results, entries), ""]
    lines += _legend(results)
    problems = [entry for entry in results.entries if entry.status != "timed"]
    lines += ["", *(f"* {entry.status}: {entry.label}: {entry.why}" for entry in problems)] if problems else []
    return "\n".join(lines) + "\n"


def title(entry: Entry) -> str:
    """What the models of an entry's group have in common, in words."""
    return f"d_model {entry.d_model:,}, {entry.num_layers} layers, {entry.batch} × {entry.seq_len:,} tokens a step"


def _table(results: Results, entries: list[Entry]) -> list[str]:
    return aligned([list(HEADER), *(_row(results, entry) for entry in entries)], right=range(3, len(HEADER)))


def _row(results: Results, entry: Entry) -> list[str]:
    model = [entry.name, f"{entry.attention}, {entry.num_heads} heads", "ours" if entry.code == OURS else "authors'"]
    if entry.status != "timed":
        first = _cell(entry.first_step_seconds, ".1f")
        return [*model, entry.status, "", "", "", "", "", first, "", "", ""]
    return [
        *model,
        _cell(entry.tokens_per_sec, ",.0f"),
        _cell(results.over_upstream(entry), ".2f"),
        _cell(results.over_mha(entry), ".2f"),
        _cell(entry.step_ms, ".2f"),
        _cell(None if entry.mfu is None else 100 * entry.mfu, ".1f", " %"),
        _cell(entry.peak_gib, ".2f"),
        _cell(entry.first_step_seconds, ".1f"),
        _cell(entry.graphs, "d"),
        _cell(entry.late_graphs, "d"),
        _cell(entry.graph_breaks, "d"),
    ]


def _cell(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else format(value, form) + unit


def _legend(results: Results) -> list[str]:
    settings, facts = results.settings, results.facts
    compiled = "compiled" if settings["compile"] else "not compiled"
    if settings["recompute"] != "none":
        compiled += f", {settings['recompute']} activation checkpointing of ours"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    lines = [
        "A step is forward, backward, clipping, AdamW and clearing of gradients on random tokens, "
        f"{settings['precision']}, {compiled}; the median of {settings['steps']}. Memory is the largest during them, "
        "without the first step.",
        "× authors': tokens/s over those of the authors' code for the same model; × MHA: over our MHA. MFU: our FLOP "
        "formula over the dense bfloat16 peak. Graphs: of torch.compile, those after the second step, and breaks.",
        "Before it was timed, each of our steps was compared with the reference in float64: loss and the gradient of "
        "every weight. Of what has no time, train.json has the end of the log.",
        f"{facts['same']['device']}; {versions}.",
        *facts["commands"],
    ]
    if results.left_out:
        lines.append(f"No file of the authors makes a model equal to {', '.join(results.left_out)}.")
    if results.stopped:
        lines.append(f"Of {results.planned} cases {len(results.entries)} were measured: {results.stopped}.")
    return [f"{line}  " for line in lines]
