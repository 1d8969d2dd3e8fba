import resource

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_t6.training import LastingTensorBoardLogger
from lit_t6.training.event_file import LastingWriter
from lit_t6.training.tensorboard_logger import make_lasting
from tests.training.disks import files_no_longer_than


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="sizes of files are not limited here")
def test_hyperparameters_are_saved_whole_or_later(tmp_path):
    logger = LastingTensorBoardLogger(tmp_path, "", "run", default_hp_metric=False)
    logger.log_hyperparams({"lr": 0.1})
    with files_no_longer_than(4):
        logger.log_metrics({"train/loss": 1.0}, 0)
        logger.save()
    assert not (tmp_path / "run" / "hparams.yaml").exists()
    logger.save()
    assert (tmp_path / "run" / "hparams.yaml").read_text() == "lr: 0.1\n"
    logger.finalize("success")


def test_lightnings_own_logger_is_made_lasting_and_no_other(tmp_path):
    class Theirs(TensorBoardLogger):
        pass

    loggers = [kind(tmp_path, kind.__name__) for kind in (TensorBoardLogger, Theirs, CSVLogger)]
    make_lasting(L.Trainer(logger=loggers, accelerator="cpu", enable_checkpointing=False))
    assert [type(logger) for logger in loggers] == [LastingTensorBoardLogger, Theirs, CSVLogger]
    assert isinstance(loggers[0].experiment, LastingWriter)
