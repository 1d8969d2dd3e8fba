"""How a cache is read in parts."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import torch

from lit_t6.ops import cached_attention, tpa_decode
from lit_t6.ops.splits import Parts, blocks, num_splits, positions

from .seeds import INTERPRETED

CPU = torch.device("cpu")


def test_parts_of_the_cache_fill_the_gpu():
    assert num_splits(1, 132, 4096) == 132
    assert num_splits(16, 132, 4096) == 8  # 128 programs in one wave
    assert num_splits(1, 132, 5) == 5  # no more than there are blocks
    assert num_splits(500, 132, 4096) == 1  # four waves of whole rows
    assert num_splits(16, 264, 64) == 16  # one wave, 33 were two
    assert num_splits(70, 132, 4096) == 7  # nearly full waves, where whole rows would leave half of it idle


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_what_parts_write_begins_at_16_bytes(splits):
    """Triton compiles a kernel again for a pointer that does not."""
    parts = Parts(splits, (1, 1, 3, 16), CPU)
    assert all(x.data_ptr() % 16 == 0 for x in (parts.out, parts.top, parts.total))


def test_a_short_cache_has_small_blocks_and_a_long_one_large_ones():
    """A CPU counts as eight multiprocessors."""
    tokens = {length: blocks(32, 384, 2, 1, length, CPU)["BLOCK_M"] for length in (100, 256, 512, 1024, 2**20)}
    assert tokens == {100: 32, 256: 32, 512: 64, 1024: 128, 2**20: 128}
    assert blocks(32, 384, 2, 16, 100, CPU)["BLOCK_M"] == 128  # other rows keep the GPU busy


@INTERPRETED
@pytest.mark.parametrize(("heads", "tokens"), [(16, 128), (32, 128), (48, 32)])
def test_blocks_of_a_short_cache_of_factors(monkeypatch, heads, tokens):
    plans = []

    def spy(*args, **options):
        plans.append(blocks(*args, **options))
        return plans[-1]

    flash_decode = importlib.import_module("lit_t6.ops.tpa.flash_decode")
    monkeypatch.setattr(flash_decode, "blocks", spy)
    half = torch.float16
    queries = [torch.randn(1, 1, 2, size, dtype=half) for size in (heads, 64)]
    cached = [torch.randn(1, 256, 1, size, dtype=half) for size in (heads, 64)]
    tpa_decode(*queries, *cached, *cached, zero_padding=True, impl="triton")
    assert [plan["BLOCK_M"] for plan in plans] == [tokens]  # 256 tokens for eight multiprocessors: a CPU counts so


@INTERPRETED
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
def test_two_programs_share_a_multiprocessor_over_a_long_cache(monkeypatch, heads, rank, length, plan):
    """If each has room for three blocks of 32 tokens, or of 64 as before."""
    flash_decode = importlib.import_module("lit_t6.ops.tpa.flash_decode")
    plans = []

    def stop(*args, **options):
        plans.append(blocks(*args, **options))
        raise InterruptedError

    monkeypatch.setattr(flash_decode, "blocks", stop)
    half = torch.float16
    queries = [torch.zeros(1, 1, rank, size, dtype=half) for size in (heads, 64)]
    cached = [torch.zeros(1, 1, rank, size, dtype=half).expand(-1, length, -1, -1) for size in (heads, 64)]
    with pytest.raises(InterruptedError):
        tpa_decode(*queries, *cached, *cached, lengths=torch.tensor([length]), zero_padding=True, impl="triton")
    assert [(each["BLOCK_M"], each["NUM_STAGES"]) for each in plans] == [plan]


def test_positions_are_those_that_a_cache_has_room_for():
    cache = torch.zeros(2, 50, 3, 8)
    assert positions(cache[:, :7], None) == 50
    assert positions(torch.zeros(3, 8).expand(2, 40, -1, -1)) == 40  # a static factor
    assert positions(torch.zeros(1, 7, 3, 8), torch.zeros(1, 9, 3, 8)) == 9


@INTERPRETED
@pytest.mark.parametrize("kind", ["tpa", "dense"])
def test_while_a_cache_fills_no_constant_of_a_kernel_changes(kind, monkeypatch):
    """Not even where a plan for as many tokens as there are would have other blocks."""
    module = importlib.import_module(f"lit_t6.ops.{kind}.flash_decode")
    name = f"_{kind}_decode_fwd_kernel"
    kernel, seen = getattr(module, name), []

    class Recorded:
        def __getitem__(self, grid):
            def launch(*arguments, **constants):
                seen.append(constants)
                kernel[grid](*arguments, **constants)

            return launch

    monkeypatch.setattr(module, name, Recorded())
    a, b = torch.randn(1, 1024, 1, 5), torch.randn(1, 1024, 1, 16)
    for length in (1, 40, 300, 900):
        if kind == "tpa":
            tpa_decode(a[:, :1], b[:, :1], *(x[:, :length] for x in (a, b, a, b)), impl="triton")
        else:
            cached_attention(b[:, :1], b[:, :length], b[:, :length], impl="triton")
    assert len(seen) == 4
    assert all(constants == seen[0] for constants in seen)


def _parsed(path):
    return list(ast.walk(ast.parse(path.read_text())))


def _started_early():
    """Kernels that are launched with `**early_start(...)`, and the files that say so."""
    for path in sorted(Path("lit_t6").rglob("*.py")):
        nodes = _parsed(path)
        homes = {
            alias.asname or alias.name: (alias.name, node.module)
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in nodes:
            unpacked = [word.value for word in getattr(node, "keywords", []) if word.arg is None]
            if any(isinstance(x, ast.Call) and ast.unparse(x.func) == "early_start" for x in unpacked):
                assert isinstance(node.func, ast.Subscript), f"{path}, line {node.lineno}: the kernel by its name"
                yield path, *homes[ast.unparse(node.func.value)]


def test_kernels_that_start_early_wait_before_anything_else():
    """Else they read what the kernel before them has not written yet, now and then."""
    launched = list(_started_early())
    assert len(launched) >= 3
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
