"""Speed beside peers and floors."""

from lit_t6.bench.decode import bench_decode
from lit_t6.bench.train import bench_train

__all__ = ["bench_decode", "bench_train"]
