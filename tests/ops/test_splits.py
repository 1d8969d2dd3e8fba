"""How a cache is read in parts."""

import ast
import re
from pathlib import Path

import pytest
import torch

from lit_t6.ops import cached_attention, tpa_decode
from lit_t6.ops.launch import Launch
from lit_t6.ops.splits import blocks, num_splits, positions

from .seeds import INTERPRETED

CPU = torch.device("cpu")


def test_parts_of_the_cache_fill_the_gpu():
    assert num_splits(1, 132, 4096) == 132
    assert num_splits(16, 132, 4096) == 8  # 128 programs in one wave
    assert num_splits(1, 132, 5) == 5  # no more than there are blocks
    assert num_splits(500, 132, 4096) == 1  # four waves of whole rows
    assert num_splits(16, 264, 64) == 16  # one wave, 33 were two
    assert num_splits(70, 132, 4096) == 7  # nearly full waves, where whole rows would leave half of it idle


def test_a_short_cache_has_small_blocks_and_a_long_one_large_ones():
    """A CPU counts as eight multiprocessors."""
    tokens = {length: blocks(32, 384, 2, 1, length, CPU)["BLOCK_M"] for length in (100, 256, 512, 1024, 2**20)}
    assert tokens == {100: 32, 256: 32, 512: 64, 1024: 128, 2**20: 128}
    assert blocks(32, 384, 2, 16, 100, CPU)["BLOCK_M"] == 128  # other rows keep the GPU busy


def test_positions_are_those_that_a_cache_has_room_for():
    cache = torch.zeros(2, 50, 3, 8)
    assert positions(cache[:, :7], None) == 50
    assert positions(torch.zeros(3, 8).expand(2, 40, -1, -1)) == 40  # a static factor
    assert positions(torch.zeros(1, 7, 3, 8), torch.zeros(1, 9, 3, 8)) == 9


@INTERPRETED
@pytest.mark.parametrize("kind", ["tpa", "dense"])
def test_while_a_cache_fills_no_constant_of_a_kernel_changes(kind, monkeypatch):
    """Not even where a plan for as many tokens as there are would have other blocks."""
    seen = []
    first = Launch.first

    def spy(launch, *changing):
        seen.append((launch, launch._grid, launch._values))
        first(launch, *changing)

    monkeypatch.setattr(Launch, "first", spy)
    a, b = torch.randn(1, 1024, 1, 5), torch.randn(1, 1024, 1, 16)
    for length in (1, 40, 300, 900):
        if kind == "tpa":
            tpa_decode(a[:, :1], b[:, :1], *(x[:, :length] for x in (a, b, a, b)), impl="triton")
        else:
            cached_attention(b[:, :1], b[:, :length], b[:, :length], impl="triton")
    assert len(seen) == 8  # reading and merging
    assert seen[2:] == seen[:2] * 3  # the very same ones: nothing is planned again


def _parsed(path):
    return list(ast.walk(ast.parse(path.read_text())))


def _started_early():
    """Kernels that may be launched early, by `**early_start(...)` or a `Launch`, and the files that say so."""
    for path in sorted(Path("lit_t6").rglob("*.py")):
        nodes = _parsed(path)
        homes = {
            alias.asname or alias.name: (alias.name, node.module)
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in (n for n in nodes if isinstance(n, ast.Call)):
            if ast.unparse(node.func) in ("Launch", "DecodePlan"):  # which have the kernel as an argument
                kernel = node.args[0]
            elif any(_is_early_start(word) for word in node.keywords):
                assert isinstance(node.func, ast.Subscript), f"{path}, line {node.lineno}: the kernel by its name"
                kernel = node.func.value
            else:
                continue
            if ast.unparse(kernel) != "kernel":  # a `DecodePlan` hands its own on
                yield path, *homes[ast.unparse(kernel)]


def _is_early_start(word):
    return word.arg is None and isinstance(word.value, ast.Call) and ast.unparse(word.value.func) == "early_start"


def test_kernels_that_start_early_wait_before_anything_else():
    """Else they read what the kernel before them has not written yet, now and then."""
    launched = list(_started_early())
    names = {name for _, name, _ in launched}
    assert names >= {"_tpa_decode_fwd_kernel", "_dense_decode_fwd_kernel", "_merge_kernel", "_token_linear_kernel"}
    for path, name, module in launched:
        home = Path(*module.split(".")).with_suffix(".py")
        (kernel,) = [n for n in _parsed(home) if isinstance(n, ast.FunctionDef) and n.name == name]
        body = kernel.body[1:] if ast.get_docstring(kernel) else kernel.body
        lines = [ast.unparse(line) for line in body]
        if lines[0] == "_let_next_start(EARLY)":  # what it reads before it waits is written by no kernel of a step
            before = "\n".join(lines[: lines.index("_wait_for_last(EARLY)")])
            assert set(re.findall(r"\w+_ptr", before)) == {"weight_ptr"}, f"{home}: {name} reads before it waits"
        else:
            assert lines[0] == "_start_early(EARLY)", f"{home}: {name}, which {path} starts early"
