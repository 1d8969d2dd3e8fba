"""Triton kernels of the cross-entropy."""
