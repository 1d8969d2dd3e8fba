import pytest
import torch

from experiments.decode_speed import least


def test_the_kernels_read_all_of_it():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    blocks = torch.cat([x, x.new_zeros(3 * 2048 - 5000)]).view(3, 2048)
    torch.testing.assert_close(least.sums(x, 2048), blocks.sum(1))
    torch.testing.assert_close(least.total(x, 2048), x.sum()[None])


def test_the_table_has_a_row_for_each_point(monkeypatch, capsys):
    monkeypatch.setattr(least, "BLOCKS", (2048,))
    assert least.main(["--num_heads", "16", "--batch", "1", "2", "--cache", "64", "--device=cpu"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| heads | batch, cache | MB | one kernel, µs | two, µs |"
    assert [row.split("|")[1:4] for row in rows] == [[" 16 ", " 1, 64 ", " 0.02 "], [" 16 ", " 2, 64 ", " 0.04 "]]


def test_a_kernel_that_reads_something_else_has_no_time(monkeypatch):
    monkeypatch.setattr(least, "sums", lambda x, block: x[:block].sum()[None])
    with pytest.raises(ValueError, match="blocks of 2048: another sum"):
        least.least_ms(40_000, "cpu")


def test_a_cache_of_any_size_is_not_read_by_two_kernels(capsys):
    assert least.main(["--num_heads", "16", "--batch", "16", "--cache", "524288", "--device=cpu"]) == 1
    assert "error: a cache of 2,684,354,560 bytes: expected 4 to 268,435,456" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert least.main(["--device=cpu"]) == 1
    assert "expected a GPU" in capsys.readouterr().err
