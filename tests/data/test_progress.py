import io
import sys

from lit_t6.data.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar(range(3), desc="reading", **options)) == [0, 1, 2]
    return stream.getvalue()


def test_a_bar_is_for_terminals(monkeypatch):
    assert "reading" in shown(monkeypatch, Terminal())
    assert shown(monkeypatch, Terminal(), hidden=True) == ""
    assert shown(monkeypatch, io.StringIO()) == ""
