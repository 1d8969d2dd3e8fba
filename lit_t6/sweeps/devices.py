"""Which GPUs the workers of this machine take."""

import os
import shutil
import subprocess
from collections.abc import Mapping

from lit_t6.processors import cores


def visible_gpus(environment: Mapping[str, str] | None = None) -> list[str]:
    """GPUs of this machine as CUDA_VISIBLE_DEVICES names them, without loading CUDA.

    Args:
        environment: its CUDA_VISIBLE_DEVICES holds, if it is set; that of this process if not given.
    """
    named = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.split() if result.returncode == 0 else []


def share_out(gpus: list[str], per_trial: int, per_gpu: int, workers: int | None) -> list[dict[str, str]]:
    """The variables of each worker's trainings.

    Args:
        gpus: of this machine; none for work on the CPU.
        per_trial: GPUs that a trial takes.
        per_gpu: workers that share a GPU.
        workers: how many; None for as many as the GPUs are for, or one on the CPU.

    Raises:
        ValueError: numbers that do not fit together.
    """
    for name, number in (("workers", 1 if workers is None else workers), ("workers_per_gpu", per_gpu)):
        if number < 1:
            raise ValueError(f"--{name} must be at least 1, got {number}.")
    if not gpus:
        count = workers or 1
        return [_threads(count * per_trial) for _ in range(count)]
    if per_trial > len(gpus):
        raise ValueError(
            f"gpus_per_trial: {per_trial} is more than the GPUs of this machine, {len(gpus)} ({', '.join(gpus)})."
        )
    if per_trial > 1 and per_gpu > 1:
        raise ValueError(
            f"--workers_per_gpu {per_gpu}: trials of {per_trial} GPUs each do not share them; leave it out."
        )
    groups = [gpus[at : at + per_trial] for at in range(0, len(gpus) - per_trial + 1, per_trial)]
    places = [",".join(group) for _ in range(per_gpu) for group in groups]
    count = len(places) if workers is None else workers
    if count > len(places):
        more = (
            f"--workers_per_gpu {-(-count // len(groups))} lets several share one" if per_trial == 1 else "take fewer"
        )
        raise ValueError(f"--workers {count} is more than this machine has GPUs for, {len(places)}; {more}.")
    return [{"CUDA_VISIBLE_DEVICES": place, **_threads(count * per_trial)} for place in places[:count]]


def _threads(processes: int) -> dict[str, str]:
    """Threads of each process that trains, so that all of them have a processor each; what the user has set holds.

    Args:
        processes: of all trials at once; a trial has one a GPU.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores() // processes))}
