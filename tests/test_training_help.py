import re
from functools import partial
from inspect import signature

import pytest
import yaml
from jsonargparse import capture_parser
from lightning.pytorch.loggers import TensorBoardLogger

from lit_t6.attention import TPAConfig, short_names
from lit_t6.cli import main, run
from lit_t6.command_line.parsing import option_keys
from lit_t6.command_line.trainers import TRAINERS
from lit_t6.training_help import GROUPS, MECHANISMS


@pytest.fixture(scope="module")
def parsers():
    return capture_parser(partial(run, ["fit"]))._subcommands_action.choices


def shown(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 0
    return capsys.readouterr().out


def default_of(defaults, key):
    for part in key.split("."):
        if part != "init_args":
            defaults = defaults.get("init_args", defaults)
        defaults = defaults.get(part)
    return list(defaults) if isinstance(defaults, tuple) else defaults


@pytest.mark.parametrize("command", TRAINERS)
def test_options_that_are_shown_are_there_and_have_these_defaults(parsers, command):
    defaults = parsers[command].get_defaults().as_dict()
    known = {*option_keys(parsers[command]), "debug"}
    known |= {f"model.attention.{name}" for name in signature(TPAConfig).parameters}
    known |= {f"trainer.logger.init_args.{name}" for name in signature(TensorBoardLogger).parameters}
    for option in (option for options in GROUPS.values() for option in options if command in option.commands):
        assert option.key in known
        if option.key == "model.attention":
            assert short_names()[option.default].class_path == defaults["model"]["attention"]["class_path"]
        elif option.default:
            assert yaml.safe_load(option.default) == default_of(defaults, option.key), option.key


def test_the_mechanisms_are_those_with_short_names():
    assert set(MECHANISMS.split(", ")) == set(short_names())


@pytest.mark.parametrize("command", TRAINERS)
def test_help_fits_a_page_or_two(capsys, command):
    lines = shown(capsys, command, "--config=configs/quickstart.yaml", "--help").splitlines()
    assert len(lines) <= (150 if command == "fit" else 60)
    assert max(map(len, lines)) <= 120


def test_predict_says_how_its_file_is_replaced(capsys):
    assert "--predictions.overwrite" in shown(capsys, "predict", "--help")


def test_help_says_when_pictures_of_factors_come(capsys):
    assert "1st, 2nd, 4th, 8th …" in shown(capsys, "fit", "--help")
    assert "2nd, 4th, 8th …" in " ".join(shown(capsys, "fit", "--help", "diagnostics").split())


def test_all_options_and_those_of_a_section(capsys, parsers):
    everything = shown(capsys, "fit", "--help", "all")
    assert all(f"--{key}" in everything for key in option_keys(parsers["fit"]))
    assert "examples:" in everything
    section = shown(capsys, "validate", "--help=model.optimizer")
    assert "--model.optimizer.lr LR" in section
    assert "--model.d_model" not in section
    assert "--trainer" not in section
    assert "rank_q" in shown(capsys, "fit", "--model.attention.help", "TPA")


@pytest.mark.parametrize("command", TRAINERS)
def test_every_heading_is_a_section_and_shows_all_that_is_under_it(capsys, command):
    short = shown(capsys, command, "--help")
    (listed,) = re.findall(r"those of a section:((?:\n {38}.*)+)", short)
    for title, options in GROUPS.items():
        under = [option for option in options if command in option.commands]
        heading = title.partition(" (")[0]
        assert (f"\n{title}:\n" in short) == (heading in re.split(r",?\s+", listed.strip())) == bool(under)
        if under:
            section = shown(capsys, command, "--help", heading)
            assert all(re.search(rf"--{re.escape(option.key)}\b", section) for option in under)


def test_a_section_that_is_not_there(capsys):
    assert main(["fit", "--help", "modl"]) == 1
    assert (
        "error: --help modl: there is no such section; did you mean model? There are all, attention, check"
        in capsys.readouterr().err
    )
