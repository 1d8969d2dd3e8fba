import subprocess
import sys

import pytest

from lit_t6.sweeps import load_study
from lit_t6.sweeps.study import RETRIES, Chosen, Objective

from .studies import QUICKSTART, RANK, RANK_QUICK, study, write


def test_defaults(tmp_path):
    read = study(tmp_path, "cells: {a: {}, b: {model.d_model: 64}}\n")
    assert (read.name, read.question, read.baseline, read.seeds) == ("study", "", "", (0,))
    assert read.configs == (QUICKSTART,)
    assert read.objective == Objective("val/bits_per_byte", "minimize")
    assert (read.match, read.pruner, read.gpus_per_trial, read.time_limit) == ("none", Chosen("none"), 1, None)
    assert read.retries == RETRIES
    assert list(read.cells) == ["a", "b"]
    assert read.num_runs == 2


def test_the_shipped_study_and_its_overlay():
    whole, quick = load_study([RANK]), load_study([RANK, RANK_QUICK])
    assert (whole.name, quick.name) == ("rank", "rank-quick")
    assert (whole.num_runs, quick.num_runs) == (27, 18)
    assert quick.cells == whole.cells
    assert quick.options["model.init"] == "variance", "options stack"
    assert quick.configs == (QUICKSTART,), "files do not"
    assert whole.time_limit == 12 * 3600


def test_short_forms(tmp_path):
    read = study(
        tmp_path, "cells: {6: {}}\nbaseline: 6\nobjective: val/loss\npruner: median\nretries: 2\nrecord: a/b\n"
    )
    assert (list(read.cells), read.baseline) == (["6"], "6")
    assert read.objective == Objective("val/loss")
    assert read.pruner == Chosen("median")
    assert set(read.retries.values()) == {2}
    assert read.record == ("a/b",)


def test_pruners_report_by_steps_or_tokens(tmp_path):
    pruner = "{name: median, n_warmup_steps: 5, every_n_tokens: 1000}"
    read = study(tmp_path, f"cells: {{a: {{}}}}\npruner: {pruner}\n")
    assert read.pruner == Chosen("median", {"n_warmup_steps": 5}, every_n_tokens=1000)


def test_retries_by_reason_keep_the_others(tmp_path):
    assert study(tmp_path, "cells: {a: {}}\nretries: {diverged: 2}\n").retries == {**RETRIES, "diverged": 2}


def test_typed_settings(tmp_path):
    typed = {"seeds": [4], "options.trainer.max_steps": 2, "pruner.every_n_steps": 3, "name": "other"}
    read = study(tmp_path, "cells: {a: {}}\npruner: median\n", typed)
    assert (read.seeds, read.options["trainer.max_steps"], read.pruner.every_n_steps) == ((4,), 2, 3)
    assert read.name == "other"


