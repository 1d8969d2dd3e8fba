"""Every study in configs/sweep/ is read, and every cell of it built."""

from pathlib import Path

import pytest
import torch

from lit_t6.model import T6Model
from lit_t6.sweeps import load_study
from lit_t6.sweeps.checking import check_data, check_study
from lit_t6.sweeps.preview import preview
from lit_t6.training.planning.fit_reader import FitReader

FILES = sorted(Path("configs/sweep").glob("*.yaml"))
STUDIES = [path for path in FILES if "-" not in path.stem]
OTHERS = [path for path in FILES if "-" in path.stem and not path.stem.endswith("-quick")]
"""Over a study, of which they ask another question: rank-raw.yaml over rank.yaml."""
STACKS = [[path] for path in STUDIES] + [[path.with_name(f"{path.stem.split('-')[0]}.yaml"), path] for path in OTHERS]


@pytest.fixture(scope="module")
def reader():
    return FitReader()


def overlay(path):
    """The small one over a study."""
    return path.with_name(f"{path.stem}-quick.yaml")


def test_every_study_has_a_small_one():
    assert sorted([*STUDIES, *OTHERS, *map(overlay, STUDIES)]) == FILES


def test_every_study_has_a_folder_that_says_how_to_run_and_read_it():
    for path in STUDIES:
        text = (Path("experiments") / path.stem / "README.md").read_text()
        assert f"python cli.py sweep run {path} {overlay(path)}" in text
        assert f"python cli.py sweep report {path}" in text
    for path in OTHERS:
        assert str(path) in (Path("experiments") / path.stem.split("-")[0] / "README.md").read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_say_what_they_are_for(path):
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("files", [*STACKS, *([p, overlay(p)] for p in STUDIES)], ids=lambda f: f[-1].stem)
def test_every_cell_is_built(files, reader):
    for cell, settings in check_study(load_study(files), reader):
        with torch.device("meta"):
            model = T6Model(settings.model)
        assert sum(p.numel() for p in model.parameters()) == settings.model.num_parameters(), cell.name


@pytest.mark.parametrize("files", [*STACKS, *([p, overlay(p)] for p in STUDIES)], ids=lambda files: files[-1].stem)
def test_head_counts_come_near(files, reader):
    read = load_study(files)
    if read.match == "parameters":
        counts = [settings.model.num_parameters() for _, settings in check_study(read, reader)]
        assert max(counts) / min(counts) < 1.02


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_small_ones_are_small(path, reader):
    read = load_study([path, overlay(path)])
    assert read.name == overlay(path).stem
    seen = preview(read, flops_per_second=3e10, reader=reader)
    assert all(row.seconds < 30 and row.memory_gib < 0.5 for row in seen.rows)
    assert read.num_runs <= 20


def test_small_ones_take_the_data_of_the_demo(reader, prepared):
    read = load_study([STUDIES[0], overlay(STUDIES[0])], {"options.data.path": str(prepared)})
    check_data(read, check_study(read, reader))
