"""How a decode step of FlashTPA is cut on a GPU of 132 multiprocessors."""

import pytest
import torch

from lit_t6.ops import splits
from lit_t6.ops.tpa import decode_sizes
from lit_t6.ops.tpa.decode_sizes import Sizes


@pytest.fixture
def cut(monkeypatch):
    """Programs of a step, tokens of a block, blocks read ahead, and whether a program reads all at once."""
    for module in (splits, decode_sizes):
        monkeypatch.setattr(module, "num_multiprocessors", lambda device: 132)

    def sizes(heads, ranks, batch, length):
        rows = max(16, 1 << (heads - 1).bit_length())
        nbytes = 2 * sum(ranks) * (64 + rows)
        found = Sizes(rows > 32, rows, nbytes, 2, batch, length, torch.device("cpu"))
        how = found.constants
        return batch * found.splits, how["BLOCK_M"], how["NUM_STAGES"], how["ONE_BLOCK"]

    return sizes


@pytest.mark.parametrize(
    ("heads", "length", "expected"),
    [
        (16, 512, (32, 16, 3, True)),
        (16, 1024, (32, 32, 3, True)),
        (32, 2048, (32, 64, 3, True)),
        (32, 4096, (64, 64, 3, True)),
        (32, 8192, (64, 128, 3, False)),
        (48, 512, (32, 16, 3, False)),
        (48, 4096, (64, 64, 3, False)),
        (48, 8192, (128, 32, 5, False)),
    ],
)
def test_a_short_cache_has_small_parts_of_one_block(cut, heads, length, expected):
    assert cut(heads, (1, 1), 1, length) == expected


def test_a_block_that_registers_do_not_hold_is_not_read_at_once(cut):
    assert cut(32, (1, 1), 1, 4096) == (64, 64, 3, True)
    assert cut(32, (2, 2), 1, 4096) == (64, 64, 3, False)


@pytest.mark.parametrize(
    ("batch", "length", "programs"),
    [
        (1, 16384, 128),
        (4, 8192, 128),
        (4, 16384, 132),
        (16, 4096, 128),
        (16, 8192, 128),
        (1, 65536, 264),
        (16, 16384, 256),
    ],
)
def test_programs_of_few_blocks_have_a_multiprocessor_each(cut, batch, length, programs):
    """Two would find room on one."""
    assert cut(48, (1, 1), batch, length)[0] == programs


@pytest.mark.parametrize(
    ("heads", "rank", "length", "plan"),
    [
        (34, 2, 2**17, (64, 3)),
        (34, 2, 2**18, (32, 3)),
        (47, 2, 2**18, (32, 3)),
        (48, 1, 2**18, (64, 3)),
        (34, 3, 2**18, (32, 3)),
    ],
)
def test_two_programs_share_a_multiprocessor_over_a_long_cache(cut, heads, rank, length, plan):
    """If each has room for three blocks of 32 tokens, or of 64 as before."""
    assert cut(heads, (rank, rank), 1, length)[1:3] == plan
