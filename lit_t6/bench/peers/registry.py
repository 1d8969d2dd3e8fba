"""All peers there are."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lit_t6.bench.mechanisms import MECHANISMS, Dense, Latent
from lit_t6.bench.peers.base import Peer
from lit_t6.bench.peers.flash_infer import FlashInferDecode, FlashInferLatent
from lit_t6.bench.peers.ours import FlashTPA, OurDense
from lit_t6.bench.peers.pytorch import BACKENDS, LAYOUTS, Flex, Fused, Products
from lit_t6.bench.peers.upstream import FUNCTIONS, Upstream

LIBRARIES = ("lit_t6", "upstream", "torch", "flex", "flashinfer")
"""What `--peers` may name."""


def make_peers(libraries: Sequence[str], upstream: dict[str, Path] | None) -> list[Peer]:
    """The peers of some libraries, our own kernel for TPA first and in any case.

    Args:
        libraries: some of `LIBRARIES`.
        upstream: the authors' files, from `find_kernels`, if there are any.
    """
    ours = FlashTPA(MECHANISMS["TPA"])
    return [ours, *(peer for peer in _all(upstream) if peer.library in libraries)]


def _all(upstream: dict[str, Path] | None) -> Iterator[Peer]:
    tpa = MECHANISMS["TPA"]
    for function in FUNCTIONS:
        for by_rank in (False, True):
            yield Upstream(tpa, upstream, function, by_rank)
    for mechanism in MECHANISMS.values():
        if not isinstance(mechanism, Dense):
            continue
        yield OurDense(mechanism)
        for backend in BACKENDS:
            for layout in LAYOUTS:
                yield Fused(mechanism, backend, layout)
        yield Products(mechanism)
        yield Flex(mechanism)
        yield Flex(mechanism, compiled=False)
        if isinstance(mechanism, Latent):
            yield FlashInferLatent(mechanism)
        else:
            yield FlashInferDecode(mechanism, tensor_cores=True)
            yield FlashInferDecode(mechanism, tensor_cores=False)
