from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from lit_t6.training import GradientExchange, ShardedStrategy
from lit_t6.training.callbacks import gradient_exchange
from lit_t6.training.callbacks.gradient_exchange import one_bucket

BUFFERS = gradient_exchange._BUFFERS  # PyTorch refuses another name, in the last of these tests
SPARING = {"gradient_as_bucket_view": True, BUFFERS: False}
MODEL = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(8)))  # 8 MiB


def chosen(strategy, stage="fit", world_size=2, is_global_zero=True):
    trainer = SimpleNamespace(strategy=strategy, world_size=world_size, is_global_zero=is_global_zero)
    GradientExchange().setup(trainer, MODEL, stage)
    return strategy._ddp_kwargs


def on_gpus(**options):
    return DDPStrategy(parallel_devices=[torch.device("cuda", 0)], cluster_environment=None, **options)


@pytest.fixture
def link(monkeypatch):
    """Sets the rate of the link."""
    return lambda rate: monkeypatch.setattr(gradient_exchange, "exchange_rate", lambda _: rate)


def test_nothing_is_copied_or_sent_needlessly():
    on_cpus = DDPStrategy(parallel_devices=[torch.device("cpu")])
    assert chosen(on_cpus) == SPARING


def test_what_was_given_holds():
    on_cpus = DDPStrategy(parallel_devices=[torch.device("cpu")], gradient_as_bucket_view=False, bucket_cap_mb=7)
    assert chosen(on_cpus) == SPARING | {"gradient_as_bucket_view": False, "bucket_cap_mb": 7}
    by_its_old_name = DDPStrategy(parallel_devices=[torch.device("cpu")], broadcast_buffers=True)
    assert chosen(by_its_old_name) == {"gradient_as_bucket_view": True, "broadcast_buffers": True}


def test_over_a_fast_link_gradients_are_exchanged_after_the_backward_pass(link, capsys):
    link(350e9)
    assert chosen(on_gpus()) == SPARING | {"bucket_cap_mb": 10}
    assert "gradients are exchanged after the backward pass: 350 GB/s between 2 GPUs" in capsys.readouterr().out


def test_over_a_slow_link_they_are_exchanged_during_it(link, capsys):
    link(20e9)
    assert chosen(on_gpus()) == SPARING
    assert "gradients are exchanged during the backward pass: 20 GB/s between 2 GPUs" in capsys.readouterr().out


def test_one_rank_tells_it(link, capsys):
    link(350e9)
    assert "bucket_cap_mb" in chosen(on_gpus(), is_global_zero=False)
    assert capsys.readouterr().out == ""


def test_the_link_is_not_measured_where_it_does_not_matter(monkeypatch):
    monkeypatch.setattr(gradient_exchange, "exchange_rate", lambda _: pytest.fail("measured"))
    assert chosen(on_gpus(), world_size=1) == SPARING
    assert chosen(on_gpus(bucket_cap_mb=7)) == SPARING | {"bucket_cap_mb": 7}
    assert chosen(on_gpus(), stage="validate") == {}
    assert chosen(ShardedStrategy(parallel_devices=[torch.device("cuda", 0)])) == {}


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("options", "several"), [({"bucket_cap_mb": 2}, True), (one_bucket(MODEL), False)])
def test_one_bucket_holds_all_gradients(process_group, options, several):
    replica = torch.nn.parallel.DistributedDataParallel(MODEL, **SPARING, **options)
    for _ in range(3):  # buckets are laid out anew after the first step, and told after the next
        replica(torch.randn(2, 512)).sum().backward()
    sizes = str(replica._get_ddp_logging_data()["rebuilt_bucket_sizes"]).split(",")
    assert (len(sizes) > 1) is several
