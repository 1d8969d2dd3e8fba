"""What kernels must know of the device that they run on."""

import functools
import os
from contextlib import AbstractContextManager, nullcontext

import torch

SHARED_MEMORY = 200_000
"""Bytes of a multiprocessor that a program may plan with."""


def no_gpu(device: torch.device) -> str | None:
    """Why kernels do not run on a device, or None if they do."""
    if device.type != "cuda" and not interpreted():
        return f"tensors on {device}, expected a GPU (or TRITON_INTERPRET=1 before the start)"
    return None


def interpreted() -> bool:
    """Whether Triton runs its kernels on a CPU, as TRITON_INTERPRET=1 asks."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def is_current(device: torch.device) -> bool:
    """Whether kernels are started where a tensor is, if nothing is done about it."""
    return device.type != "cuda" or device.index == torch.cuda.current_device()


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Kernels are started on a device in it: Triton takes the current one, wherever tensors are."""
    return nullcontext() if is_current(device) else torch.cuda.device(device)


@functools.cache
def num_multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 8
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may plan with: a GPU's own less a little, at most `SHARED_MEMORY`."""
    if device.type != "cuda":
        return SHARED_MEMORY
    own = getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", SHARED_MEMORY)
    return min(SHARED_MEMORY, own - 8192)


@functools.cache
def early_start(device: torch.device) -> dict[str, bool]:
    """How kernels that call `_start_early` are launched: from Hopper on, before the last one has ended."""
    can = device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)
    return {"EARLY": True, "launch_pdl": True} if can else {"EARLY": False}
