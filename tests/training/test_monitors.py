import lightning as L
import pytest
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor

from lit_t6.cli import main
from lit_t6.training import SafeModelCheckpoint
from lit_t6.training.monitors import FIGURES, check_monitors

from .runs import fit


def check(*callbacks):
    check_monitors(L.Trainer(logger=False, callbacks=list(callbacks), accelerator="cpu"))


@pytest.mark.parametrize("name", ["val/los", "val_loss", "loss"])
def test_a_figure_that_nobody_logs_is_told_before_the_training(options, tmp_path, capsys, name):
    assert main(["fit", *options, f"--checkpoint.monitor={name}"]) == 1
    said = (
        f"error: checkpoint.monitor: '{name}' is not logged; did you mean val/loss? There are val/loss, val/perplexity,"
    )
    assert capsys.readouterr().err.startswith(said)
    assert not list(tmp_path.iterdir())


def test_other_callbacks_watch_too():
    with pytest.raises(ValueError, match="EarlyStopping: monitor: 'accuracy' is not logged. There are val/loss, "):
        check(EarlyStopping("accuracy"))
    check(EarlyStopping("val/perplexity"), SafeModelCheckpoint(monitor=None))


def test_others_may_log_what_is_not_known_here():
    class LogsMore(L.Callback):
        pass

    check(LogsMore(), SafeModelCheckpoint(monitor="mine"))
    check(LearningRateMonitor(), EarlyStopping("lr-AdamW"))


def test_the_figures_are_there_when_a_validation_ends(prepared, tmp_path):
    class Looks(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            self.seen = {*trainer.callback_metrics, "epoch", "step"}

    looks = Looks()
    fit(tmp_path, prepared, callbacks=[looks], max_steps=2, val_check_interval=2, num_sanity_val_steps=0)
    assert looks.seen == set(FIGURES)
