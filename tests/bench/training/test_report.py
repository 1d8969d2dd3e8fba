import json

import pytest

from lit_t6.bench.training.case import OURS, UPSTREAM
from lit_t6.bench.training.figure import draw
from lit_t6.bench.training.report import markdown
from lit_t6.bench.training.results import Entry, Results


def entry(name, code, rate=None, seq_len=1024, **changes):
    attention = "MHA" if "mha" in name else "TPA (6, 2, 2)"
    found = (
        {"status": "timed", "step_ms": 20480 / rate * 1000, "tokens_per_sec": rate, "peak_gib": 20.0} if rate else {}
    )
    found |= {"first_step_seconds": 31.26, "graphs": 2, "late_graphs": 1, "graph_breaks": 0, "mfu": 0.3} if rate else {}
    return Entry(
        name, code, attention, 16, 1024, 24, 50304, 353_000_000, 20, seq_len, **{"status": "failed"} | found | changes
    )


@pytest.fixture
def results():
    settings = {"steps": 20, "warmup": 5, "precision": "bf16-mixed", "compile": True, "seed": 0, "check_tokens": 1024}
    settings["recompute"] = "none"
    facts = {"same": {"device": "a GPU", "torch": "2"}, "versions": {"torch": "2"}}
    facts |= {"commands": ["python cli.py bench train"], "upstream_sha256": {"T6.py": "0"}}
    found = Results(settings, facts, planned=5)
    found.entries = [
        entry("medium-tpa", OURS, 100_000.0),
        entry("medium-mha", OURS, 200_000.0),
        entry("medium-tpa", UPSTREAM, 80_000.0),
        entry("medium-mha", UPSTREAM, status="no memory", why="OutOfMemoryError: 9 GiB"),
        entry("medium-tpa", OURS, 50_000.0, seq_len=8192),
    ]
    return found


def test_ratios(results):
    ours, mha, theirs, theirs_mha, longer = results.entries
    assert results.over_upstream(ours) == 1.25
    assert results.over_upstream(mha) is None
    assert results.over_upstream(theirs) is None
    assert results.over_mha(ours) == 0.5
    assert results.over_mha(mha) is None
    assert results.over_mha(theirs) == 0.4
    assert results.over_mha(longer) is None
    assert results.over_mha(theirs_mha) is None


def test_a_table_for_each_group(results):
    results.left_out = ["odd"]
    text = markdown(results)
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == (2 + 4) + (2 + 1)
    assert "d_model 1,024, 24 layers, 20 × 8,192 tokens a step" in text
    row = ["medium-tpa", "TPA (6, 2, 2), 16 heads", "ours", "100,000", "1.25", "0.50", "204.80", "30.0 %", "20.00"]
    assert lines[2] == [*row, "31.3", "2", "1", "0"]
    assert lines[3][:6] == ["medium-tpa", "TPA (6, 2, 2), 16 heads", "authors'", "80,000", "", "0.40"]
    assert lines[5][:4] == ["medium-mha", "MHA, 16 heads", "authors'", "no memory"]
    assert "* no memory: medium-mha, the authors', 20 × 1,024: OutOfMemoryError: 9 GiB" in text
    assert "No file of the authors makes a model equal to odd." in text


def test_a_file_is_taken_up_as_it_was_written(results, tmp_path):
    path = tmp_path / "train.json"
    results.write(path)
    assert json.loads(path.read_text())["entries"][0]["over_upstream"] == 1.25
    again = Results(results.settings, results.facts | {"commands": ["more"], "upstream_sha256": {}})
    again.take_up(path)
    assert again.entries == [e for e in results.entries if e.status == "timed"]  # the other is tried once more
    assert again.facts["commands"] == ["python cli.py bench train", "more"]
    assert again.facts["upstream_sha256"] == {"T6.py": "0"}
    other = Results(results.settings | {"compile": False}, results.facts)
    with pytest.raises(ValueError, match="was measured with compile True, this is False"):
        other.take_up(path)
    path.write_text('{"entries": [{}]}')
    with pytest.raises(ValueError, match="is not a file of `bench train`"):
        again.take_up(path)


def test_what_is_wrong(results):
    assert results.wrong == []
    results.entries += [entry("a", OURS, why="x"), entry("a", UPSTREAM, why="x"), entry("b", UPSTREAM, status="wrong")]
    assert [(e.name, e.code) for e in results.wrong] == [("a", OURS), ("b", UPSTREAM)]


def test_bars_stand_beside_each_other(results, tmp_path):
    speed, memory, longer, _ = draw(results, tmp_path / "train.png").axes
    assert (tmp_path / "train.png").read_bytes()[:4] == b"\x89PNG"
    heights = sorted(bar.get_height() for bar in speed.patches)
    assert heights == [0.0, 80_000.0, 100_000.0, 200_000.0]
    assert {text.get_text() for text in speed.texts} == {"none", "80,000", "100,000", "200,000"}
    assert [bar.get_height() for bar in longer.patches] == [50_000.0]
    assert memory.get_ylabel() == "peak GiB"
    assert [text.get_text() for text in memory.get_legend().get_texts()] == ["ours", "authors'"]
