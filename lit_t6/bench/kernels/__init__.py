"""Kernels that only measure."""
