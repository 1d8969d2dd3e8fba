import json
from itertools import pairwise
from pathlib import Path

import pytest

from lit_t6.bench.figure import _LEAST_GAP, _spread, draw
from lit_t6.bench.report import markdown
from lit_t6.bench.results import Entry, Results


def entry(cache, mechanism, library, ms=None, **changes):
    given = {"variant": "", "cache_bytes": 1000 * cache, "status": "timed" if ms else "no memory", "from_memory": True}
    return Entry(16, 1, cache, mechanism, library, ms=ms, **given | changes)


@pytest.fixture
def results():
    settings = {"head_dim": 64, "ranks": [16, 1, 1], "kv_groups": 4, "dtype": "bfloat16", "seed": 0}
    facts = {"same": {"device": "a GPU"}, "versions": {"torch": "2"}, "commands": ["python cli.py bench decode"]}
    found = Results(settings, facts, {"a sum": 1.0}, planned=2)
    found.entries = [
        entry(1000, "TPA", "lit_t6", 1.0),
        entry(1000, "TPA", "upstream", 5.0, variant="bn"),
        entry(1000, "GQA", "torch", 3.0, variant="flash"),
        entry(1000, "GQA", "torch", 2.0, variant="cuDNN"),
        entry(2000, "TPA", "lit_t6", 1.25),
        entry(2000, "TPA", "upstream", status="wrong", why="nonsense"),
        entry(2000, "GQA", "torch", 1.0, variant="flash", cache_bytes=4_000_000),
        entry(2000, "GQA", "torch", variant="cuDNN"),
    ]
    return found


def test_the_best_rate_is_that_of_any_kernel(results):
    assert results.best_rate() == (4.0, "GQA torch flash at H 16, batch 1, cache 2,000")
    results.entries[6].from_memory = False  # some of it was in the L2
    assert results.best_rate() == (1.6, "TPA lit_t6 at H 16, batch 1, cache 2,000")


def test_ratios_and_their_extremes(results):
    text = markdown(results)
    assert "2.0000 2.00× torch cuDNN" in text
    assert "* GQA-4: 0.80× (worst, H 16, batch 1, cache 2,000) to 2.00× (best, H 16, batch 1, cache 1,000)" in text
    assert "* TPA, authors': 5.00× (worst, H 16, batch 1, cache 1,000) to 5.00×" in text
    assert "* of the floor: 0.25 (worst, H 16, batch 1, cache 1,000) to 0.40 (best, H 16, batch 1, cache 2,000)" in text
    assert "* wrong: TPA upstream at H 16, batch 1, cache 2,000: nonsense" in text
    (last,) = [line for line in text.splitlines() if line.startswith("|") and "2,000" in line]
    assert "| wrong " in last


def test_steps_that_python_starts_are_told_to_be_so(results, tmp_path):
    def told():
        title = draw(results, tmp_path / "decode.png").get_suptitle()
        return [text.count("ithout CUDA graphs") for text in (markdown(results), title)]

    assert told() == [0, 0]
    results.settings["graph"] = False
    assert told() == [1, 1]


def test_a_file_is_taken_up_as_it_was_written(results, tmp_path):
    path = tmp_path / "decode.json"
    results.write(path)
    again = Results(results.settings, results.facts | {"commands": ["python cli.py bench decode --resume true"]})
    again.take_up(path)
    assert again.facts["commands"] == ["python cli.py bench decode", "python cli.py bench decode --resume true"]
    assert "bench decode  \npython cli.py bench decode --resume true  \n" in markdown(again)
    assert again.entries == [e for e in results.entries if e.ms]  # the others are tried once more
    assert again.read_rates == results.read_rates
    other = Results(results.settings, results.facts | {"same": {"device": "another GPU"}})
    with pytest.raises(ValueError, match="was measured with device 'a GPU', this is 'another GPU'"):
        other.take_up(path)
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is not a file of `bench decode`"):
        again.take_up(path)


def test_numbers_of_another_triton_are_not_taken_up(results, tmp_path):
    path = tmp_path / "decode.json"
    results.facts["versions"]["triton"] = "3.5"  # older files name it here only
    results.write(path)
    other = Results(results.settings, results.facts | {"same": {"device": "a GPU", "triton": "3.6"}})
    with pytest.raises(ValueError, match="was measured with triton '3.5', this is '3.6'"):
        other.take_up(path)


def test_our_recorded_run_can_be_gone_on_with():
    path = Path(__file__).parents[2] / "experiments" / "decode_speed" / "results" / "decode.json"
    whole = json.loads(path.read_text())
    again = Results(whole["settings"], whole["facts"] | {"commands": ["more"]})
    again.take_up(path)
    assert again.facts["commands"][-1] == "more"
    assert len(again.facts["commands"]) > 1


def test_a_line_that_ends_early_has_its_label_at_its_end(results, tmp_path):
    results.entries = [
        entry(1000, "TPA", "lit_t6", 1.0),
        entry(2000, "TPA", "lit_t6", 1.25),
        entry(1000, "MHA", "torch", 1.25),
        entry(2000, "MLA", "torch", 1.2),
    ]
    (axes,) = draw(results, tmp_path / "speed.png").axes
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    (mha,) = [line for line in axes.get_lines() if line.get_label() == "MHA"]
    to_axes = axes.transData + axes.transAxes.inverted()
    assert heights["MHA"] == pytest.approx(to_axes.transform(mha.get_xydata()[-1])[1], abs=0.01)
    assert abs(heights["MLA"] - heights["TPA, ours"]) >= _LEAST_GAP - 1e-6


def test_labels_keep_their_distance():
    places = [0.5, 0.1, 0.11, 0.9, 0.12, 0.49]
    spread = _spread(places)
    heights = sorted(spread)
    assert min(b - a for a, b in pairwise(heights)) >= _LEAST_GAP - 1e-9
    assert [places[i] for i in sorted(range(6), key=spread.__getitem__)] == sorted(places)
    assert spread[3] == pytest.approx(0.9)
