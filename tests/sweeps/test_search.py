import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from lit_t6.sweeps import load_study
from lit_t6.sweeps.search import build_pruner, build_sampler, probes, suggest

from .studies import study

SEARCH = "configs/sweep/search.yaml", "configs/sweep/search-quick.yaml"
optuna.logging.set_verbosity(optuna.logging.WARNING)


def ask(read, trials, value=lambda cell: 0.0):
    """Cells of so many trials, whose results are told to the sampler."""
    asked = optuna.create_study(sampler=build_sampler(read))
    cells = []
    for _ in range(trials):
        trial = asked.ask()
        cells.append(suggest(read, trial))
        asked.tell(trial, value(cells[-1]))
    return cells, asked


def test_ranks_exist_where_the_mechanism_has_them():
    cells, asked = ask(load_study(SEARCH), 40)
    assert cells[3].name == "trial-003"
    seen = {cell.options["model.attention"] for cell in cells}
    assert seen == {"TPA", "TPA-KVonly", "MHA", "MQA", "GQA"}
    for cell in cells:
        mechanism = cell.options["model.attention"]
        assert ("model.attention.rank_q" in cell.options) == (mechanism == "TPA")
        assert ("model.attention.rank_k" in cell.options) == mechanism.startswith("TPA")
        assert ("model.attention.num_kv_heads" in cell.options) == (mechanism == "GQA")
    for trial, cell in zip(asked.trials, cells, strict=True):
        assert trial.params == cell.parameters, "Optuna knows of those alone that a trial has"


def test_kinds_of_suggestions(tmp_path):
    text = """\
sampler: {name: tpe, seed: 0}
search:
  model.num_layers: {type: int, low: 2, high: 8, step: 3}
  model.optimizer.lr: {type: float, low: 1e-4, high: 1e-2, log: true}
  size: {type: categorical, choices: {a: {model.d_model: 64}, b: {model.d_model: 96, model.multiple_of: 1}}}
"""
    cells, asked = ask(study(tmp_path, text), 8)
    distributions = asked.trials[0].distributions
    assert distributions["model.num_layers"] == IntDistribution(2, 8, step=3)
    assert distributions["model.optimizer.lr"].log
    assert distributions["size"] == CategoricalDistribution(("a", "b"))
    assert {cell.options["model.num_layers"] for cell in cells} <= {2, 5, 8}
    assert {cell.options["model.d_model"] for cell in cells} == {64, 96}


def test_heads_of_a_search_can_be_matched(tmp_path):
    text = "match: parameters\nmatch_to: 400_000\nsearch: {model.attention.rank_q: {type: int, low: 2, high: 4}}\n"
    cells, _ = ask(study(tmp_path, text), 2)
    assert all(cell.options["model.attention.num_heads"] > 1 for cell in cells)


def test_a_sampler_learns_over_parameters_that_come_and_go(tmp_path):
    def is_far(cell):
        return 0.0 if cell.options["model.attention"] != "TPA" else -cell.options["model.attention.rank_q"]

    cells, _ = ask(load_study(SEARCH), 60, is_far)
    late = [cell.options["model.attention"] for cell in cells[30:]]
    assert late.count("TPA") > 15


def test_equal_seeds_do_not_choose_equally_in_two_workers():
    read = load_study(SEARCH)
    first, same, second = (
        suggest(read, optuna.create_study(sampler=build_sampler(read, worker)).ask()).options for worker in (0, 0, 1)
    )
    assert first == same
    assert first != second


def test_a_name_can_be_given():
    read = load_study(SEARCH)
    assert suggest(read, optuna.create_study().ask(), "trial-042").name == "trial-042"


def test_probes_are_at_the_borders():
    names = [cell.name for cell in probes(load_study(SEARCH))]
    assert len(names) == len(set(names)) == 14
    assert "mechanism=TPA,rank_q=12,rank_k=4,rank_v=4" in names
    assert "mechanism=TPA-KVonly,rank_k=1,rank_v=1" in names
    assert {"mechanism=MHA", "mechanism=GQA,num_kv_heads=4"} <= set(names)


def test_conditions_of_a_probe_are_met(tmp_path):
    text = """\
search:
  a: {option: model.attention, type: categorical, choices: [MHA, TPA]}
  b: {option: model.attention.rank_k, type: int, low: 1, high: 3, when: {a: TPA}}
  c: {option: model.attention.static_a, type: categorical, choices: [true], when: {b: [2]}}
"""
    assert "a=TPA,b=2,c=true" in [cell.name for cell in probes(study(tmp_path, text))]


@pytest.mark.parametrize("name", ["tpe", "random"])
def test_samplers(tmp_path, name):
    ask(study(tmp_path, f"sampler: {name}\nsearch: {{model.d_model: {{type: int, low: 64, high: 128}}}}\n"), 2)


def test_pruners(tmp_path):
    assert isinstance(build_pruner(load_study(SEARCH)), optuna.pruners.MedianPruner)
    assert isinstance(build_pruner(study(tmp_path, "cells: {a: {}}\n")), optuna.pruners.NopPruner)


def test_options_that_there_are_not(tmp_path):
    search = "search: {model.d_model: {type: int, low: 64, high: 128}}\n"
    with pytest.raises(ValueError, match=r"study.yaml: sampler: tpe: .*unexpected keyword argument 'n_startup'"):
        build_sampler(study(tmp_path, f"{search}sampler: {{name: tpe, n_startup: 3}}\n"))
    with pytest.raises(ValueError, match=r"study.yaml: pruner: percentile: .*missing 1 required .* 'percentile'"):
        build_pruner(study(tmp_path, f"{search}pruner: percentile\n"))


@pytest.mark.parametrize(("name", "package"), [("qmc", "scipy"), ("gp", "scipy"), ("cmaes", "cmaes")])
def test_samplers_whose_package_is_not_there(tmp_path, monkeypatch, name, package):
    monkeypatch.setattr("lit_t6.sweeps.search.find_spec", lambda package: None)
    read = study(tmp_path, f"sampler: {name}\nsearch: {{model.d_model: {{type: int, low: 64, high: 128}}}}\n")
    with pytest.raises(ValueError, match=f"sampler: {name} needs the package {package}, which is not installed: pip "):
        build_sampler(read)
