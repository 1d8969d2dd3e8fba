"""Figures of studies whose names and questions are in other scripts."""

import warnings

import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from lit_t6.sweeps.report import lettering as module
from lit_t6.sweeps.report.command import sweep_report
from lit_t6.sweeps.report.drawing import literal, titled, wrapped
from lit_t6.sweeps.report.lettering import drawable, lettering, wrap

from .reported import begun

NOWHERE = "\U0001fae8"  # an emoji of 2022
CELLS = {"base": {"model.attention.rank_q": 6}, "低い": {"model.attention.rank_q": 2}}


@pytest.fixture
def fresh():
    """Forget what is known of the installed fonts, before and after."""
    before = list(font_manager.fontManager.ttflist)
    for cached in (module._installed, module._letters):
        cached.cache_clear()
    yield
    font_manager.fontManager.ttflist[:] = before
    for cached in (module._installed, module._letters):
        cached.cache_clear()


@pytest.fixture
def bare(fresh):
    """Only what matplotlib brings is installed."""
    fonts = font_manager.fontManager.ttflist
    fonts[:] = [font for font in fonts if "mpl-data" in str(font.fname)]


def install(tmp_path, letters, family="Made Up Sans"):
    """A font that has these letters alone, each a black square."""
    builder = pytest.importorskip("fontTools.fontBuilder", reason="fontTools comes with matplotlib")
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((100, 700), (900, 700), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    names = [".notdef", *(f"u{ord(letter):04x}" for letter in letters)]
    font = builder.FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap({ord(letter): f"u{ord(letter):04x}" for letter in letters})
    font.setupGlyf(dict.fromkeys(names, square))
    font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": family, "styleName": "Regular", "fullName": family, "psName": "MadeUp"})
    font.setupOS2(sTypoAscender=800)
    font.setupPost()
    path = tmp_path / f"{family}.ttf"
    font.save(path)
    font_manager.fontManager.addfont(path)


def test_what_no_font_has_is_an_escape_and_said_once(tmp_path, bare, capsys):
    _, _, folder = begun(tmp_path, {"base": [1.0, 1.1], "低い": [0.9, 1.2]}, CELLS, seeds=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep_report([str(folder)], {"question": "低いランクは?"}, output=str(tmp_path / "report"))
    told = [line for line in capsys.readouterr().out.splitlines() if "no installed font" in line]
    assert len(told) == 1
    assert r"低 (\u4f4e)" in told[0]
    assert "低い" in (tmp_path / "report/report.md").read_text()


def test_an_installed_font_that_has_them_is_taken(tmp_path, bare, capsys):
    install(tmp_path, "低い")
    _, _, folder = begun(tmp_path, {"base": [1.0, 1.1], "低い": [0.9, 1.2]}, CELLS, seeds=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep_report([str(folder)], output=str(tmp_path / "report"))
    assert "no installed font" not in capsys.readouterr().out


def test_several_fonts_together(tmp_path, bare):
    install(tmp_path, "低い", "First Sans")
    install(tmp_path, "い한", "Second Sans")
    with lettering(f"é 低い한{NOWHERE}") as undrawn:
        assert undrawn == NOWHERE
        assert drawable(f"é 低い한{NOWHERE}") == r"é 低い한\U0001fae8"
    assert drawable("é 低い") == r"é \u4f4e\u3044"


def test_other_families_are_looked_at_in_silence(fresh, caplog):
    with lettering(NOWHERE) as undrawn:
        assert undrawn == NOWHERE
    assert not caplog.records


def test_a_font_of_boxes_is_no_font(bare):
    assert "cmex10" not in module._installed()
    assert not any("Last Resort" in name for name in module._installed())


def test_what_all_fonts_have_stays():
    assert literal("ε² − é, λ ≤ 1 → “x”") == "ε² − é, λ ≤ 1 → “x”"


def test_wide_letters_take_the_room_of_two():
    assert wrap("低" * 6, 6) == ["低低低", "低低低"]
    assert wrap("ab cd", 2) == ["ab", "cd"]


@pytest.mark.parametrize("text", ["低い" * 60, "MHA WITH 128 HEADS, " * 12, "an ordinary question about ranks, " * 9])
def test_a_title_of_wide_letters_is_in_the_frame(bare, text):
    figure = Figure(figsize=(8, 4), layout="constrained")
    titled(figure, text)
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_escapes_are_wrapped_as_they_are_written(bare):
    assert max(map(len, wrapped(NOWHERE * 9, 30).splitlines())) <= 30
