import pytest

from lit_t6.sweeps import load_study
from lit_t6.sweeps.reading import Place, read_files, seconds, spelt

from .studies import write


def test_files_stack(tmp_path):
    one = write(
        tmp_path, "options: {a.b: 1, a.c: 2}\nseeds: [1, 2]\ncells: {x: {}, y: {}}\nretries: {lost: 1}\n", "1.yaml"
    )
    two = write(tmp_path, "options: {a.c: 3}\nseeds: [5]\ngrid: {a.d: [1, 2]}\nretries: {failed: 0}\n", "2.yaml")
    found = read_files([one, two], {})
    assert found["options"].value == {"a.b": 1, "a.c": 3}
    assert found["retries"].value == {"lost": 1, "failed": 0}
    assert found["seeds"].value == [5]
    assert "cells" not in found, "what a later file varies replaces it"
    assert found["grid"].source == str(two)


def test_a_later_spelling_of_an_option_comes_last(tmp_path):
    one = write(tmp_path, "options: {a.b: 1, a.c: 2}", "1.yaml")
    two = write(tmp_path, "options: {a.b: 3}", "2.yaml")
    assert list(read_files([one, two], {})["options"].value) == ["a.c", "a.b"]


def test_what_is_typed_wins(tmp_path):
    path = write(tmp_path, "options: {trainer.max_steps: 1, a: 2}\nsampler: tpe\nseeds: [0]\n")
    found = read_files([path], {"options.trainer.max_steps": 9, "sampler.seed": 4, "seeds": [7]})
    assert found["options"].value == {"a": 2, "trainer.max_steps": 9}
    assert found["sampler"].value == {"name": "tpe", "seed": 4}
    assert (found["seeds"].value, found["seeds"].source) == ([7], "--seeds")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells: {a: {}}\ngrid: {b: [1]}\n", "has cells and grid; a study varies one of cells, grid, search"),
        ("cells: [1", r"study.yaml, line 1: broken YAML: while parsing a flow sequence, expected .*"),
        ("- a\n", r"study.yaml: expected a study, such as `cells:` with settings below it, found \['a'\]"),
        ("", "expected a study, .* found None"),
        ("cells:\n  a: {}\n  b: {}\n  a: {x: 1}\n", "study.yaml, line 4: 'a' stands here twice, first in line 2"),
    ],
)
def test_files_that_are_no_study(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_files([write(tmp_path, text)], {})


def test_files_that_are_not_there(tmp_path):
    write(tmp_path, "", "rank.yaml")
    with pytest.raises(ValueError, match=r"rnk.yaml: no such study file; did you mean .*rank.yaml\?"):
        load_study([tmp_path / "rnk.yaml"])
    with pytest.raises(ValueError, match="is a folder; expected a study's YAML file"):
        load_study([tmp_path])
    with pytest.raises(ValueError, match="a study needs a file, such as"):
        load_study([])


def test_only_some_settings_can_be_typed_one_by_one(tmp_path):
    with pytest.raises(ValueError, match="--cells.a: only settings of options, objective, retries, sampler, pruner"):
        read_files([write(tmp_path, "cells: {a: {}}")], {"cells.a": {}})


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (90, 90), (1.5, 1.5), ("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("1 d 2 h", 93600)],
)
def test_durations(value, expected):
    assert seconds(Place(value, "time_limit", "f")) == expected
    if expected is not None:
        assert seconds(Place(spelt(expected), "time_limit", "f")) == expected


@pytest.mark.parametrize("value", ["soon", "2 weeks", 0, -1, "h", [1], True, "3h and more"])
def test_what_is_no_duration(value):
    with pytest.raises(ValueError, match="f: time_limit: expected a duration, such as 90s, 45m, 2h or 1h30m, got"):
        seconds(Place(value, "time_limit", "f"))


def test_numbers_may_have_exponents(tmp_path):
    assert read_files([write(tmp_path, "options: {lr: 1e-3}")], {})["options"].value == {"lr": 1e-3}
