import torch

from lit_t6.bench.grid import Point, free_memory, no_room, order


def test_the_first_points_span_the_grid():
    caches = [2**n for n in range(12, 20)]
    points = list(order([16, 32], [1, 2, 4, 8, 16], caches))
    assert len(points) == len(set(points)) == 2 * 5 * 8
    assert set(points[:8]) == {(h, b, m) for h in (16, 32) for b in (1, 16) for m in (4096, 524288)}
    early = points[:24]
    assert {(h, b, 65536) for h in (16, 32) for b in (1, 16)} < set(early)
    assert {(h, 4, m) for h in (16, 32) for m in (4096, 524288)} < set(early)


def test_a_grid_of_one_point():
    assert list(order([7], [3], [100])) == [(7, 3, 100)]


def test_what_does_not_fit_is_told_in_numbers():
    assert no_room(100, 100) is None
    assert no_room(3 * 2**30, 2**29) == "takes about 3.0 GiB, there is room for 0.5"
    assert free_memory("cpu") > 2**20


def test_a_point_knows_its_tensors():
    point = Point(47, 64, 2, 512, (6, 2, 2), 4, "bfloat16", "cpu")
    assert torch.empty(1, **point.kind).dtype == torch.bfloat16
    assert (point.itemsize, point.on_gpu, str(point)) == (2, False, "H 47, batch 2, cache 512")
