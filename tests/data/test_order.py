import numpy as np
import pytest

from lit_t6.data.order import GlobalOrderSampler, InOrderSampler, permute, window_of_sample


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_permute_is_a_permutation(size):
    for key in (0, 1, 2**64 - 1):
        assert sorted(permute(np.arange(size), size, key)) == list(range(size))


def test_keys_and_places_matter():
    orders = [permute(np.arange(1000), 1000, key) for key in range(20)]
    for n, order in enumerate(orders):
        for other in orders[n + 1 :]:
            assert (order == other).mean() < 0.02
        # No trace of the old order: neighbours land as far apart as random ones (a third of the size).
        assert abs(np.abs(np.diff(order)).mean() / 1000 - 1 / 3) < 0.05


def test_one_index_alone_goes_where_it_goes_among_others():
    order = permute(np.arange(777), 777, 5)
    assert [int(permute(np.array([n]), 777, 5)[0]) for n in range(0, 777, 50)] == order[::50].tolist()


def test_every_epoch_holds_every_window_once_in_an_order_of_its_own():
    windows = window_of_sample(np.arange(300), 100, seed=3)
    epochs = windows.reshape(3, 100)
    for epoch in epochs:
        assert sorted(epoch) == list(range(100))
    assert not (epochs[0] == epochs[1]).all()
    assert not (windows == window_of_sample(np.arange(300), 100, seed=4)).all()


@pytest.mark.parametrize(("ranks", "batch"), [(1, 12), (2, 6), (3, 4), (4, 1)])
def test_ranks_share_the_same_samples(ranks, batch):
    """Steps of W·b samples are consecutive stretches of the global order, whatever W and b."""
    samplers = [GlobalOrderSampler(range(40), batch, rank, ranks, lambda: 7) for rank in range(ranks)]
    assert len({len(sampler) for sampler in samplers}) == 1
    steps = [sum(step, []) for step in zip(*samplers, strict=True)]
    flat = sum(steps, [])
    assert flat == list(range(7, 7 + len(flat)))
    assert all(len(step) == ranks * batch for step in steps)


def test_an_epoch_holds_whole_steps_only():
    assert len(GlobalOrderSampler(range(99), 16, accumulate=4)) == 4
    assert len(GlobalOrderSampler(range(99), 16)) == 6
    assert len(GlobalOrderSampler(range(3), 16, accumulate=4)) == 4


def test_goes_on_from_where_the_run_stands():
    seen = [0]
    sampler = GlobalOrderSampler(range(10), 4, samples_seen=lambda: seen[0])
    assert list(sampler) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    seen[0] = 8
    assert next(iter(sampler)) == [8, 9, 10, 11]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_sees_every_window_once_and_all_ranks_have_as_many_batches(ranks):
    samplers = [InOrderSampler(range(11), 2, rank, ranks) for rank in range(ranks)]
    batches = [list(sampler) for sampler in samplers]
    assert {len(b) for b in batches} == {len(samplers[0])}
    windows = [window for rank in batches for batch in rank for window in batch if window >= 0]
    assert sorted(windows) == list(range(11))
