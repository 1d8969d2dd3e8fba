"""The room that letters take where all have the same width, as in a terminal or in a source file."""

import unicodedata


def columns(text: str) -> int:
    """How many columns a text takes; letters of East Asia that are wide take two each."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def filled(text: str, width: int, right: bool = False) -> str:
    """A text with spaces to a width.

    Args:
        text: that may be wider, and is left as it is then.
        width: in columns.
        right: spaces before it, not after it.
    """
    spaces = " " * (width - columns(text))
    return spaces + text if right else text + spaces
