import pytest

from lit_t6.sweeps import cells_of, load_study
from lit_t6.sweeps.cells import Cell, combinations, fit_options, name_of
from lit_t6.sweeps.parameters import read_grid
from lit_t6.sweeps.reading import Place

from .studies import QUICKSTART, RANK, RANK_QUICK, study


def grid(value):
    return read_grid(Place(value, "grid", "f.yaml"))


def test_a_grid_is_every_combination():
    parameters = grid({"a.x": [1, 2], "a.y": ["p", None]})
    names = [name_of(parameters, chosen) for chosen in combinations(parameters)]
    assert names == ["x=1,y=p", "x=1,y=null", "x=2,y=p", "x=2,y=null"]


def test_parameters_are_left_out_where_they_are_not_there():
    parameters = grid(
        {"model.attention": ["TPA", "MHA"], "a.rank": {"choices": [1, 2], "when": {"model.attention": "TPA"}}}
    )
    names = [name_of(parameters, chosen) for chosen in combinations(parameters)]
    assert names == ["attention=TPA,rank=1", "attention=TPA,rank=2", "attention=MHA"]


def test_names_are_those_of_folders_and_tell_apart():
    parameters = grid({"a.x": [True], "b.x": ["p/q:r"]})
    assert name_of(parameters, {"a.x": True, "b.x": "p/q:r"}) == "a.x=true,b.x=p_q_r"


def test_cells_of_a_grid(tmp_path):
    cells = cells_of(study(tmp_path, "grid: {model.attention.rank_q: [2, 4]}\n"))
    assert [cell.name for cell in cells] == ["rank_q=2", "rank_q=4"]
    assert cells[0] == Cell("rank_q=2", (), {"model.attention.rank_q": 2}, {"model.attention.rank_q": 2})


def test_options_of_a_cell_come_after_those_of_the_study(tmp_path):
    read = study(tmp_path, "cells: {a: {model.num_layers: 3, data.path: x y}}\n")
    assert fit_options(read, cells_of(read)[0]) == [
        *("--config", str(QUICKSTART)),
        *("--model.attention.head_dim=16", "--trainer.max_steps=8", "--model.num_layers=3", "--data.path=x y"),
    ]


def test_values_are_words(tmp_path):
    read = study(tmp_path, "cells: {a: {a.t: true, a.n: null, a.l: [1, 0.5], a.e: 1e-3, a.s: ü}}\n")
    words = fit_options(read, cells_of(read)[0])[-5:]
    assert words == ["--a.t=true", "--a.n=null", "--a.l=[1, 0.5]", "--a.e=0.001", "--a.s=ü"]


def test_heads_are_solved_for_the_parameters_of_the_baseline():
    read = load_study([RANK, RANK_QUICK])
    heads = {cell.name: cell.options.get("model.attention.num_heads") for cell in cells_of(read)}
    by_keys = {"6,2,2": None, "6,1,1": 17, "6,3,3": 12, "6,4,4": 10, "6,6,6": 7}
    assert heads == by_keys | {"2,2,2": 19, "4,2,2": 17, "8,2,2": 12, "12,2,2": 8}


def test_heads_that_are_to_be_solved_cannot_be_set(tmp_path):
    cells = "cells: {a: {model.attention.num_heads: 6}, b: {model.attention.num_heads: 7}}"
    text = f"baseline: a\nmatch: parameters\n{cells}\n"
    with pytest.raises(ValueError, match="cell 'b': sets model.attention.num_heads=7, which match: parameters is to"):
        cells_of(study(tmp_path, text))
