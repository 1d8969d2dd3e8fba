import pytest

from lit_t6 import LitT6
from lit_t6.training.callbacks.run_facts import run_facts

from ..runs import MHA, make_trainer


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, {}),
        ({"compile": True}, {"compile": "the blocks"}),
        ({"recompute": "selective"}, {"recompute": "selective"}),
    ],
)
def test_compiling_and_recomputing_are_shown_where_they_are_on(settings, shown, tmp_path):
    trainer = make_trainer(tmp_path)
    module = LitT6(MHA, **settings)
    trainer.strategy.connect(module)
    facts = run_facts(trainer, module.config)
    assert {"compile", "recompute"} & set(facts) == set(shown)
    assert all(facts[name].startswith(words) for name, words in shown.items())
