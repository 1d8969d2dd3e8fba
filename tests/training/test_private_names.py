"""The names of Lightning's that we use and that it does not promise to keep: an upgrade that lacks one fails here."""

import inspect

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from lit_t6.training import SafeModelCheckpoint

from .runs import fit

OF_INSTANCES = [
    ("trainer", "_accelerator_connector.cluster_environment"),
    ("trainer", "_last_val_time"),
    ("trainer", "_logger_connector._callback_metrics"),
    ("trainer", "_signal_connector"),
    ("trainer", "_val_check_time_interval"),
    ("trainer", "enable_validation"),
    ("trainer", "fit_loop._can_stop_early"),
    ("trainer", "fit_loop._data_fetcher"),
    ("trainer", "fit_loop.epoch_loop._batches_that_stepped"),
    ("trainer", "fit_loop.epoch_loop._broadcast_sigterm_tensor"),
    ("trainer", "fit_loop.epoch_loop._should_accumulate"),
    ("trainer", "fit_loop.epoch_loop._should_check_val_epoch"),
    ("trainer", "fit_loop.epoch_loop._should_check_val_fx"),
    ("trainer", "fit_loop.epoch_loop.batch_progress.is_last_batch"),
    ("trainer", "fit_loop.epoch_loop.max_steps"),
    ("trainer", "fit_loop.epoch_loop.val_loop.max_batches"),
    ("trainer", "fit_loop.epoch_loop.val_loop.skip"),
    ("trainer", "strategy._launcher"),
    ("trainer", "strategy._optimizers"),
    ("trainer", "val_check_batch"),
    ("module", "_trainer"),
    ("saver", "_defer_save_until_validation"),
    ("saver", "_last_checkpoint_saved"),
    ("saver", "_last_global_step_saved"),
    ("saver", "best_k_models"),
    ("saver", "best_model_path"),
    ("saver", "best_model_score"),
    ("saver", "current_score"),
    ("saver", "kth_best_model_path"),
    ("saver", "kth_value"),
    ("saver", "last_model_path"),
]
CALLED_OR_REPLACED = [
    (LightningCLI, "_get", ["self", "config", "key", "default"]),
    (LightningCLI, "_parse_ckpt_path", ["self"]),
    (LightningCLI, "_run_subcommand", ["self", "subcommand"]),
    (
        ModelCheckpoint,
        "_get_metric_interpolated_filepath_name",
        ["self", "monitor_candidates", "trainer", "del_filepath"],
    ),
    (ModelCheckpoint, "_monitor_candidates", ["self", "trainer"]),
    (ModelCheckpoint, "_save_checkpoint", ["self", "trainer", "filepath"]),
    (ModelCheckpoint, "_save_last_checkpoint", ["self", "trainer", "monitor_candidates"]),
    (ModelCheckpoint, "_save_topk_checkpoint", ["self", "trainer", "monitor_candidates"]),
    (ModelCheckpoint, "_should_save_on_exception", ["self", "trainer"]),
    (ModelCheckpoint, "_should_save_on_train_epoch_end", ["self", "trainer"]),
    (_SignalConnector, "register_signal_handlers", ["self"]),
    (_SignalConnector, "teardown", ["self"]),
    (_SubprocessScriptLauncher, "__init__", ["self", "cluster_environment", "num_processes", "num_nodes"]),
    (_SubprocessScriptLauncher, "_call_children_scripts", ["self"]),
    (_SubprocessScriptLauncher, "kill", ["self", "signum"]),
]
COUNTS = {"ready", "started", "processed", "completed"}


@pytest.fixture(scope="module")
def objects(tmp_path_factory, prepared):
    saver = SafeModelCheckpoint(monitor="val/loss")
    options = {"max_steps": 1, "val_check_interval": 1, "limit_val_batches": 1}
    module, trainer = fit(tmp_path_factory.mktemp("run"), prepared, callbacks=[saver], **options)
    return {"trainer": trainer, "module": module, "saver": saver}


@pytest.mark.parametrize(("kind", "name"), OF_INSTANCES, ids=lambda word: word)
def test_an_instance_has(objects, kind, name):
    at = objects[kind]
    for part in name.split("."):
        assert hasattr(at, part), f"{type(at).__name__}.{part}"
        at = getattr(at, part)


@pytest.mark.parametrize(("owner", "name", "arguments"), CALLED_OR_REPLACED)
def test_a_class_has(owner, name, arguments):
    found = [*inspect.signature(getattr(owner, name)).parameters]
    assert found == arguments


def test_loops_keep_their_counters_under_the_names_that_we_rewrite(objects):
    state = objects["trainer"]._checkpoint_connector.dump_checkpoint(weights_only=False)["loops"]["fit_loop"]
    for name in ("epoch_loop.batch_progress", "epoch_progress", "epoch_loop.val_loop.batch_progress"):
        assert set(state[name]["current"]) == set(state[name]["total"]) == COUNTS, name
    assert state["epoch_loop.batch_progress"]["is_last_batch"] in (True, False)


def test_an_upgrade_is_a_decision():
    import tomllib
    from pathlib import Path

    dependencies = tomllib.loads(Path("pyproject.toml").read_text())["project"]["dependencies"]
    (lightning,) = [words for words in dependencies if words.startswith("lightning")]
    assert lightning.endswith(">=2.6.6,<2.7")
