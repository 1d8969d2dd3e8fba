from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore  # ranks without processes

from lit_t6.training import LitT6, ShardedStrategy
from lit_t6.training.checkpoint_choice import newest_whole, read_inside
from lit_t6.training.checkpoint_files import DamagedCheckpoint, is_sharded, verify_file, write_atomically
from lit_t6.training.checkpoint_io import CheckpointNotSaved, SafeCheckpointIO
from lit_t6.training.checkpoint_shards import folder_to_fill, move_into_place, read_whole, separate, write_shard

WHOLE = {"weight": torch.arange(15.0).view(5, 3), "bias": torch.arange(2.0)}
CONTENT = {
    "state_dict": {"weight": {"sharded tensor": 0}, "tied": {"sharded tensor": 0}, "bias": {"sharded tensor": 1}},
    "steps": [{"sharded tensor": 1}, 3, (None, "text")],
    "global_step": 4,
}


def write(path):
    """As three ranks do: the last has no rows of `bias`."""
    with folder_to_fill(path) as folder:
        biases = [*WHOLE["bias"].split(1), WHOLE["bias"][:0]]
        for rank, rows in enumerate(zip(WHOLE["weight"].split(2), biases, strict=True)):
            write_shard(folder, list(rows), rank, 3)
        move_into_place(folder, CONTENT, path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "step=4.ckpt"
    write(path)
    return path


def test_what_ranks_wrote_is_read_as_one(path):
    for found in (read_whole(path), SafeCheckpointIO().load_checkpoint(path)):
        assert torch.equal(found["state_dict"]["weight"], WHOLE["weight"])
        assert torch.equal(found["state_dict"]["bias"], WHOLE["bias"])
        assert found["state_dict"]["tied"].data_ptr() == found["state_dict"]["weight"].data_ptr()
        assert torch.equal(found["steps"][0], WHOLE["bias"])
        assert found["steps"][1:] == [3, (None, "text")]
    assert read_inside(path)["global_step"] == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not list(path.glob("*.ckpt"))  # or they would be taken for checkpoints of their own


def test_tensors_that_are_not_shared_out_stay(path):
    content = {"state": {"step": torch.tensor(3.0), "name": "x"}, "list": [1, torch.ones(2)]}
    kept, rows = separate(content)
    assert rows == []
    assert torch.equal(kept["state"]["step"], content["state"]["step"])
    assert torch.equal(kept["list"][1], torch.ones(2))


@pytest.mark.parametrize("rank", range(4))
def test_all_ranks_number_tied_weights_alike(rank):
    """The last has no rows: two of five come to each."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=4)
    try:
        model = torch.nn.Sequential(torch.nn.Embedding(5, 3), *(torch.nn.Linear(3, 5, bias=False) for _ in range(2)))
        model[1].weight = model[0].weight
        fully_shard(model, mesh=init_device_mesh("cpu", (4,)))
        moments = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
        content, rows = separate({"weights": model.state_dict(), "moments": moments})
    finally:
        dist.destroy_process_group()
    assert [number["sharded tensor"] for number in content["weights"].values()] == [0, 0, 1]
    assert [number["sharded tensor"] for number in content["moments"].values()] == [2, 3]
    assert [len(x) for x in rows] == 4 * [(2, 2, 1, 0)[rank]]


def test_a_shard_that_is_missing_or_damaged_is_named(path):
    verify_file(path)
    shard = path / "shard-2-of-3.pt"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedCheckpoint, match="shard-2-of-3.pt: not a checkpoint"):
        verify_file(path)
    shard.unlink()
    with pytest.raises(DamagedCheckpoint, match="step=4.ckpt: .*shard-2-of-3.pt is missing in this folder"):
        verify_file(path)
    other = path.with_name("step=3.ckpt")
    write(other)
    whole, damaged = newest_whole([path, other])
    assert whole == other
    assert len(damaged) <= 1  # of equal steps the later one comes first
    (path / "meta.pt").unlink()
    with pytest.raises(DamagedCheckpoint, match="meta.pt is missing"):
        verify_file(path)


@pytest.mark.parametrize("first", ["file", "folder", "link"])
def test_a_folder_takes_the_place_of_what_was_there(tmp_path, first):
    path = tmp_path / "last.ckpt"
    if first == "file":
        write_atomically({"global_step": 1}, path)
    elif first == "folder":
        write(path)
    else:
        write(tmp_path / "step=1.ckpt")
        path.symlink_to(tmp_path / "step=1.ckpt")
    write(path)
    assert is_sharded(path)
    assert not path.is_symlink()
    verify_file(path)
    assert {file.name for file in tmp_path.iterdir()} <= {"last.ckpt", "step=1.ckpt"}


def test_a_file_takes_the_place_of_a_folder(path):
    SafeCheckpointIO().save_checkpoint({"global_step": 7}, path)
    assert path.is_file()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_stays_in_its_place_while_a_file_is_written(path, monkeypatch):
    seen, own = [], torch.save
    monkeypatch.setattr(torch, "save", lambda *args: (seen.append(read_whole(path)["global_step"]), own(*args)))
    SafeCheckpointIO().save_checkpoint({"global_step": 5}, path)
    assert seen == [4]
    assert SafeCheckpointIO().load_checkpoint(path) == {"global_step": 5}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_what_was_there_stays_where_the_new_one_fails(path, monkeypatch):
    def fail(self, target):
        raise OSError(28, "No space left on device")

    io = SafeCheckpointIO()
    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(CheckpointNotSaved, match="No space left"):
        io.save_checkpoint({"global_step": 7}, path)
    monkeypatch.undo()
    assert read_inside(path)["global_step"] == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_half_written_folders_are_removed_unless_somebody_writes_them(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_t6.training.checkpoint_shards.SETTLED_SECONDS", -1.0)
    killed = tmp_path / ".last.ckpt.0123abcd.shards"
    killed.mkdir()
    with folder_to_fill(tmp_path / "step=1.ckpt") as mine:
        assert not killed.exists()
        with folder_to_fill(tmp_path / "step=2.ckpt"):
            assert mine.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy])
def test_strategies_whose_steps_would_be_wrong_are_refused(strategy):
    trainer = SimpleNamespace(strategy=strategy.__new__(strategy))
    with pytest.raises(
        ValueError, match=rf"{strategy.__name__} of Lightning is not supported; use --trainer.strategy f"
    ):
        LitT6.check_trainer(trainer)


def test_what_a_killed_process_put_aside_is_put_back_or_removed(path, monkeypatch):
    monkeypatch.setattr("lit_t6.training.checkpoint_shards.SETTLED_SECONDS", -1)
    alone, beside = path.with_name("last.ckpt"), path.with_name("step=3.ckpt")
    for place in (alone, beside):
        write(place)
        place.rename(place.with_name(f".{place.name}.0123abcd.before"))
    beside.touch()
    write(path)
    assert sorted(path.parent.iterdir()) == sorted([alone, beside, path])
    assert read_whole(alone)["global_step"] == 4


def test_an_unknown_type_of_checkpoint_is_refused():
    with pytest.raises(ValueError, match="state_dict_type='whole': expected 'full' or 'sharded'"):
        ShardedStrategy("whole")


def test_shards_are_no_file_to_load_a_module_from(path):
    with pytest.raises(ValueError, match="convert --from shards makes a file of it"):
        LitT6.load_from_checkpoint(path)


def test_weights_that_nobody_would_keep_alike_are_refused():
    with pytest.raises(ValueError, match=r"weights outside of one: 0.weight, 0.bias\. Use --trainer.strategy ddp"):
        ShardedStrategy()._setup_model(torch.nn.Sequential(torch.nn.Linear(2, 2)))
