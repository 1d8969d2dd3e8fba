"""Tables in Markdown."""

from collections.abc import Collection

from lit_t6.command_line.columns import columns, filled


def aligned(rows: list[list[str]], right: Collection[int]) -> list[str]:
    """A Markdown table that reads well as text.

    Args:
        rows: cells, of the header first.
        right: columns that are aligned to the right, by their places.
    """
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            filled(cell, width, right=place in right)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    ruler = ["-" * (width + 1) + ":" if place in right else "-" * (width + 2) for place, width in enumerate(widths)]
    return [lines[0], f"|{'|'.join(ruler)}|", *lines[1:]]
