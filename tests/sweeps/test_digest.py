import pytest

from lit_t6.sweeps.cells import plain_cells
from lit_t6.sweeps.digest import changes, common, differences, digests, names_data, of_cell
from lit_t6.sweeps.saved_study import save_study

from .studies import BASE, QUICKSTART, study, write

CELLS = "cells: {a: {}, b: {model.attention.rank_q: 2}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "cells: {a: {}, b: {model.attention.rank_q: 2}, c: {model.attention.rank_q: 3}}\n",
        f"{CELLS}seeds: [0, 1]\n",
        f"{CELLS}retries: 5\ntime_limit: 1h\nquestion: why\nrecord: val/loss\nbaseline: a\n",
    ],
)
def test_what_does_not_decide_results(tmp_path, text):
    before, after = study(tmp_path, CELLS), study(tmp_path, text)
    assert before.digest() == after.digest()
    assert changes(before, after) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{CELLS}objective: val/loss\n", 'objective.metric was "val/bits_per_byte", is "val/loss"'),
        (f"{CELLS}pruner: median\n", 'pruner.name was "none", is "median"'),
        (f"{CELLS}gpus_per_trial: 2\n", "gpus_per_trial was 1, is 2"),
        (f"{CELLS}match: parameters\nmatch_to: 5\n", "match was none, is parameters (match_to: 5)"),
        (f"{CELLS}match: parameters\nbaseline: a\n", "match was none, is parameters (baseline: a)"),
    ],
)
def test_what_all_trials_have_in_common(tmp_path, text, line):
    before, after = study(tmp_path, CELLS), study(tmp_path, text)
    assert before.digest() != after.digest()
    assert changes(before, after) == [line]


def test_what_a_storage_holds_is_told_as_a_file_says_it(tmp_path):
    """It knows the settings of what cells are matched to, and no name."""
    matched = "match: parameters\nbaseline: a\n"
    before = study(tmp_path, f"{CELLS}{matched}")
    texts = [CELLS, f"{CELLS}{matched}".replace("e: a", "e: b"), f"{CELLS}match: parameters\nmatch_to: 5\n"]
    assert [differences(common(before), common(study(tmp_path, text))) for text in texts] == [
        ['match was "parameters", is null', 'baseline was {"configs": [], "options": {}}, is null'],
        ["baseline.options.model.attention.rank_q was null, is 2"],
        ['baseline was {"configs": [], "options": {}}, is null', "match_to was null, is 5"],
    ]


def test_what_cells_are_matched_to(tmp_path):
    """A baseline is what it says, whatever it is called."""
    matched = "match: parameters\nbaseline: a\n"
    before = study(tmp_path, f"{CELLS}{matched}")
    renamed = study(tmp_path, f"{CELLS}{matched}".replace("a: {}", "c: {}").replace("baseline: a", "baseline: c"))
    assert changes(before, renamed) == []
    other = study(tmp_path, f"{CELLS}{matched}".replace("baseline: a", "baseline: b"))
    assert changes(before, other) == ["match was parameters (baseline: a), is parameters (baseline: b)"]
    wider = study(tmp_path, f"{CELLS}{matched}".replace("a: {}", "a: {model.d_model: 96}"))
    assert changes(before, wider) == ["cell 'a': options.model.d_model was null, is 96"]


def test_an_option_and_a_cell_that_changed(tmp_path):
    before = study(tmp_path, CELLS)
    after = study(tmp_path, CELLS.replace("rank_q: 2", "rank_q: 3"), {"options.trainer.max_steps": 9})
    assert changes(before, after) == [
        "options.trainer.max_steps was 8, is 9",
        "cell 'b': options.model.attention.rank_q was 2, is 3",
    ]


def test_files_count_by_what_they_say(tmp_path):
    file = write(tmp_path, "# a\ntrainer: {max_steps: 3}\n", "base.yaml")
    text = "configs: base.yaml\ncells: {a: {}}\n"
    path = write(tmp_path, text)
    from lit_t6.sweeps import load_study

    read = load_study([path])
    before = read.digest()
    file.write_text("# another remark\ntrainer: {max_steps: 3}\n")
    assert read.digest() == before
    kept = load_study([save_study(read, tmp_path / "kept")])
    file.write_text("trainer: {max_steps: 4}\n")
    assert read.digest() != before
    assert kept.digest() == before, "a study that was kept has its own copies"
    assert changes(kept, read) == ["configs[1].trainer.max_steps was 3, is 4"]


def test_spaces_of_searches_are_compared(tmp_path):
    search = "search: {model.d_model: {type: int, low: 64, high: 128}}\n"
    before, after = study(tmp_path, search), study(tmp_path, search.replace("128", "256"))
    assert changes(before, after) == ["search[1].high was 128, is 256"]
    assert changes(before, study(tmp_path, f"{search}num_trials: 99\nsampler: random\n")) == []
    assert BASE.startswith(f"configs: [{QUICKSTART}]")


def test_the_place_of_the_data_counts_only_where_it_is_not_known_what_the_data_is(tmp_path):
    """Typed, in a file, or of a cell."""
    file = write(tmp_path, "data: {path: here}\n", "data.yaml")
    text = f"cells: {{a: {{}}, b: {{configs: {file}, options: {{data.path: b}}}}}}\n"
    before, after = study(tmp_path, text), study(tmp_path, text.replace("path: b", "path: c"), {"options.data.path": 1})
    assert before.digest() == after.digest()
    assert changes(before, after, places=False) == []
    assert changes(before, after) == [
        "options.data.path was null, is 1",
        'cell \'b\': options.data.path was "b", is "c"',
    ]
    assert digests(before)[1] != digests(after)[1]
    cell = next(iter(plain_cells(after)))
    assert [names_data(cell) for cell in plain_cells(after)] == [False, True]
    assert of_cell(cell) == of_cell(cell, places=True)
    was = of_cell([*plain_cells(after)][1])
    file.write_text("data: {path: there}\n")
    assert of_cell([*plain_cells(after)][1]) == was
    file.write_text("{}\n")
    assert of_cell([*plain_cells(after)][1]) == was
