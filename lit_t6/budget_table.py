"""What models cost, side by side: `python cli.py budget`."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from lit_t6.attention import is_unequal, measure_budget, short_names
from lit_t6.model import T6Config
from lit_t6.model_reader import ModelReader

CacheDtype = Literal["bfloat16", "float16", "float32"]
BYTES: dict[CacheDtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
Row = dict[str, Any]


def print_budgets(
    models: Sequence[str] | None = None,
    base: Sequence[str] = (),
    overrides: Sequence[str] = (),
    context: int | None = None,
    seq_len: int | None = None,
    batch_size: int = 1,
    cache_dtype: CacheDtype = "bfloat16",
    format: Literal["table", "markdown", "csv", "json"] = "table",
) -> list[Row]:
    """Parameters, cache and arithmetic of models side by side, with ratios to multi-head attention of the same budget.

    Nothing is trained or loaded: no weights are made, and of the YAML files only the model counts. Each --config is one
    model: files (which stack), a mechanism's short name and its settings, joined by commas. Every --base, of the same
    form, comes under each of them. Without --config, every mechanism is compared. Options --model.KEY hold for all
    models; a setting of the mechanism (--model.attention.rank_q) for those that have it.

    Args:
        models: the models; every mechanism if not given, over `base`.
        base: what comes under each model.
        overrides: options `--model.KEY=VALUE` for all models.
        context: tokens in each cache; model.max_seq_len if not given.
        seq_len: tokens of a training sequence; model.max_seq_len if not given.
        batch_size: caches of that many tokens, for their size in all.
        cache_dtype: type of the cached numbers.
        format: table to read, markdown to paste, csv or json (plain numbers, units in the names) for programs.

    Returns:
        A row a model, as `--format json` prints it.

    Raises:
        ValueError: what `fit` would refuse of the model, or a count below 1.
    """
    for name, count in (("context", context), ("seq_len", seq_len), ("batch_size", batch_size)):
        if count is not None and count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}.")
    all_mechanisms = not models and not any(word.startswith("--model.attention=") for word in overrides)
    names = list(models or (short_names() if all_mechanisms else [""]))
    rows = []
    for name, config in zip(names, ModelReader().read_all(names, base, overrides), strict=True):
        try:
            rows.append(budget_row(name, config, context, seq_len, batch_size, cache_dtype))
        except ValueError as error:
            if not all_mechanisms:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not rows:
        raise ValueError("no mechanism meets the parameter budget; see above.")
    _PRINTERS[format](rows)
    return rows


def budget_row(
    name: str,
    config: T6Config,
    context: int | None = None,
    seq_len: int | None = None,
    batch_size: int = 1,
    cache_dtype: CacheDtype = "bfloat16",
) -> Row:
    """Costs of a model: those of `lit_t6.attention.AttentionBudget`, and of the whole.

    Args:
        name: what was typed for it.
        config: the model.
        context: see `print_budgets`, as the three that follow.
        seq_len: tokens of a training sequence.
        batch_size: number of caches.
        cache_dtype: type of the cached numbers.

    Raises:
        ValueError: no head count meets the parameter budget.
    """
    config = config.resolved()
    context, seq_len = context or config.max_seq_len, seq_len or config.max_seq_len
    layers = config.num_layers
    budget = measure_budget(
        config.attention, config.d_model, num_layers=layers, bytes_per_number=BYTES[cache_dtype], seq_len=seq_len
    )
    return {
        "config": name,
        "d_model": config.d_model,
        "num_layers": layers,
        **asdict(budget),
        "model_parameters": config.num_parameters(),
        "model_forward_flops_per_token": config.flops_per_token(seq_len),
        "context_tokens": context,
        "batch_size": batch_size,
        "cache_dtype": cache_dtype,
        "cache_gib": budget.cache_bytes_per_token * context * batch_size / 2**30,
        "decode_attention_flops_per_token": budget.decode_flops_per_cached_token_per_layer * context * layers,
    }


COLUMNS: list[tuple[str, Callable[[Row], str]]] = [
    ("\nheads\n× size", lambda row: f"{row['num_heads']} × {row['head_dim']}"),
    ("attention\nweights\na layer", lambda row: f"{_unequal(row)}{row['parameters_per_layer']:,}"),
    ("\n\n× MHA", lambda row: f"{row['parameters_over_mha']:.3f}"),
    ("model,\nmillion\nweights", lambda row: f"{row['model_parameters'] / 1e6:,.2f}"),
    ("cached\nnumbers\na layer", lambda row: f"{row['cache_numbers_per_token_per_layer']:,}"),
    ("cached\nbytes\na token", lambda row: f"{row['cache_bytes_per_token']:,}"),
    ("\n\n× MHA", lambda row: f"{row['cache_over_mha']:.3f}"),
    ("\ncaches,\nGiB", lambda row: f"{row['cache_gib']:.3g}"),
    ("decoding,\nmultiply-\nadds", lambda row: f"{row['decode_multiply_adds_per_cached_token_per_layer']:,}"),
    ("\n\n× MHA", lambda row: f"{row['decode_over_mha']:.2f}"),
    ("decoding,\nMFLOPs\na token", lambda row: f"{row['decode_attention_flops_per_token'] / 1e6:,.1f}"),
    ("training,\nMFLOPs\na layer", lambda row: f"{_layer_flops(row) / 1e6:,.1f}"),
]
"""Header (over lines) and cell of each column of figures."""


def _layer_flops(row: Row) -> float:
    """Projections and attention of a layer, forward and backward, for a token."""
    return 3 * (row["projection_flops_per_token_per_layer"] + row["attention_flops_per_token_per_layer"])


def _names(rows: Sequence[Row]) -> list[str]:
    """The mechanism of each row, with what was typed where that tells rows apart, or is not what came of it."""
    labels = [_label(row) for row in rows]
    return [
        f"{label} [{row['config']}]" if labels.count(label) > 1 and row["config"] else label
        for label, row in zip(labels, rows, strict=True)
    ]


def _label(row: Row) -> str:
    """Such as "GQA = MHA" where GQA was typed and has as many key/value heads as query heads."""
    typed, label = row["config"], row["mechanism"]
    return f"{typed} = {label}" if typed in short_names() and not label.startswith(typed) else label


def _unequal(row: Row) -> str:
    return "! " if is_unequal(row["parameters_over_budget"]) else ""


def _legend(rows: Sequence[Row]) -> list[str]:
    def each(key: str) -> str:
        return " or ".join(dict.fromkeys(f"{row[key]:,}" for row in rows))

    unequal = [f"{n} {r['parameters_over_budget']:.2f}" for n, r in zip(_names(rows), rows, strict=True) if _unequal(r)]
    unfair = f"! not 4·d_model² weights a layer: no fair comparison. Times as many: {', '.join(unequal)}."
    return [
        *([unfair, "    With num_heads null the head count is solved for them."] if unequal else []),
        f"d_model {each('d_model')}, {each('num_layers')} layers. A multiply-add is two FLOPs.",
        "× MHA: over multi-head attention with heads of that size and 4·d_model² parameters a layer.",
        f"Cache: {rows[0]['cache_dtype']}, bytes in all layers; GiB of {rows[0]['batch_size']:,} × "
        f"{each('context_tokens')} tokens.",
        "Decoding: a new token's attention for each cached token and layer, and for "
        f"{each('context_tokens')} of them in all layers;",
        "    its time on a GPU is mostly that of reading the cache.",
        f"Training: projections and attention of a token, forward and backward, in a sequence of {each('seq_len')}.",
    ]


def _print_table(rows: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("\n\nmechanism", no_wrap=True)
    for header, _ in COLUMNS:
        table.add_column(header, justify="right", no_wrap=True)
    for name, row in zip(_names(rows), rows, strict=True):
        table.add_row(name.replace("[", r"\["), *(cell(row) for _, cell in COLUMNS))
    console = Console(highlight=False, width=1000)  # a narrow terminal wraps lines; no figure is cut off
    console.print(table)
    print("\n" + "\n".join(_legend(rows)))


def _print_markdown(rows: Sequence[Row]) -> None:
    headers = ["mechanism", *(" ".join(header.split()) for header, _ in COLUMNS)]
    body: Iterable[list[str]] = (
        [name, *(cell(row) for _, cell in COLUMNS)] for name, row in zip(_names(rows), rows, strict=True)
    )
    for cells in (headers, ["---", *["---:"] * len(COLUMNS)], *body):
        print(f"| {' | '.join(cells)} |")
    print("\n" + "\n".join(_legend(rows)))


def _print_csv(rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    print(text.getvalue(), end="")


def _print_json(rows: Sequence[Row]) -> None:
    print(json.dumps(rows, indent=2, ensure_ascii=False))


_PRINTERS: dict[str, Callable[[Sequence[Row]], None]] = {
    "table": _print_table,
    "markdown": _print_markdown,
    "csv": _print_csv,
    "json": _print_json,
}
