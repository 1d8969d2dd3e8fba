"""The state of the random number generators that a training may draw from, in what a checkpoint may hold."""

import hashlib
import random
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]


def read_random_state(device: torch.device) -> RandomState:
    """State of the generators of PyTorch (CPU, and `device` if it is a GPU), NumPy and Python: tensors and numbers."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert not isinstance(keys, str)
    version, internal, next_gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(internal), next_gauss],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def write_random_state(state: RandomState, device: torch.device) -> None:
    """Put the generators where `read_random_state` found them; a GPU without a state in it is left alone."""
    torch.set_rng_state(state["torch"].cpu())
    keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, next_gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), next_gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def seed_random_state(seed: int, step: int, rank: int) -> None:
    """Seed all generators of a rank that no state was kept of, by where the run stands."""
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little") >> 1)  # GPUs too
    np.random.seed(int.from_bytes(digest[8:12], "little"))
    random.seed(int.from_bytes(digest[12:20], "little"))
