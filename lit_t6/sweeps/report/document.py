"""A report as a document: the question, what was found in words, the tables, and how to do it again."""

from collections.abc import Mapping, Sequence

from lit_t6.sweeps.report.comparison import beside_best, front_of
from lit_t6.sweeps.report.findings import UNFINISHED, CellFindings, Findings
from lit_t6.sweeps.report.importance import Importance
from lit_t6.sweeps.report.legend import legend
from lit_t6.sweeps.report.statistics import LEVEL
from lit_t6.sweeps.report.tables import cells_markdown, importance_markdown, interval
from lit_t6.training.messages import counted

_MOST_LISTED = 16
_LEVEL = f"at the level of {100 * LEVEL:g} %"


def document(
    found: Findings, shares: Sequence[Importance], figures: Mapping[str, str], method: Sequence[str] = ()
) -> str:
    """The whole report, in Markdown.

    Args:
        found: by the study.
        shares: of the parameters of a search.
        figures: file names of the figures that there are, with what they show.
        method: how it was made; see `lit_t6.sweeps.report.method`.
    """
    parts = [[f"# {found.study.name}"], _head(found), answer(found), cells_markdown(found), legend(found)]
    if troubles := _troubles(found):
        parts.append(["## Trials that did not complete", "", *troubles])
    if remarks := [f"* {t.job.key}: {t.record['remark']}" for t in found.trials if t.record.get("remark")]:
        parts.append(["## Trials that completed, with a remark", "", *remarks])
    if shares:
        parts.append(["## Parameters", "", *importance_markdown(shares), "", *_about_shares()])
    if figures:
        parts.append(["## Figures", "", *(f"![{about}]({name})\n" for name, about in figures.items())])
    if method:
        parts.append(["## How", "", *method])
    return "\n\n".join("\n".join(part).rstrip() for part in parts if part) + "\n"


def table_page(found: Findings, shares: Sequence[Importance]) -> str:
    """Question, answer and tables, for a page that shows the figures elsewhere."""
    parts = [
        _head(found),
        answer(found),
        cells_markdown(found),
        legend(found),
        importance_markdown(shares) if shares else [],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(found: Findings) -> list[str]:
    counts = found.outcomes
    told = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.most_common())
    lines = [f"**Question:** {found.study.question}", ""] if found.study.question else []
    objective = found.study.objective
    least = "less" if objective.direction == "minimize" else "more"
    seeds = f"seed{'s' * (len(found.study.seeds) != 1)} {', '.join(map(str, found.study.seeds))}"
    of = (
        f"of {counted(len(found.cells), 'cell')} with {seeds}"
        if found.study.search is None
        else f"of a search, {seeds}"
    )
    lines.append(f"{counts.total()} trials {of}: {told}. {objective.metric} decides: the {least} the better.")
    if counts[UNFINISHED]:
        lines.append("The study is not over: this is how it stands.")
    if found.left_out:
        lines += ["", f"**Left out** of this report, though it was trained: {found.left_out}."]
    return lines


def answer(found: Findings) -> list[str]:
    """What was found, in words that claim no more than the figures show."""
    ranked, metric = found.ranked(), found.study.objective.metric
    if not ranked:
        return ["No trial completed: there is nothing to compare."]
    best = ranked[0]
    assert best.value is not None
    spread = f" (95 % interval {interval(best.value)})" if best.value.low is not None else ""
    tried = f" ({best.setting})" if best.setting else ""
    lines = [f"Best: **{best.name}**{tried}, {metric} {best.value.mean:.4f}{spread}{_of_fewer(best)}.{_rivals(found)}"]
    if found.study.baseline:
        lines.append(_against(found))
    if found.pareto():
        lines.append(_front(found))
    return [f"* {line}" for line in lines]


def _rivals(found: Findings) -> str:
    """What to say of the cells that may be as good as the best one."""
    beside = beside_best(found)
    if not (beside.worse or beside.alike):
        return " Whether others are as good cannot be tested: that takes two seeds of each." * bool(beside.untested)
    tests = counted(beside.tests, "comparison")
    told = f"{_LEVEL} (paired t-test over seeds, Holm-corrected for {tests} of any two cells)"
    said = f" Not told apart from it {told}: {_listed(beside.alike)}." if beside.alike else ""
    if beside.worse:
        said += f" Worse{'' if beside.alike else f' {told}'}: {_listed(beside.worse)}."
    if beside.untested:
        said += f" Not tested, for want of seeds: {_listed(beside.untested)}."
    most = max(len(cell.by_seed) for cell in found.cells)
    return said + (" Two seeds tell hardly anything apart." if most == 2 else "")


def _front(found: Findings) -> str:
    """The front of objective and cache, and which of its members may stand there by chance."""
    front, metric = front_of(found), found.study.objective.metric
    names = ", ".join(map(_with_size, front.members))
    said = f"No other one beats these in both, mean {metric} and bytes cached of a token: {names}."
    if front.untested and not front.tests:
        return f"{said} Whether that is more than noise cannot be tested: that takes two seeds of each."
    doubtful, untested = (
        _listed([cell.name for cell in front.members if cell.name in names])
        for names in (front.doubtful, front.untested)
    )
    if doubtful:
        said += (
            f" Within noise: {doubtful}; a cell that caches no more is not told apart {_LEVEL}, Holm-corrected for "
            f"{counted(front.tests, 'comparison')}."
        )
    return said + (f" Not tested, for want of seeds: {untested}." if untested else "")


def _listed(names: Sequence[str]) -> str:
    """Names of cells, which may hold commas; not more than can be read."""
    told = ", ".join(f"({name})" if "," in name else name for name in names[:_MOST_LISTED])
    return told if len(names) <= _MOST_LISTED else f"{told} and {len(names) - _MOST_LISTED} others"


def _of_fewer(cell: CellFindings) -> str:
    """What to say of a mean that leaves trials out, which may have been the worse ones."""
    return f", of the {cell.outcomes()} that completed" if len(cell.completed) < len(cell.trials) else ""


def _with_size(cell: CellFindings) -> str:
    told = [cell.setting, f"{cell.fact('cache_bytes_per_token'):,} bytes"]
    return f"{cell.name} ({', '.join(filter(None, told))})"


def _against(found: Findings) -> str:
    tested = [c for c in found.cells if c.difference is not None and c.difference.corrected is not None]
    if not tested:
        return f"Differences to {found.study.baseline} cannot be tested: that takes two seeds that both completed."
    differ = [c.name for c in tested if c.difference is not None and (c.difference.corrected or 0) < LEVEL]
    which = f": {_listed(differ)}" if differ else ""
    said = f"Of {len(tested)} cells {len(differ) or 'none'} {'differs' if len(differ) < 2 else 'differ'}"
    return f"{said} from {found.study.baseline} {_LEVEL} after Holm's correction{which}."


def _about_shares() -> list[str]:
    return [
        "Variance of the objective that a parameter explains by itself (ε² of a one-way analysis of variance: equal "
        "values, or quarters of numbers, less what chance would explain), among completed trials that have it. Pruned "
        "trials, and the sampler's liking for what is good, leave less to vary; interactions are not seen."
    ]


def _troubles(found: Findings) -> list[str]:
    told = []
    for trial in found.trials:
        if trial.outcome not in ("completed", UNFINISHED):
            last = f", last at {trial.value:.4f}" if trial.value is not None else ""
            reason = str(trial.record.get("reason") or "no reason given").splitlines()[0]
            told.append(f"* {trial.job.key}: {trial.outcome.replace('_', ' ')}{last}. {reason}")
    return told
