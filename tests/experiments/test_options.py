"""Every program in `experiments` explains itself."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

import experiments
from experiments.options import parser_for, seconds, warn_of_cpu

FOLDER = Path(experiments.__file__).parent
PROGRAMS = sorted(
    ".".join(("experiments", *path.relative_to(FOLDER).with_suffix("").parts))
    for path in FOLDER.rglob("*.py")
    if '__name__ == "__main__"' in path.read_text()
)
TITLES = ("positional arguments", "options")


def test_there_are_programs():
    assert {"experiments.shakespeare.run", "experiments.train_speed.heads"} <= set(PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_names_the_program_and_every_option(program, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(program).main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: python -m {program} ")
    assert f"\npython -m {program}" in said, "how it is usually started"
    parts = [said.split(f"\n{title}:\n")[1].split("\n\n")[0] for title in TITLES if f"\n{title}:\n" in said]
    for lines in re.split(r"\n  (?=\S)", "\n".join(parts)):
        assert re.search(r" {2,}\w|\n {4,}\w", lines), f"nothing is said of {lines.split()[0]}"


def test_defaults_are_shown_unless_they_say_nothing():
    parser = parser_for("a.b", "What it does.\n\na line", "an end")
    parser.add_argument("--sizes", nargs="+", default=[1, 2], help="of something")
    parser.add_argument("--share", default="5%", help="of all")
    parser.add_argument("--name", help="of it (default: none)")
    parser.add_argument("--seed", type=int, default=0, help="of it all")
    parser.add_argument("--quiet", action="store_true", help="nothing is said")
    said = parser.format_help()
    assert "What it does.\n\na line" in said
    assert "of something (default: 1 2)" in said
    assert "of all (default: 5%)" in said
    assert "nothing is said\n" in said
    assert "of it all (default: 0)" in said
    assert said.count("(default") == 4


def test_what_a_program_does_not_know_does_not_start_it(capsys):
    with pytest.raises(SystemExit):
        importlib.import_module("experiments.shakespeare.run").main(["dta"])
    assert "argument what: invalid choice: 'dta'" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "-5", "nan", "inf", "soon"])
def test_a_time_is_more_than_nothing(word):
    assert seconds("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{word}', expected seconds, more than 0"):
        seconds(word)


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").touch()
    for program in ("heads", "attention", "products", "curves"):
        words = [f"--output={tmp_path / 'file' / 'folder'}", "--device=cpu"]
        with pytest.raises(SystemExit):
            importlib.import_module(f"experiments.train_speed.{program}").main(words)
        assert "no such folder can be made: Not a directory." in capsys.readouterr().err


def test_who_measures_much_on_a_cpu_is_told_how_to_measure_little(capsys):
    warn_of_cpu("cpu", 20 * 1024, "--batch 1")
    assert "On a CPU this takes long; to see how it goes: --batch 1\n" in capsys.readouterr().err
    warn_of_cpu("cpu", 16, "--batch 1")
    warn_of_cpu("cuda", 20 * 1024, "--batch 1")
    assert capsys.readouterr().err == ""