SEARCH = "search: {model.d_model: {type: int, low: 64, high: 128}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml: nothing is varied; say it under one of cells, grid, search"),
        ("cell: {a: {}}\n", "study.yaml: a study has no setting 'cell'; did you mean cells. There are name, question"),
        ("cells: {}\n", "study.yaml: cells: expected cells, each a name with its options below it, got {}"),
        ("cells: [a]\n", r"cells: expected cells, each a name with its options below it, got \['a'\]"),
        ("cells: {a: 1}\n", "cells.a: expected options, or configs and options, below it, got 1"),
        ("cells: {no: {}}\n", "cells: False is how YAML reads a cell's name; write it in quotes"),
        ("cells: {a/b: {}}\n", "cells: 'a/b' cannot be the name of a folder"),
        ("cells: {a: {}}\nname: ../x\n", "name: expected the name of a folder: letters.*, got '../x'"),
        ("cells: {a: {}, b: {}}\nbaseline: c\n", "baseline: 'c' is not a cell. There are a, b"),
        ("cells: {small: {}, b: {}}\nbaseline: smal\n", "baseline: 'smal' is not a cell; did you mean small"),
        ("cells: {a: {}}\nseeds: 3\n", r"seeds: expected a list of seeds, such as \[0, 1, 2\], got 3"),
        ("cells: {a: {}}\nseeds: [1, 1]\n", "seeds: a seed stands there twice"),
        ("cells: {a: {}}\nseeds: [-1]\n", "seeds: expected whole numbers of at least 0, such as"),
        ("cells: {a: {}}\nseeds: []\n", "seeds: expected at least one seed"),
        ("cells: {a: {}}\nmatch: parameter\n", "match: 'parameter' is not one of its values; did you mean parameters"),
        (
            "cells: {a: {}}\nmatch: parameters\n",
            "match: parameters needs baseline, the cell whose number .* or match_to",
        ),
        ("cells: {a: {}}\nmatch_to: 5\n", "match_to is a number of parameters; it needs match: parameters"),
        ("cells: {a: {}}\nmatch_to: 5.5\n", "match_to: expected a whole number of at least 1, got 5.5"),
        ("cells: {a: {}}\nobjective: {metrics: a}\n", "objective has no setting 'metrics'; did you mean metric"),
        ("cells: {a: {}}\nobjective: {direction: min}\n", "objective.direction: 'min' is not one of its values"),
        ("cells: {a: {}}\nrecord: [1]\n", "record: expected tags of figures, such as"),
        ("cells: {a: {}}\npruner: medan\n", "pruner.name: 'medan' is not one of its values; did you mean median"),
        ("cells: {a: {}}\npruner: {name: median, every_n_steps: 0}\n", "every_n_steps: expected a whole number of at"),
        (
            "cells: {a: {}}\npruner: {name: median, every_n_steps: 1, every_n_tokens: 1}\n",
            "pruner: reports by steps or by tokens; leave one of every_n_… out",
        ),
        ("cells: {a: {}}\nretries: {crashed: 1}\n", "retries has no setting 'crashed'. There are out_of_memory, diver"),
        ("cells: {a: {}}\nretries: {lost: -1}\n", "retries.lost: expected a whole number of at least 0, got -1"),
        ("cells: {a: {}}\nretries: many\n", "retries: expected a whole number of at least 0, got 'many'"),
        ("cells: {a: {}}\ngpus_per_trial: 0\n", "gpus_per_trial: expected a whole number of at least 1, got 0"),
        ("cells: {a: {}}\ntime_limit: soon\n", "time_limit: expected a duration, such as 90s, 45m, 2h or 1h30m"),
        ("cells: {a: {}}\nnum_trials: 5\n", "num_trials is of a search; cells are all trained, once with each seed"),
        ("cells: {a: {}}\nsampler: tpe\n", "sampler is of a search"),
        ("cells: {a: {}}\nquestion: [1]\n", r"question: expected a text, got \[1\]"),
        ("cells: {a: {}}\nconfigs: nowhere.yaml\n", "configs: .*nowhere.yaml: no such configuration file"),
        (f"{SEARCH}baseline: a\n", "baseline is one of a study's cells; a search has none"),
        (f"{SEARCH}seeds: [0, 1]\n", r"a search trains each setting once, so it takes one seed, got \[0, 1\]"),
        (f"{SEARCH}match: parameters\n", "match: parameters needs match_to, a number: a search has no baseline"),
        ("grid: {a.x: [1_000], b.x: [2], a.y: ['%', '&']}\n", "grid: two cells would be called 'a.x=1000,b.x=2,y=_'"),
        (f"grid: {{a.{'x' * 99}: [1]}}\n", "is too long for the name of a folder; give the parameters short names"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    base = "" if "configs" in text else f"configs: [{QUICKSTART}]\n"
    with pytest.raises(ValueError, match=message):
        load_study([write(tmp_path, base + text)])


def test_reading_a_study_loads_no_pytorch():
    """Workers read it at every start."""
    code = f"import sys, lit_t6.sweeps as s; s.load_study(['{RANK}']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
