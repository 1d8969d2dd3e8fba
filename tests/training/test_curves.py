import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

from lit_t6.training.curves import trim_curves


def points(folder, tag):
    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def write(folder, steps, model=False):
    with SummaryWriter(str(folder)) as writer:
        for step in steps:
            writer.add_scalar("train/loss", 1.0, step)
            writer.add_scalar("train/loss_over_tokens", 1.0, 100 * (step + 1))
        if model:
            writer.add_text("run/model", "text", 0)


def test_points_after_the_checkpoint_go_and_all_others_stay(tmp_path):
    write(tmp_path, range(6), model=True)
    trim_curves(tmp_path, step=4, tokens=400)
    assert points(tmp_path, "train/loss") == [0, 1, 2, 3]
    assert points(tmp_path, "train/loss_over_tokens") == [100, 200, 300, 400]
    assert not EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"]  # the run writes it again when it starts


def test_what_a_killed_process_left_half_written_is_cut_off(tmp_path):
    write(tmp_path, range(3))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:20])
    trim_curves(tmp_path, step=3, tokens=300)
    assert file.read_bytes() == whole


def test_a_file_without_later_points_is_left_alone(tmp_path):
    write(tmp_path, range(3))
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns, file.stat().st_ino
    trim_curves(tmp_path, step=3, tokens=300)
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before


@pytest.mark.parametrize("mark", ["config.yaml", "hparams.yaml", "run.lock"])
def test_runs_inside_of_the_folder_are_left_alone(tmp_path, mark):
    """Their own sub-folders, too; TensorBoard's writer makes sub-folders of a run, as for several curves in a chart."""
    others = [tmp_path / "a" / "version_0", tmp_path / "a" / "version_0" / "charts"]
    for folder in (tmp_path, tmp_path / "charts", *others):
        write(folder, range(6))
    for folder in (tmp_path, others[0]):
        (folder / mark).touch()
    trim_curves(tmp_path, step=2, tokens=200)
    assert points(tmp_path / "charts", "train/loss") == points(tmp_path, "train/loss") == [0, 1]
    assert all(points(folder, "train/loss") == [*range(6)] for folder in others)
