"""Which checkpoints a run can go on from."""

import os
import shutil

import pytest
import torch

from lit_t6.training.checkpoint_choice import newest_whole, of_run, to_go_on_from

from .runs import fit


@pytest.fixture(scope="module")
def runs(prepared, tmp_path_factory):
    """Two runs: their checkpoints in a folder for both; of one, a whole one and weights alone in its own, too."""
    folder = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("one", "two")):
        _, trainer = fit(folder / name, prepared, max_steps=number + 1, enable_checkpointing=False)
        trainer.save_checkpoint(folder / "shared" / f"{name}.ckpt")
        if name == "one":
            trainer.save_checkpoint(folder / "one/run/checkpoints/whole.ckpt")
            trainer.save_checkpoint(folder / "one/run/checkpoints/weights.ckpt", weights_only=True)
    return folder


def chosen(folder, *paths):
    return {path.name for path in to_go_on_from(folder, [p for at in paths for p in at.glob("*.ckpt")])}


def test_weights_alone_are_no_training_to_go_on_with(runs, capsys):
    folder = runs / "one" / "run"
    assert chosen(folder, folder / "checkpoints") == {"whole.ckpt"}
    assert capsys.readouterr().err == ""
    weights = folder / "checkpoints" / "weights.ckpt"
    assert to_go_on_from(folder, [weights]) == []
    said = capsys.readouterr().err
    assert f"{folder}: this run is not finished, but its checkpoints hold weights alone (save_weights_only)" in said
    assert str(weights) in said


def test_a_checkpoint_of_another_run_in_a_folder_for_both_is_not_taken(runs, capsys):
    one, two = runs / "one" / "run", runs / "two" / "run"
    assert chosen(one, one / "checkpoints", runs / "shared") == {"whole.ckpt", "one.ckpt"}
    said = capsys.readouterr().err
    assert f"{runs / 'shared' / 'two.ckpt'} is of another run, {two}: {one} does not go on from it." in said
    assert "--ckpt_path does, if it is meant" in said
    assert chosen(two, runs / "shared") == {"two.ckpt"}


def test_a_run_that_was_copied_goes_on_from_what_lies_in_it(runs, tmp_path, capsys):
    shutil.copytree(runs / "one" / "run", tmp_path / "copy")
    assert chosen(tmp_path / "copy", tmp_path / "copy" / "checkpoints") == {"whole.ckpt"}
    os.symlink(tmp_path / "copy", tmp_path / "link")
    assert chosen(tmp_path / "link", tmp_path / "copy" / "checkpoints") == {"whole.ckpt"}
    assert capsys.readouterr().err == ""


def test_one_warning_tells_of_all_that_are_of_others(runs, tmp_path, capsys):
    assert chosen(tmp_path, runs / "shared") == set()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: 2 checkpoints in {runs / 'shared'} are of other runs or do not say whose they are, such as two.ckpt "
        f"of {runs / 'two' / 'run'}: {tmp_path} does not go on from them. --ckpt_path does, if one is meant."
    )


def test_what_cannot_be_read_is_left_for_the_choice_to_name(runs, tmp_path):
    damaged = tmp_path / "a.ckpt"
    damaged.write_bytes(b"PK")
    assert to_go_on_from(tmp_path, [damaged]) == [damaged]
    path, errors = newest_whole([damaged, runs / "shared" / "one.ckpt"])
    assert path == runs / "shared" / "one.ckpt"
    assert [error.path for error in errors] == [str(damaged)]


def test_trainings_of_a_run_among_files_of_others(tmp_path):
    ours, shared = tmp_path / "version_0", tmp_path / "shared"
    kinds = {"ours": (ours, True), "weights": (ours, False), "theirs": (tmp_path / "version_1", True)}
    shared.mkdir()
    for name, (folder, trains) in kinds.items():
        content = {"global_step": 3, "callbacks": {"ExactResume": {"folder": os.path.realpath(folder)}}}
        torch.save(content | ({"optimizer_states": []} if trains else {}), shared / f"{name}.ckpt")
    assert of_run(ours, shared.glob("*.ckpt")) == {shared / "ours.ckpt"}


def test_of_runs_in_the_folder_of_another_each_has_its_own(tmp_path):
    """Without a logger a run's folder is the working directory, with other runs in it."""
    inner = tmp_path / "logs" / "version_0"
    files = {
        inner / "ours.ckpt": inner,
        inner / "from-elsewhere.ckpt": tmp_path / "gone" / "version_0",  # the folder was moved here
        tmp_path / "outer.ckpt": tmp_path,
    }
    for path, folder in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"global_step": 3, "optimizer_states": [], "callbacks": {"ExactResume": {"folder": str(folder)}}}
        torch.save(content, path)
    assert {path.name for path in of_run(inner, files)} == {"ours.ckpt", "from-elsewhere.ckpt"}
    assert {path.name for path in of_run(tmp_path, files)} == {"from-elsewhere.ckpt", "outer.ckpt"}
