from dataclasses import fields
from functools import partial

import pytest
from jsonargparse import capture_parser

from lit_t6.cli import run
from lit_t6.command_line.options import arrange
from lit_t6.command_line.parsing import option_keys, parse
from lit_t6.model import T6Config
from lit_t6.model_reader import OTHER_SECTIONS, ModelReader, ModelSizes


@pytest.fixture(scope="module")
def parser():
    """Of fit, validate, test and predict."""
    return capture_parser(partial(run, ["fit"]))


def test_the_other_sections_are_those_of_the_training_commands(parser):
    commands = parser._subcommands_action.choices.values()
    sections = {key.partition(".")[0].rstrip("+") for command in commands for key in option_keys(command)}
    assert set(OTHER_SECTIONS) == sections - {"model", "config", "print_config", "help"}


@pytest.mark.parametrize(
    "words",
    [
        ["--config=configs/quickstart.yaml"],
        ["--config=configs/paper/small-tpa.yaml", "--config=configs/attention/gqa.yaml", "--model.d_model=512"],
        ["--config=configs/quickstart.yaml", "--model.attention=MLA", "--model.attention.head_norm=true"],
        ["--config={model: {attention: TPA-Qonly, init: paper}, trainer: {max_steps: 3}}"],
    ],
)
def test_models_are_those_that_fit_reads(parser, words):
    model = parse(parser, ["fit", *arrange(words)]).fit.model.as_dict()
    assert ModelReader().read(words) == T6Config.from_dict(
        {field.name: model[field.name] for field in fields(T6Config)}
    )


def test_what_does_not_concern_the_model_is_left_aside():
    words = ["--model.optimizer.lr=1", "--model.compile", "true", "--trainer.max_steps=3", "--model.d_model=96"]
    words += ["--model.attention", "MQA", "--model.attention.head_dim", "16", "--model.recompute=full"]
    model = ModelReader().read_of_fit(words)
    assert (model.d_model, model.attention.head_dim, model.attention.label) == (96, 16, "MQA")


def test_a_head_count_for_the_size_of_another_model():
    sizes = ModelSizes()
    base = ["--model.d_model=64", "--model.num_layers=1", "--model.vocab_size=99"]
    mha = [*base, "--model.attention=MHA", "--model.attention.head_dim=8"]
    sizes.add("tpa", [*base, "--model.attention.head_dim=16"], heads=True)
    sizes.add("mha", [*mha, "--trainer.max_steps=3"])
    aimed_at = sizes.num_parameters("tpa")
    sizes.add("solved", [*mha, f"--model.attention.num_heads={sizes.heads_for('mha', aimed_at)}"])
    assert sizes.num_parameters("solved") == pytest.approx(aimed_at, rel=0.02)
