import pytest

from lit_t6.training import SafeModelCheckpoint
from tests.training.endings import Fails

from ..runs import fit


def fails_at_step_3(folder, prepared, shared):
    saver = SafeModelCheckpoint(shared, "{step}", monitor=None, save_on_exception=True, save_last=True)
    with pytest.raises(ValueError, match="rank 0 fails"):
        fit(folder, prepared, callbacks=[saver, Fails(step=3, ranks=[0])])


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_an_error_does_not_overwrite_what_another_run_saved_at_its_own(tmp_path, prepared, capsys):
    """At the same step, into the same folder."""
    shared = tmp_path / "shared"
    fails_at_step_3(tmp_path / "one", prepared, shared)
    before = {path.name: path.read_bytes() for path in shared.iterdir()}
    assert set(before) == {"step=2.ckpt", "last.ckpt"}
    fails_at_step_3(tmp_path / "two", prepared, shared)
    assert {name: (shared / name).read_bytes() for name in before} == before
    assert {path.name for path in shared.iterdir()} - set(before) == {"step=2-v1.ckpt", "last-v1.ckpt"}
    assert f"Saved {shared / 'step=2-v1.ckpt'} at an error, ValueError." in capsys.readouterr().out
