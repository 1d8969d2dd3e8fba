import contextlib
import resource

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard.writer import SummaryWriter

from lit_t6.training import event_file
from lit_t6.training.event_file import LastingWriter
from tests.training.disks import files_no_longer_than

pytestmark = pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="sizes of files are not limited here")


@pytest.fixture
def open_writer():
    with contextlib.ExitStack() as writers:
        yield lambda folder: writers.enter_context(LastingWriter(str(folder)))


def points(folder):
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars("train/loss")]


def add(writer, *steps):
    for step in steps:
        writer.add_scalar("train/loss", step / 4, step)


def expected(*steps):
    return [(step, step / 4) for step in steps]


def size(folder):
    (file,) = folder.iterdir()
    return file.stat().st_size


def test_an_event_is_on_the_disk_when_it_was_added(open_writer, tmp_path):
    folder = tmp_path / "run"
    writer = open_writer(folder)
    assert not folder.exists()  # nothing was logged
    add(writer, 0, 1)
    assert points(folder) == expected(0, 1)


def test_the_bytes_are_those_of_tensorboards_own_writer(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.7e9)
    contents = []
    for kind in (SummaryWriter, LastingWriter):
        folder = tmp_path / kind.__name__
        with kind(str(folder), purge_step=2) as writer:
            add(writer, 2, 3)
        contents.append(next(folder.iterdir()).read_bytes())
    head = b"tensorboard.summary.writer.event_file_writer"  # the first record names the class that wrote it
    assert contents[0][-150:] == contents[1][-150:]
    assert head not in contents[1]


@pytest.mark.parametrize("room", [0, 1, 20, 45])
def test_points_wait_in_memory_while_the_disk_is_full(open_writer, tmp_path, capsys, room):
    writer = open_writer(tmp_path)
    add(writer, 0, 1)
    with files_no_longer_than(size(tmp_path) + room):
        add(writer, *range(2, 6))
        writer.flush()
        assert writer.error is not None
        assert points(tmp_path) == expected(0, 1)  # not half a record, and so all that is there is read
    add(writer, 6)
    writer.flush()
    add(writer, 7)
    assert points(tmp_path) == expected(*range(8))
    assert writer.error is None
    told, again = capsys.readouterr().err.splitlines()
    assert told.startswith(
        f"warning: {tmp_path}: curves cannot be written from step 3 on: File too large. Up to 16 MiB"
    )
    assert again == f"warning: {tmp_path}: curves are written again at step 7; none is missing."


def test_memory_is_bounded_and_what_is_lost_is_told(open_writer, tmp_path, capsys, monkeypatch):
    writer = open_writer(tmp_path)
    add(writer, 0)
    monkeypatch.setattr(event_file, "KEPT_BYTES", 120)
    with files_no_longer_than(size(tmp_path)):
        add(writer, *range(1, 9))
    writer.flush()
    add(writer, 9)
    kept = [step for step, _ in points(tmp_path)]
    assert kept == [*range(len(kept) - 1), 9]
    assert 2 < len(kept) < 9
    lost = 10 - len(kept)
    assert f"written again at step 9; {lost} points and pictures between are lost." in capsys.readouterr().err


def test_what_is_kept_at_the_end_is_told(open_writer, tmp_path, capsys):
    writer = open_writer(tmp_path)
    add(writer, 0)
    with files_no_longer_than(size(tmp_path)):
        add(writer, 1, 2)
        writer.close()
    assert points(tmp_path) == expected(0)
    assert f"{tmp_path}: 2 points and pictures of the curves, from step 2 on, are lost: File" in capsys.readouterr().err
    add(writer, 3)  # as after any close: another file
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_is_full_at_every_other_step_is_told_of_once(open_writer, tmp_path, capsys):
    writer = open_writer(tmp_path)
    for step in range(0, 8, 2):
        add(writer, step)
        with files_no_longer_than(size(tmp_path)):
            add(writer, step + 1)
        writer.flush()
    assert points(tmp_path) == expected(*range(8))
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_folder_that_cannot_be_made_yet(open_writer, tmp_path, capsys):
    (tmp_path / "logs").touch()
    writer = open_writer(tmp_path / "logs" / "run")
    add(writer, 0)
    assert "curves cannot be written from step 1 on: Not a directory" in capsys.readouterr().err
    (tmp_path / "logs").unlink()
    writer.flush()
    assert points(tmp_path / "logs" / "run") == expected(0)
