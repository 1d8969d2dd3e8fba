"""Tables in Markdown."""

from collections.abc import Collection


def aligned(rows: list[list[str]], right: Collection[int]) -> list[str]:
    """A Markdown table that reads well as text.

    Args:
        rows: cells, of the header first.
        right: columns that are aligned to the right, by their places.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    ruler = ["-" * (width + 1) + ":" if place in right else "-" * (width + 2) for place, width in enumerate(widths)]
    return [lines[0], f"|{'|'.join(ruler)}|", *lines[1:]]
