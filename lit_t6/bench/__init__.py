"""Speed beside peers and floors."""

from lit_t6.bench.decode import bench_decode

__all__ = ["bench_decode"]
