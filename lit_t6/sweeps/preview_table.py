"""A preview of a study, printed."""

import json
import shlex
import textwrap
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lit_t6.sweeps.command import fit_command
from lit_t6.sweeps.preview import Preview, Row, plain_preview
from lit_t6.sweeps.reading import spelt
from lit_t6.training.planning.memory import EXPLANATION


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
        table.add_row(row.cell.name.replace("[", r"\["), *_figures(seen, row))
    study = seen.study
    print(f"{study.name}: {study.question}" if study.question else study.name)
    print()
    Console(highlight=False, width=1000).print(table)  # a narrow terminal wraps lines; no figure is cut off
    print()
    for line in _legend(seen):
        print(textwrap.fill(line, 120, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))
    words = fit_command(study, seen.rows[0].cell, study.seeds[0], Path("FOLDER"))
    print(f"The first of them: {shlex.join(['python', *words[1:]])}")


def _figures(seen: Preview, row: Row) -> list[str]:
    facts, aimed_at = row.facts, seen.aimed_at
    far = "! " if aimed_at is not None and facts.is_unequal_to(aimed_at) else ""
    return [
        f"{facts.mechanism}, {facts.num_heads} × {facts.head_dim}".replace("[", r"\["),
        f"{facts.num_parameters / 1e6:,.3f}",
        *([f"{far}{row.share:.3f}"] if aimed_at is not None else []),
        f"{facts.cache_bytes_per_token:,}",
        "?" if facts.num_tokens is None else _short(facts.num_tokens / 1e6),
        "?" if facts.flops is None else _short(facts.flops / 1e15),
        "?" if row.seconds is None else f"{'! ' * seen.is_too_long(row)}{duration(row.seconds)}",
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
        if any(row.facts.is_unequal_to(seen.aimed_at) for row in rows):
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
    lines = [f"Time: FLOPs of training and validations over a rate, {seen.rate.origin}."]
    if seen.rate.finished:
        lines = [f"Time: as {seen.rate.origin} took, of other cells by their FLOPs."]
    if seen.seconds is not None:
        at_once = f"{seen.workers} at a time" if seen.workers > 1 else "one after another"
        lines.append(f"All {seen.study.num_runs} trials, {at_once}: about {duration(seen.seconds)}.")
    if (too_long := sum(map(seen.is_too_long, seen.rows))) and seen.study.time_limit is not None:
        lines.append(
            f"! longer than time_limit, {spelt(seen.study.time_limit)} of one trial: {too_long} of {len(seen.rows)} "
            f"{'settings' if seen.study.search else 'cells'}. Their trials would be ended there, without a result. "
            f"Raise it (--time_limit), or train fewer steps."
        )
    return lines


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
