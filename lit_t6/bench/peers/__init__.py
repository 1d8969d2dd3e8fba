"""Ways to compute a decode step, one file a family."""

from lit_t6.bench.peers.base import Peer
from lit_t6.bench.peers.ours import OURS
from lit_t6.bench.peers.registry import LIBRARIES, make_peers

__all__ = ["LIBRARIES", "OURS", "Peer", "make_peers"]
