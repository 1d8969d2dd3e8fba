from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from lit_t6.training import GradientExchange, ShardedStrategy
from lit_t6.training.callbacks import gradient_exchange
from lit_t6.training.callbacks.gradient_exchange import all_reduce_mean

BUFFERS = gradient_exchange._BUFFERS  # PyTorch refuses another name, in the last of these tests
SPARING = {"gradient_as_bucket_view": True, BUFFERS: False}
MODEL = torch.nn.Linear(8, 8)


def after_setup(strategy, stage="fit", world_size=2, is_global_zero=True, accumulate=1):
    """Whether all gradients are exchanged at once, and options of DistributedDataParallel."""
    accumulated = {"accumulate_grad_batches": accumulate}
    trainer = SimpleNamespace(strategy=strategy, world_size=world_size, is_global_zero=is_global_zero, **accumulated)
    callback = GradientExchange()
    callback.setup(trainer, MODEL, stage)
    return callback._after_backward, strategy._ddp_kwargs


def on_gpus(**options):
    return DDPStrategy(parallel_devices=[torch.device("cuda", 0)], cluster_environment=None, **options)


@pytest.fixture
def link(monkeypatch):
    """Sets the rate of the link."""
    return lambda rate: monkeypatch.setattr(gradient_exchange, "exchange_rate", lambda _: rate)


def test_nothing_is_copied_or_sent_needlessly():
    on_cpus = DDPStrategy(parallel_devices=[torch.device("cpu")])
    assert after_setup(on_cpus) == (False, SPARING)


def test_what_was_given_holds():
    on_cpus = DDPStrategy(parallel_devices=[torch.device("cpu")], gradient_as_bucket_view=False, bucket_cap_mb=7)
    assert after_setup(on_cpus) == (False, SPARING | {"gradient_as_bucket_view": False, "bucket_cap_mb": 7})
    by_its_old_name = DDPStrategy(parallel_devices=[torch.device("cpu")], broadcast_buffers=True)
    assert after_setup(by_its_old_name) == (False, {"gradient_as_bucket_view": True, "broadcast_buffers": True})


def test_over_a_fast_link_gradients_are_exchanged_after_the_backward_pass(link, capsys):
    link(350e9)
    assert after_setup(on_gpus()) == (True, SPARING)
    assert "gradients are exchanged after the backward pass: 350 GB/s between 2 GPUs" in capsys.readouterr().out


def test_over_a_slow_link_they_are_exchanged_during_it(link, capsys):
    link(20e9)
    assert after_setup(on_gpus()) == (False, SPARING)
    assert "gradients are exchanged during the backward pass: 20 GB/s between 2 GPUs" in capsys.readouterr().out


def test_one_rank_tells_it(link, capsys):
    link(350e9)
    assert after_setup(on_gpus(), is_global_zero=False) == (True, SPARING)
    assert capsys.readouterr().out == ""


def test_the_link_is_not_measured_where_it_does_not_matter(monkeypatch):
    monkeypatch.setattr(gradient_exchange, "exchange_rate", lambda _: pytest.fail("measured"))
    assert after_setup(on_gpus(), world_size=1) == (False, SPARING)
    assert after_setup(on_gpus(bucket_cap_mb=7)) == (False, SPARING | {"bucket_cap_mb": 7})
    for name in ("find_unused_parameters", "static_graph"):
        assert after_setup(on_gpus(**{name: True})) == (False, SPARING | {name: True})
    assert after_setup(on_gpus(ddp_comm_hook=lambda *_: None)) == (False, SPARING)
    assert after_setup(on_gpus(), stage="validate") == (False, {})
    assert after_setup(ShardedStrategy(parallel_devices=[torch.device("cuda", 0)])) == (False, {})


def test_a_static_graph_accumulates_no_gradients():
    with pytest.raises(
        ValueError, match="static_graph: PyTorch cannot have it with gradient accumulation, here over 4"
    ):
        after_setup(on_gpus(static_graph=True), accumulate=4)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_the_mean_is_taken_in_place(process_group, monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)  # of which one rank takes part
    gradients = [torch.full((3,), 8.0), torch.full((2, 2), -4.0), torch.full((2,), 12.0, dtype=torch.float64)]
    kept = [gradient.data_ptr() for gradient in gradients]
    all_reduce_mean(gradients)
    assert [gradient.unique().item() for gradient in gradients] == [2, -1, 3]
    assert [gradient.data_ptr() for gradient in gradients] == kept
    all_reduce_mean([])


@pytest.mark.gpu
def test_nccl_takes_the_mean_in_place(tmp_path):
    dist.init_process_group("nccl", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    gradients = [torch.randn(3, device="cuda"), torch.randn(2, 2, device="cuda", dtype=torch.bfloat16)]
    kept = [gradient.clone() for gradient in gradients]
    all_reduce_mean(gradients)
    dist.destroy_process_group()
    torch.testing.assert_close(gradients, kept, rtol=0, atol=0)


def test_the_options_are_ones_that_pytorch_knows(process_group):
    torch.nn.parallel.DistributedDataParallel(MODEL, **SPARING)
