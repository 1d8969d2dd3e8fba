"""What studies over several GPUs have shown: whether it is right, a table, and who trained what, when."""

import statistics
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.multi_gpu.attempts import trained

Result = dict[str, Any]
Values = dict[str, dict[str, float]]
"""Of the objective, by cell and seed."""
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")
_KILLED = "#b00020"
_SAME = 3.0
"""How many times the spread of seeds two runs of the same trial may lie apart."""


def values(part: Mapping[str, Any]) -> Values:
    """The results of a part.

    Args:
        part: of studies.json.
    """
    found: Values = {}
    for attempt in part["attempts"]:
        if attempt["outcome"] == "completed":
            cell, _, seed = attempt["job"].rpartition("/")
            found.setdefault(cell, {})[seed] = attempt["value"]
    return found


def spread(part: Mapping[str, Any]) -> float:
    """Standard deviation between seeds of a cell, over all cells.

    Args:
        part: of studies.json.
    """
    variances = [statistics.variance(seeds.values()) for seeds in values(part).values() if len(seeds) > 1]
    return statistics.mean(variances) ** 0.5 if variances else 0.0


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """Differences of the same trials, cells and seeds, of two parts.

    Args:
        one: of studies.json.
        other: likewise.
    """
    first, second = values(one), values(other)
    return [
        first[cell][seed] - second[cell][seed]
        for cell in first.keys() & second.keys()
        for seed in first[cell].keys() & second[cell].keys()
    ]


