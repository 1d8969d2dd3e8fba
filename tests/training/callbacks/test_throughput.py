import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_t6.attention import TPAConfig
from lit_t6.model import T6Config
from lit_t6.training import Throughput
from lit_t6.training.callbacks import throughput

from ..runs import SMALL, fit

CONFIG = T6Config(vocab_size=100, max_seq_len=8, d_model=32, num_layers=1, attention=TPAConfig(2, 8))


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return now


def run(clock, callback, seconds, accumulate=1, world_size=1):
    """Train as long as there are `seconds`, one a batch; "validate" pauses for 1000. Returns what was logged."""
    logged = []

    def log(values, step):
        if "perf/step_ms" in values:
            logged.append({**values, "step": step})

    trainer = SimpleNamespace(
        global_step=0,
        log_every_n_steps=2,
        world_size=world_size,
        precision="32-true",
        loggers=[SimpleNamespace(log_metrics=log)],
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        max_steps=-1,
        max_epochs=-1,
        is_last_batch=False,
    )
    module = SimpleNamespace(device=torch.device("cpu"), step_figures={"train/loss": torch.tensor(1.5)})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.25)
    callback.on_train_start(trainer, module)
    batches = 0
    for entry in seconds:
        if entry == "validate":
            callback.on_validation_start(trainer, module)
            clock[0] += 1000
            callback.on_validation_end(trainer, module)
            continue
        if entry == "wait":  # for data
            clock[0] += 10
            continue
        callback.on_train_batch_start(trainer, module, None, 0)
        clock[0] += entry
        batches += 1
        if batches % accumulate == 0:
            callback.on_before_optimizer_step(trainer, module, optimizer)
            trainer.global_step += 1
        callback.on_train_batch_end(trainer, module, None, {"tokens": torch.zeros(3, 8)}, 0)
    callback.on_train_end(trainer, module)
    return logged


def test_rates_are_means_since_the_last_time_without_validation(clock):
    logged = run(clock, Throughput(CONFIG), [1.0, "validate", 3.0, 0.5, 0.5])
    assert [values["perf/step_ms"] for values in logged] == [2000, 500]
    assert [values["perf/tokens_per_sec"] for values in logged] == [12, 48]
    assert [values["progress/tokens"] for values in logged] == [48, 96]
    assert logged[0]["optim/lr"] == 0.25
    assert "perf/mfu" not in logged[0]
    assert [values["step"] for values in logged] == [1, 3]  # counted from 0
    assert logged[0]["train/loss"] == 1.5


def test_waiting_for_data_is_a_part_of_a_step(clock):
    logged = run(clock, Throughput(CONFIG), [1.0, "wait", 1.0, "wait", 1.0, 1.0])
    assert [values["perf/step_ms"] for values in logged] == [6000, 6000]


def test_accumulated_batches_make_one_step_and_all_ranks_count(clock):
    logged = run(clock, Throughput(CONFIG), [1.0] * 8, accumulate=2, world_size=4)
    assert [values["perf/step_ms"] for values in logged] == [2000, 2000]
    assert [values["perf/tokens_per_sec"] for values in logged] == [96, 96]


def test_tokens_go_on_after_a_resume(clock):
    first = Throughput(CONFIG)
    run(clock, first, [1.0] * 4)
    second = Throughput(CONFIG)
    second.load_state_dict(first.state_dict())
    assert run(clock, second, [1.0] * 2)[0]["progress/tokens"] == 144


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Some other GPU", None),
    ],
)
def test_peaks_are_dense(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert throughput.peak_flops(torch.device("cuda")) == peak
    assert throughput.peak_flops(torch.device("cpu")) is None


def test_a_throughput_of_ones_own_is_used(tmp_path, prepared):
    own = Throughput(SMALL)
    fit(tmp_path, prepared, SMALL, callbacks=[own], max_steps=3)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert [event.step for event in events.Scalars("train/loss_over_tokens")] == [128, 256, 384]
    assert own.latest["step"] == 2


class WallClock(Callback):
    """Waits for the GPU after every step, and notes the time and the loss."""

    def on_train_start(self, trainer, module):
        self.times, self.losses = [], []

    def on_train_batch_end(self, trainer, module, outputs, *_):
        torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        self.losses.append(outputs["loss"].item())


@pytest.mark.gpu
def test_on_a_gpu_times_and_figures_are_those_of_their_steps(tmp_path, prepared):
    config = replace(SMALL, d_model=1024, max_seq_len=256)
    clock = WallClock()
    options = {"accelerator": "gpu", "devices": 1, "max_steps": 12, "log_every_n_steps": 3, "val_check_interval": 5}
    fit(tmp_path, prepared, config, batch_size=32, callbacks=[clock], **options)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == pytest.approx({step: clock.losses[step] for step in (2, 5, 8, 11)})
    (milliseconds,) = [event.value for event in events.Scalars("perf/step_ms") if event.step == 11]
    # Between steps 9 and 12 there is the validation after step 10, which is not counted.
    steps = [1000 * (clock.times[n] - clock.times[n - 1]) for n in (9, 11)]
    assert milliseconds == pytest.approx(sum(steps) / 2, rel=0.3)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_on_a_gpu_steps_that_are_not_logged_wait_for_nothing(tmp_path, prepared):
    class NoWaiting(Callback):
        def on_train_batch_start(self, trainer, *_):
            torch.cuda.set_sync_debug_mode("error" if trainer.global_step in (5, 6) else "default")

        def on_train_end(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    options = {"accelerator": "gpu", "devices": 1, "max_steps": 8, "log_every_n_steps": 4, "val_check_interval": 100}
    fit(tmp_path, prepared, SMALL, callbacks=[NoWaiting()], **options)
