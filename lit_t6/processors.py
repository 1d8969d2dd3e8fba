"""The processor's cores that are there for this process."""

import os


def cores() -> int:
    """Cores that this process may use: of a container or a share of a machine, fewer than it has."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
