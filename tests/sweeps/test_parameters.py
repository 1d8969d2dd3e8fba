import pytest

from lit_t6.sweeps.parameters import read_grid, read_search, settings_of
from lit_t6.sweeps.reading import Place
from lit_t6.sweeps.settings import Settings

MECHANISM = {"mechanism": {"option": "model.attention", "type": "categorical", "choices": ["TPA", "MHA"]}}


def search(value):
    return read_search(Place(value, "search", "f.yaml"))


def test_kinds_of_parameters():
    lr, layers, mechanism = search(
        {
            "model.optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
            "layers": {"option": "model.num_layers", "type": "int", "low": 2, "high": 8, "step": 2},
            **MECHANISM,
        }
    )
    assert (lr.option, lr.log, lr.extremes(), lr.short) == ("model.optimizer.lr", True, (1e-4, 1e-2), "lr")
    assert (layers.option, layers.step, layers.extremes()) == ("model.num_layers", 2, (2, 8))
    assert mechanism.extremes() == ("TPA", "MHA")
    assert mechanism.settings("TPA") == Settings((), {"model.attention": "TPA"})


def test_conditions_hold_over_several_steps():
    parameters = search(
        {
            **MECHANISM,
            "model.attention.rank_k": {"type": "int", "low": 1, "high": 4, "when": {"mechanism": "TPA"}},
            "model.attention.shared_b": {
                "type": "categorical",
                "choices": [True, False],
                "when": {"model.attention.rank_k": [2, 3]},
            },
        }
    )
    _, rank, shared = parameters
    assert rank.is_there({"mechanism": "TPA"})
    assert not rank.is_there({"mechanism": "MHA"})
    assert shared.is_there({"mechanism": "TPA", "model.attention.rank_k": 2})
    assert not shared.is_there({"mechanism": "MHA"})


def test_choices_may_be_sets_of_options():
    (ranks,) = search(
        {"ranks": {"type": "categorical", "choices": {"low": {"a.q": 2, "a.k": 1}, "high": {"options": {"a.q": 6}}}}}
    )
    assert ranks.choices == ("low", "high")
    assert settings_of((ranks,), {"ranks": "low"}) == Settings((), {"a.q": 2, "a.k": 1})
    assert settings_of((ranks,), {}) == Settings()


def test_grids_are_lists():
    size, rank = read_grid(
        Place({"a.size": [1, 2], "a.rank": {"choices": [3], "when": {"a.size": 2}}}, "grid", "f.yaml")
    )
    assert (size.choices, rank.when) == ((1, 2), {"a.size": (2,)})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "f.yaml: search: expected parameters, such as model.attention.rank_q, got nothing"),
        ({"a.b": [1]}, r"search.a.b: expected type: int, float or categorical, and what belongs to it, got \[1\]"),
        ({"a.b": {"type": "intt"}}, "search.a.b.type: 'intt' is not one of its values; did you mean int"),
        ({"a.b": {"type": "int", "low": 1}}, "search.a.b.high: expected a number, got nothing"),
        ({"a.b": {"type": "int", "low": 1.5, "high": 2}}, "a.b.low: expected a whole number, as the type is int, got"),
        ({"a.b": {"type": "int", "low": 4, "high": 2}}, "search.a.b: low=4 is above high=2"),
        ({"a.b": {"type": "float", "low": 0, "high": 2, "log": True}}, "log: true needs low above 0, got 0"),
        ({"a.b": {"type": "float", "low": 1, "high": 2, "log": 1}}, "search.a.b.log: expected true or false, got 1"),
        ({"a.b": {"type": "int", "low": 1, "high": 2, "log": True, "step": 1}}, "log and step do not go together"),
        ({"a.b": {"type": "int", "low": 1, "high": 2, "step": 0}}, "search.a.b.step: expected a number above 0, got 0"),
        ({"a.b": {"type": "int", "low": 1, "high": 2, "choices": [1]}}, "search.a.b: type int has no choices"),
        ({"a.b": {"type": "categorical", "low": 1, "choices": [1]}}, "search.a.b: type categorical has no low"),
        ({"a.b": {"type": "categorical", "choices": []}}, "a.b.choices: expected a list of values, or names with"),
        ({"a.b": {"type": "categorical", "choices": [1, 1]}}, r"a.b.choices: a value stands there twice: \[1, 1\]"),
        ({"a.b": {"type": "categorical", "choices": [[1]]}}, r"\[1\] is no single value; give each choice a name"),
        ({"a.b": {"type": "int", "low": 1, "high": 2, "max": 3}}, "search.a.b has no setting 'max'.* There are option"),
        ({"rank": {"type": "int", "low": 1, "high": 2}}, "which option of fit is rank. Add option:, such as option: "),
        ({"trainer.devices": {"type": "int", "low": 1, "high": 2}}, "trainer.devices is the sweep's own business"),
        (
            {"r": {"option": "a.b", "type": "categorical", "choices": {"x": {"a.b": 1}}}},
            "has choices that are sets of options, and option: a.b; give a list",
        ),
        (
            {**MECHANISM, "a.b": {"type": "int", "low": 1, "high": 2, "when": {"mechanisms": "TPA"}}},
            "a.b.when: 'mechanisms' is not a parameter that stands before this one; did you mean mechanism",
        ),
        (
            {"a.b": {"type": "int", "low": 1, "high": 2, "when": {"mechanism": "TPA"}}, **MECHANISM},
            "a.b.when: 'mechanism' is not a parameter that stands before this one.",
        ),
        (
            {**MECHANISM, "a.b": {"type": "int", "low": 1, "high": 2, "when": {"mechanism": "TPAs"}}},
            "a.b.when.mechanism: 'TPAs' is not one of its choices; did you mean TPA. There are TPA, MHA",
        ),
    ],
)
def test_what_is_no_search(value, message):
    with pytest.raises(ValueError, match=message):
        search(value)


def test_what_is_no_grid():
    with pytest.raises(ValueError, match="grid.a.b: expected a list of values, or choices: with a list and when:"):
        read_grid(Place({"a.b": 1}, "grid", "f.yaml"))
    with pytest.raises(ValueError, match="grid.a.b has no setting 'type'"):
        read_grid(Place({"a.b": {"choices": [1], "type": "int"}}, "grid", "f.yaml"))
