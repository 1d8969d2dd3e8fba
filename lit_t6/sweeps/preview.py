"""What a study would train, and what that would take: the dry run of `cli.py sweep run`."""

import json
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from lit_t6.attention import is_unequal
from lit_t6.sweeps.cells import Cell
from lit_t6.sweeps.checking import check_data, check_study
from lit_t6.sweeps.command import fit_command
from lit_t6.sweeps.facts import Facts, facts_from
from lit_t6.sweeps.fit_reader import FitReader
from lit_t6.sweeps.memory import EXPLANATION, memory_of
from lit_t6.sweeps.rates import Rate, measured_rate, rate_of_finished, stated_rate
from lit_t6.sweeps.study import Study


@dataclass(frozen=True)
class Row:
    """A cell, before it is trained.

    Args:
        cell: of the study; of a search, a setting at its borders.
        facts: of the cell.
        share: its parameters over those aimed at; None where nothing is matched.
        seconds: estimated, of one trial; None where its budget or the rate is not known.
        memory_gib: estimated, of tensors on each device.
    """

    cell: Cell
    facts: Facts
    share: float | None
    seconds: float | None
    memory_gib: float


@dataclass(frozen=True)
class Preview:
    """A study, before it is trained.

    Args:
        study: that was looked at.
        rows: a cell each.
        rate: what times are estimated from; None where nothing is known.
        workers: trials at a time.
        aimed_at: parameters that head counts were solved for.
        complaint: what is wrong with the data; empty if nothing is.
        on_cpu: whether the trials are trained on CPUs.
    """

    study: Study
    rows: tuple[Row, ...]
    rate: Rate | None
    workers: int
    aimed_at: int | None
    complaint: str
    on_cpu: bool

    @property
    def seconds(self) -> float | None:
        """Estimated, of the whole study."""
        known = [row.seconds for row in self.rows if row.seconds is not None]
        if len(known) < len(self.rows):
            return None
        return sum(known) / len(known) * self.study.num_runs / min(self.workers, self.study.num_runs)


def preview(
    study: Study,
    workers: int = 1,
    folder: Path | None = None,
    flops_per_second: float | None = None,
    reader: FitReader | None = None,
) -> Preview:
    """Look at a study.

    Args:
        study: to look at.
        workers: trials that would go on at a time.
        folder: of the study, where finished trials may tell how long one takes.
        flops_per_second: a rate that is known; else it is measured here, if the device is there.
        reader: of options of `fit`; made, which takes seconds, if not given.

    Raises:
        ValueError: what is wrong with it, as before a real run; but for data that is not there, which is noted.
    """
    read = check_study(study, reader)
    complaint = ""
    try:
        check_data(study, read)
    except ValueError as error:
        complaint = str(error)
    facts = [facts_from(settings) for _, settings in read]
    names = [cell.name for cell, _ in read]
    flops = {name: fact.flops for name, fact in zip(names, facts, strict=True)}
    settings = read[0][1]
    rate = rate_of_finished(folder, flops) if folder else None
    if flops_per_second is not None:
        rate = stated_rate(flops_per_second)
    rate = rate or measured_rate(settings, workers)
    aimed_at = _aimed_at(study, names, facts)
    rows = tuple(
        Row(
            cell,
            fact,
            None if aimed_at is None else fact.num_parameters / aimed_at,
            _seconds(study, cell, fact, rate),
            memory_of(settings) / 2**30,
        )
        for (cell, settings), fact in zip(read, facts, strict=True)
    )
    return Preview(study, rows, rate, workers, aimed_at, complaint, settings.on_cpu)


def _seconds(study: Study, cell: Cell, facts: Facts, rate: Rate | None) -> float | None:
    """Of a trial; its devices share the work."""
    if rate is None or facts.flops is None:
        return None
    seconds = rate.estimate(cell.name, facts.flops / (1 if rate.finished else study.gpus_per_trial))
    return seconds if study.time_limit is None else min(seconds, study.time_limit)


def _aimed_at(study: Study, names: Sequence[str], facts: Sequence[Facts]) -> int | None:
    if study.match == "none":
        return None
    return study.match_to or facts[names.index(study.baseline)].num_parameters


