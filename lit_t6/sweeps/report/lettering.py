"""Fonts for the letters of a study: names and questions may be in any script."""

import logging
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib import font_manager, rc_context, rcParams
from matplotlib.font_manager import FontProperties

from lit_t6.command_line.columns import columns

_NO_LETTERS = re.compile(r"last ?resort|blank|^cm[a-z]+10$|^stix(nonunicode|size)", re.IGNORECASE)
"""Fonts that have a box for everything, or symbols in the places of letters."""
_LOG = logging.getLogger(font_manager.__name__)
_FILLER = "\uffff"


@contextmanager
def lettering(text: str) -> Iterator[str]:
    """Draw with fonts that have the letters of a text, where such are installed.

    Args:
        text: all that figures may show.

    Yields:
        The letters that no installed font has; `drawable` writes them as escapes.
    """
    families, missing = list(rcParams["font.family"]), _missing(text, rcParams["font.family"])
    level = _LOG.level
    _LOG.setLevel(logging.ERROR)  # or it tells of each family that has no regular weight
    try:
        while missing:
            counts = {name: len(missing & _letters(name)) for name in _installed()}
            name = max(counts, key=lambda name: counts[name], default="")
            if not counts.get(name):
                break
            families.append(name)
            missing -= _letters(name)
        with rc_context({"font.family": families}):
            yield "".join(sorted(missing))
    finally:
        _LOG.setLevel(level)


def drawable(text: str) -> str:
    r"""A text with `\u4e2d` for each letter that the fonts in use lack."""
    if text.isascii():
        return text
    missing = _missing(text, rcParams["font.family"])
    return "".join(escape(letter) if letter in missing else letter for letter in text)


def escape(letter: str) -> str:
    """A letter in ASCII."""
    return letter.encode("unicode_escape").decode()


def wrap(text: str, width: int) -> list[str]:
    """A line in lines of at most so many letters, of which those of East Asia count twice."""
    spread = "".join(letter + _FILLER * (columns(letter) - 1) for letter in text)
    return [line.replace(_FILLER, "") for line in textwrap.wrap(spread, width)]


def _missing(text: str, families: list[str]) -> set[str]:
    letters = {letter for letter in text if not letter.isascii()}
    for family in families:
        letters -= _letters(family)
    return letters


@cache
def _installed() -> list[str]:
    """Families, those first that look most like the usual one."""
    fonts = [font for font in font_manager.fontManager.ttflist if not _NO_LETTERS.search(font.name)]
    names = sorted({font.name for font in fonts if font.style == "normal"})
    return sorted(names, key=lambda name: ("Sans" not in name and "Gothic" not in name, "Mono" in name))


@cache
def _letters(family: str) -> frozenset[str]:
    """What a family has."""
    try:
        path = font_manager.findfont(FontProperties(family=[family]), fallback_to_default=False)
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # a file that is gone or broken since matplotlib listed it
        return frozenset()
