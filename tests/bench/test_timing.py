import time

import pytest
import torch

from lit_t6.bench.read_rate import measure_read_rates, triton_sums
from lit_t6.bench.timing import SETS_AT_MOST, l2_bytes, num_sets, time_calls


def test_a_call_s_time_is_that_of_one_of_them():
    def sleep():
        time.sleep(0.004)
        return torch.ones(1)

    timing = time_calls([sleep, lambda: torch.zeros(1)], "cpu", replays=5)
    assert 2 <= timing.fastest_ms <= timing.ms <= timing.slowest_ms
    assert timing.ms < 40
    assert timing.output == 1  # of the first


def test_one_set_is_enough_where_nothing_is_known_of_a_cache():
    assert num_sets(100, "cpu") == 1


def test_the_read_kernel_reads_everything():
    x = torch.randn(7 * 256)
    sums = triton_sums(x, block=256, warps=4, stages=1, programs=3)
    expected = [x.view(7, 256)[program::3].sum() for program in range(3)]
    torch.testing.assert_close(sums, torch.stack(expected))


def test_read_rates_have_names():
    rates = measure_read_rates("cpu", 2**20)
    assert {"torch.sum", "torch.sum of rows"} <= set(rates)
    assert min(rates.values()) > 0


@pytest.mark.gpu
def test_sets_of_inputs_are_larger_than_the_l2():
    nbytes = l2_bytes("cuda") // 5
    assert num_sets(nbytes, "cuda") * nbytes > 2 * l2_bytes("cuda")
    assert num_sets(10, "cuda") == SETS_AT_MOST


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [True, False])
def test_a_replay_s_output_is_that_of_its_inputs(graph):
    sets = [torch.full((1000,), float(n), device="cuda") for n in range(3)]
    timing = time_calls([lambda x=x: x + 1 for x in sets], "cuda", graph=graph)
    assert timing.output.eq(1).all()
    assert 0 < timing.ms < 1


@pytest.mark.gpu
def test_what_python_takes_counts_only_without_a_graph():
    def call():
        time.sleep(0.002)
        return torch.zeros(1, device="cuda")

    assert time_calls([call], "cuda").ms < 1
    assert time_calls([call], "cuda", graph=False).ms > 1
