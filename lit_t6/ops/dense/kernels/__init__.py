"""Triton kernels, one stage a file; what starts them stands beside this folder."""
