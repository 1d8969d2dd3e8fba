"""Kernels that several operators launch."""