def print_preview(seen: Preview, format: Literal["table", "json"] = "table") -> None:
    """Print it: a table and what its figures are from, or JSON for programs."""
    if format == "json":
        print(json.dumps(plain_preview(seen), indent=2, ensure_ascii=False))
        return
    matched = seen.aimed_at is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\n\ncell", no_wrap=True)
    headers = ("\nattention,\nheads × size", "\nmillion\nparameters", *(["\n× aimed\nat"] if matched else []))
    headers += (
        "cached\nbytes\na token",
        "training,\nmillion\ntokens",
        "\nPFLOPs\na trial",
        "\ntime\na trial",
        "\nmemory,\nGiB",
    )
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for row in seen.rows:
        table.add_row(row.cell.name.replace("[", r"\["), *_figures(row, matched))
    study = seen.study
    print(f"{study.name}: {study.question}" if study.question else study.name)
    print()
    Console(highlight=False, width=1000).print(table)  # a narrow terminal wraps lines; no figure is cut off
    print()
    for line in _legend(seen):
        print(textwrap.fill(line, 120, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))
    words = fit_command(study, seen.rows[0].cell, study.seeds[0], Path("FOLDER"))
    print(f"The first of them: {shlex.join(['python', *words[1:]])}")


def _figures(row: Row, matched: bool) -> list[str]:
    facts = row.facts
    far = "! " if row.share is not None and is_unequal(row.share) else ""
    return [
        f"{facts.mechanism}, {facts.num_heads} × {facts.head_dim}".replace("[", r"\["),
        f"{facts.num_parameters / 1e6:,.3f}",
        *([f"{far}{row.share:.3f}"] if matched else []),
        f"{facts.cache_bytes_per_token:,}",
        "?" if facts.num_tokens is None else _short(facts.num_tokens / 1e6),
        "?" if facts.flops is None else _short(facts.flops / 1e15),
        "?" if row.seconds is None else duration(row.seconds),
        f"{row.memory_gib:.3g}",
    ]


def _short(value: float) -> str:
    """A number of three digits, or more before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _legend(seen: Preview) -> list[str]:
    study, rows = seen.study, seen.rows
    lines = []
    if study.search:
        lines.append(
            f"A search of {study.num_trials} trials, chosen by {study.sampler.name}. The rows are settings at its "
            f"borders, which are read as `fit` reads them; none of them need be tried."
        )
    else:
        seeds = ", ".join(map(str, study.seeds))
        lines.append(
            f"{study.num_runs} trials: {len(rows)} cells, each with seed{'s' * (len(study.seeds) > 1)} {seeds}."
        )
    if seen.aimed_at is not None:
        of = "match_to" if study.match_to else f"cell {study.baseline}"
        shares = [row.share for row in rows if row.share is not None]
        lines.append(
            f"Head counts are solved for the {seen.aimed_at:,} parameters of {of}; they come within "
            f"{100 * max(abs(share - 1) for share in shares):.2f} % of it."
        )
        if any(map(is_unequal, shares)):
            lines.append(
                "! more than 5 % away: no fair comparison. Smaller heads (model.attention.head_dim) come nearer."
            )
    lines += [*_time(seen), f"Memory, of tensors on each device: {EXPLANATION}."]
    if seen.on_cpu:
        lines[-1] += " On a CPU the process itself takes about 0.7 GiB more."
    lines.append("Cached bytes: in the type that activations have.")
    if seen.complaint:
        lines.append(f"! {seen.complaint} `sweep run` will refuse this; times are without validations.")
    return lines


def _time(seen: Preview) -> list[str]:
    if seen.rate is None:
        return [
            "Time: not known. There is no GPU here to measure a few steps on; state a rate, such as --rate 2.5e14, "
            "FLOP/s that your GPU reaches in training."
        ]
    lines = [f"Time: FLOPs of training and validations over the rate of {seen.rate.origin}."]
    if seen.rate.finished:
        lines = [f"Time: as {seen.rate.origin} took, of other cells by their FLOPs."]
    if seen.seconds is not None:
        at_once = f"{seen.workers} at a time" if seen.workers > 1 else "one after another"
        lines.append(f"All {seen.study.num_runs} trials, {at_once}: about {duration(seen.seconds)}.")
    return lines


def plain_preview(seen: Preview) -> dict[str, Any]:
    """It in plain numbers, units in the names."""
    return {
        "study": seen.study.name,
        "num_trials": seen.study.num_runs,
        "aimed_at_parameters": seen.aimed_at,
        "time_estimated_from": seen.rate.origin if seen.rate else None,
        "memory_estimated_from": EXPLANATION,
        "seconds": seen.seconds,
        "workers": seen.workers,
        "complaint": seen.complaint or None,
        "cells": [
            {
                "cell": row.cell.name,
                "options": dict(row.cell.options),
                "configs": [str(path) for path in row.cell.configs],
                **asdict(row.facts),
                "parameters_over_aimed_at": row.share,
                "seconds": row.seconds,
                "memory_gib": row.memory_gib,
            }
            for row in seen.rows
        ],
    }


def duration(seconds: float) -> str:
    """A time to read, such as "45 s", "12 min" or "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours / 24:.1f} days"
