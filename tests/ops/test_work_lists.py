"""How rows of tiles are dealt out to programs."""

import pytest
import torch

from lit_t6.ops.dense.work_lists import deal, dealt


@pytest.mark.parametrize(
    ("rows", "heads", "programs"), [(8, 940, 132), (8, 940, 114), (64, 34, 132), (16, 94, 132), (1, 5, 132), (3, 1, 8)]
)
def test_every_row_is_dealt_once_and_shares_are_even(rows, heads, programs):
    lengths = [2.0 * (rows - row) for row in range(rows)]
    shares = deal(lengths, heads, programs)
    assert len(shares) == programs
    every = [which for share in shares for which in share]
    assert sorted(every) == [(head, row) for head in range(heads) for row in range(rows)]
    tiles = [sum(lengths[row] for _, row in share) for share in shares]
    if rows * heads > 10 * programs:
        assert max(tiles) < 1.03 * sum(tiles) / programs


@pytest.mark.parametrize(("rows", "heads", "programs"), [(8, 940, 132), (8, 320, 132), (64, 272, 132), (1, 300, 132)])
def test_a_heads_longest_row_is_done_before_its_others_begin(rows, heads, programs):
    lengths = [2.0 * (rows - row) for row in range(rows)]
    shares = deal(lengths, heads, programs, programs)
    assert sorted(which for share in shares for which in share) == [
        (head, row) for head in range(heads) for row in range(rows)
    ]
    waited = run_through(shares, lengths)
    assert waited < 1e-3 * sum(lengths) * heads


@pytest.mark.parametrize("lead", [0, 1, 8, 132])
@pytest.mark.parametrize(
    ("rows", "heads", "programs"), [(8, 940, 132), (64, 272, 132), (3, 5, 132), (16, 40, 8), (5, 9, 4)]
)
def test_who_waits_for_a_heads_longest_row_does_not_wait_for_ever(rows, heads, programs, lead):
    lengths = [2.0 * (rows - row) for row in range(rows)]
    assert run_through(deal(lengths, heads, programs, lead), lengths) >= 0


def run_through(shares, lengths):
    """How long programs wait in all, if rows behind a head's first one wait until that is done; all come to an end."""
    done, now, at, waited = {}, [0.0] * len(shares), [0] * len(shares), 0.0
    while any(place < len(share) for place, share in zip(at, shares, strict=True)):
        before = sum(at)
        for program, share in enumerate(shares):
            while at[program] < len(share):
                head, row = share[at[program]]
                if row and (head, 0) not in done:
                    break
                begins = max(now[program], done[head, 0]) if row else now[program]
                waited += begins - now[program]
                now[program] = done[head, row] = begins + lengths[row]
                at[program] += 1
        assert sum(at) > before, "all wait for each other"
    return waited


def test_a_list_is_laid_out_as_the_kernels_read_it():
    starts, every = dealt(torch.device("cpu"), (1.0, 2.0), 3, 4)
    assert starts.dtype == every.dtype == torch.int32
    found = []
    for start in starts.tolist():
        at = start
        while every[at, 0] >= 0:
            found.append(tuple(every[at].tolist()))
            at += 1
    assert sorted(found) == [(head, row) for head in range(3) for row in range(2)]
