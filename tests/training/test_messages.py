import json
import subprocess
import sys

import pytest

from lit_t6.training.messages import counted

PROGRAM = """
import json, os, sys
from lightning.pytorch.callbacks import Callback
from lit_t6.training import SafeCheckpointIO, SafeModelCheckpoint, TrainingProgress
from tests.training.disks import files_no_longer_than
from tests.training.runs import fit

limit = files_no_longer_than(1)

class Full(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, 1)
            os.dup2(full, 2)
            limit.__enter__()

callbacks = [Full(), SafeModelCheckpoint(every_n_train_steps=2), TrainingProgress(0)]
_, trainer = fit(sys.argv[1], sys.argv[2], callbacks=callbacks, max_steps=7, plugins=[SafeCheckpointIO()],
    enable_progress_bar=True)
limit.__exit__(None, None, None)
with open(sys.argv[3], "w") as file:
    json.dump([trainer.global_step, trainer.loggers[0].name], file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_disk_that_is_full_for_all_that_is_written_ends_no_training(tmp_path, prepared):
    """Curves, checkpoints, and what is said, warnings of the others among it."""
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [str(tmp_path / "program.py"), str(tmp_path / "logs"), str(prepared), str(tmp_path / "done")]
    result = subprocess.run([sys.executable, "-W", "ignore", *words], capture_output=True, text=True, check=False)
    assert (tmp_path / "done").exists(), result.stderr[-3000:]
    assert json.loads((tmp_path / "done").read_text()) == [7, ""]
    assert "step 1 of 7" in result.stdout
    assert len(list(tmp_path.glob("logs/run/checkpoints/*.ckpt"))) == 1


def test_one_thing_has_no_s():
    assert [counted(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]