def resumed(part: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The attempts at each trial that was killed.

    Args:
        part: of studies.json.
    """
    jobs = dict.fromkeys(attempt["job"] for attempt in part["attempts"] if attempt["killed"])
    return [[attempt for attempt in part["attempts"] if attempt["job"] == job] for job in jobs]


def problems(result: Result) -> list[str]:
    """What is not as it must be: trials missing or done twice, results of their own, nothing resumed elsewhere.

    Args:
        result: of studies.json.
    """
    found, done = [], result["parts"]
    for name, part in done.items():
        if not part["attempts"]:
            found.append(f"{name}: nothing is known of its trials; expected an attempt at each.")
            continue
        completed = [attempt["job"] for attempt in part["attempts"] if attempt["outcome"] == "completed"]
        jobs = {attempt["job"] for attempt in part["attempts"]}
        if sorted(completed) != sorted(jobs):
            found.append(f"{name}: {len(jobs)} trials, {len(completed)} completed; expected each of them once.")
        for attempts in resumed(part):
            for before, after in pairwise(filter(trained, attempts)):
                least = max(1, before["steps"] - part["saved_every"])
                if (after["from_step"] or 0) < least:
                    found.append(
                        f"{name}: {after['job']} was killed at step {before['steps']} and resumed after step "
                        f"{after['from_step']}; expected {least} or later, as it saves every {part['saved_every']}."
                    )
            if attempts[-1]["outcome"] != "completed":
                found.append(f"{name}: {attempts[0]['job']} was killed, and not completed after that.")
        lost = resumed(part)
        if part.get("kills") and not lost:
            found.append(f"{name}: no worker was killed, as trials are too short; more --trainer.max_steps.")
        if lost and all(len({attempt["place"] for attempt in attempts if trained(attempt)}) == 1 for attempts in lost):
            where = ", ".join(f"{attempts[0]['job']} on {attempts[0]['place']}" for attempts in lost)
            found.append(f"{name}: what was killed was never resumed anywhere else: {where}.")
    if "rank-all" in done:
        noise = spread(done["rank-all"])
        for name in ("rank-one", "rank-pairs"):
            if (
                name in done
                and (worst := max(map(abs, apart(done["rank-all"], done[name])), default=0)) > _SAME * noise
            ):
                found.append(f"{name}: a trial lies {worst:.4f} from that of rank-all; seeds spread by {noise:.4f}.")
    return found


def table(result: Result) -> str:
    """The results in Markdown.

    Args:
        result: of studies.json.
    """
    same = result["facts"]["same"]
    lines = [
        f"{same['device']}, {result['places']} of them, torch {same['torch']}",
        "",
        "| study | devices | a trial | trials | attempts | minutes | median trial, s | busy, of each | results apart |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    done = result["parts"]
    for name, part in done.items():
        completed = [attempt for attempt in part["attempts"] if attempt["outcome"] == "completed"]
        use = ", ".join(f"{number}: {each['percent']:.0f} %" for number, each in part["use"].items())
        difference = ""
        if name.startswith("rank") and name != "rank-all" and "rank-all" in done:
            distances = [abs(each) for each in apart(done["rank-all"], part)]
            if distances:
                difference = f"{statistics.mean(distances):.4f}, at most {max(distances):.4f}"
        times = [attempt["end"] - attempt["start"] for attempt in completed]
        cells = [
            *(name, str(part["places"]), str(part["per_trial"]), str(len(completed)), str(len(part["attempts"]))),
            "interrupted" if part.get("interrupted") else f"{part['seconds'] / 60:.2f}",
            *(f"{statistics.median(times):.1f}" if times else "", use, difference),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Busy: share of the time in which a kernel ran, start-up of trials included."]
    if "rank-all" in done:
        lines.append(
            "Results apart: of the same cell and seed, from those of rank-all, in bits per byte; between seeds of a "
            f"cell the standard deviation is {spread(done['rank-all']):.4f}."
        )
    for name, part in done.items():
        for attempts in resumed(part):
            tale = "; then ".join(map(_tale, attempts))
            lines += ["", f"{name}: {attempts[0]['job']}: {tale}."]
    return "\n".join(lines) + "\n"


def _tale(attempt: Mapping[str, Any]) -> str:
    if not trained(attempt):
        return f"found done on {attempt['place']}"
    begun = f"from step {attempt['from_step']} " if attempt["from_step"] else ""
    ended = "its worker killed" if attempt["killed"] else attempt["outcome"]
    return f"{begun}on {attempt['place']}, {ended} at step {attempt['steps']}"


def timeline(result: Result, path: Path) -> Figure:
    """Draw which device trained what, when.

    Args:
        result: of studies.json.
        path: of the PNG.
    """
    done = result["parts"]
    rows = {name: sorted({attempt["place"] for attempt in part["attempts"]}) for name, part in done.items()}
    heights = [max(1.0, 0.45 * len(places) + 0.5) for places in rows.values()]
    figure = Figure(figsize=(9, 0.8 + 1.15 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(done), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axes, (name, part) in zip(panels, done.items(), strict=True):
        cells = list(dict.fromkeys(attempt["job"].rpartition("/")[0] for attempt in part["attempts"]))
        for attempt in part["attempts"]:
            cell, _, seed = attempt["job"].rpartition("/")
            end = attempt["end"] if attempt["end"] is not None else part["seconds"]
            axes.barh(
                rows[name].index(attempt["place"]),
                end - attempt["start"],
                left=attempt["start"],
                height=0.8,
                color=_COLOURS[cells.index(cell) % len(_COLOURS)],
                edgecolor=_KILLED if attempt["killed"] else "white",
                hatch="////" if attempt["killed"] else None,
                linewidth=1.5 if attempt["killed"] else 0.8,
                alpha=1.0 if seed.endswith("0") else 0.65,
            )
        axes.set_yticks(range(len(rows[name])), rows[name])
        took = "interrupted; its last call from 0 on" if part.get("interrupted") else f"{part['seconds']:.0f} s"
        axes.set_title(f"{name}: {took}", fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        handles = [Patch(color=_COLOURS[n % len(_COLOURS)], label=cell) for n, cell in enumerate(cells)]
        if any(attempt["killed"] for attempt in part["attempts"]):
            handles.append(Patch(facecolor="white", edgecolor=_KILLED, hatch="////", label="its worker killed"))
        axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
    panels[-1].set_xlim(left=min([0.0, *(each["start"] for part in done.values() for each in part["attempts"])]))
    panels[-1].set_xlabel("seconds since the start; seeds other than 0 are pale")
    figure.savefig(path, dpi=110)
    return figure
