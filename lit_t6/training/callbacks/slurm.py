"""What a job asks of SLURM."""

import os
import subprocess

from lit_t6.training.messages import say


def requeue_job() -> None:
    """Let SLURM start this job again; what became of that is printed.

    A job that cannot be requeued has saved its checkpoint all the same.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")
    command = ["scontrol", "requeue", job]
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        say(f"{' '.join(command)}: {error}; submit the job again to go on.")
        return
    said = "the job will run again" if status == 0 else f"failed with status {status}; submit the job again to go on"
    say(f"{' '.join(command)}: {said}.")
