"""The authors' own Triton kernels (tensorgi/TPA), which are not part of this package: they are read where they lie.

Letters: B batch, M cached tokens, H heads, D and E head sizes, R rank.
"""

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lit_t6.bench.grid import Point
from lit_t6.bench.mechanisms import Inputs, Mechanism
from lit_t6.bench.peers.base import Peer, not_on_gpu
from lit_t6.bench.timing import Call

ONE_RANK, ANY_RANK = "flashtpa_decode_triton.py", "flashtpa_decode_triton_multi_kvrank.py"
FUNCTIONS = {"bn": "tpa_decode_parallel_bn_triton", "bh": "tpa_decode_parallel_bh_triton"}
"""Split over sequences and the cache; or over sequences and heads, each program walking the whole cache."""
SHORT = 8192
"""Tokens up to which programs that walk the whole cache may be the faster ones."""
LEAST_RANK_Q = 16
"""Triton multiplies at least 16 columns: fewer ranks of queries are filled up with zeros."""


def find_kernels(path: str | Path) -> dict[str, Path]:
    """The authors' files.

    Args:
        path: a folder with them, or above their folder `decode`; or one of the files.

    Returns:
        The files by their names, `ONE_RANK`, for Rk = Rv = 1, and `ANY_RANK`, or one of them.

    Raises:
        ValueError: there is none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        found = {ANY_RANK if "multi" in place.name else ONE_RANK: place}
    else:
        files = [folder / name for name in (ONE_RANK, ANY_RANK) for folder in (place / "decode", place)]
        found = {file.name: file for file in files if file.is_file()}
    if not found:
        raise ValueError(
            f"upstream: {place} holds neither {ONE_RANK} nor {ANY_RANK}; expected a clone of "
            "https://github.com/tensorgi/TPA, or its folder decode."
        )
    return found


@functools.cache
def load(path: Path) -> ModuleType:
    """A module from a file.

    Raises:
        ValueError: it does not offer what is called here.
    """
    spec = importlib.util.spec_from_file_location(f"upstream_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"upstream: {path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [name for name in FUNCTIONS.values() if not hasattr(module, name)]
    if missing:
        raise ValueError(f"upstream: {path} has no function {missing[0]}.")
    return module


class Upstream(Peer):
    """A kernel of the authors'. It is compiled and tuned for every length of the cache.

    Args:
        mechanism: TPA.
        kernels: from `find_kernels`; None if no path was given.
        function: a key of `FUNCTIONS`.
        by_rank: of several ranks, whether the cache is given in the layout that the kernel reads, (B, R, M, ·); else in
            the layout that its call is documented with, which it then copies at every step.
    """

    copies = True

    def __init__(
        self, mechanism: Mechanism, kernels: dict[str, Path] | None, function: str, by_rank: bool = False
    ) -> None:
        super().__init__("upstream", function + (", cache by rank" if by_rank else ""), mechanism)
        self.kernels, self.function, self.by_rank = kernels, function, by_rank

    def why_not(self, point: Point) -> str | None:
        if self.kernels is None:
            return "--upstream does not say where the authors' kernels are"
        one = point.ranks[1:] == (1, 1)
        if self._file(point) is None:
            return f"there is no {ANY_RANK}"
        if self.by_rank and one:
            return "there is one rank only"
        if self.function != "bn" and point.cache > SHORT:
            return f"each program walks the whole cache; tried up to {SHORT:,} tokens"
        return not_on_gpu(point)

    def _file(self, point: Point) -> Path | None:
        assert self.kernels is not None
        one = self.kernels.get(ONE_RANK) if point.ranks[1:] == (1, 1) else None
        return one or self.kernels.get(ANY_RANK)

    def prepare(self, point: Point, sets: Sequence[Inputs]) -> list[Call]:
        file = self._file(point)
        assert file is not None
        decode = getattr(load(file), FUNCTIONS[self.function])
        single = file.name == ONE_RANK
        scale_q = 1 / point.ranks[0]
        return [_call(decode, _arguments(inputs, single, self.by_rank), scale_q) for inputs in sets]


def _call(decode: Callable[..., Tensor], arguments: dict[str, Tensor], scale_q: float) -> Call:
    return lambda: decode(**arguments, scale_q=scale_q)[:, 0]


def _arguments(inputs: Inputs, single: bool, by_rank: bool) -> dict[str, Any]:
    """Queries (B, 1, H, Rq) and (B, 1, Rq, D); caches (B, M, ·), or of several ranks (B, M, ·, R)."""
    fill = max(0, LEAST_RANK_Q - inputs["a_q"].shape[2])
    a_q, b_q = (F.pad(inputs[name], (0, 0, 0, fill)) for name in ("a_q", "b_q"))
    arguments = {"aq": a_q.transpose(2, 3).contiguous(), "bq": b_q}
    for name in ("a_k", "a_v", "b_k", "b_v"):
        x = inputs[name]  # (B, M, R, ·)
        if single:
            x = x[:, :, 0].contiguous()
        elif by_rank:
            x = x.transpose(1, 2).contiguous().permute(0, 2, 3, 1)
        else:
            x = x.transpose(2, 3).contiguous()
        arguments[name.replace("_", "")] = x
    return arguments
