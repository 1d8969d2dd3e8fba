"""A process of its own for each case: nothing compiled, cached or allocated for one is there for another."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lit_t6.bench.training.case import Case

PACKAGE = Path(__file__).parents[3]
"""Where `lit_t6` lies."""
LOG_CHARACTERS = 4000
"""How much of the end of a failed process's output is kept."""


def run_case(case: Case, seconds: float) -> dict[str, Any]:
    """Measure a case in a new process.

    Args:
        case: what is measured.
        seconds: it may take; then it is killed.

    Returns:
        What `worker.measure` returns; of a process that died or was killed, `status` "failed" and `why`. Unless it was
        timed, `log`, the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="lit_t6_bench_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        source, target, log = folder / "case.json", folder / "found.json", folder / "log"
        source.write_text(json.dumps(case.to_dict()))
        words = [sys.executable, "-m", "lit_t6.bench.training.worker", str(source), str(target)]
        with log.open("wb") as output:
            status = wait_for(words, _environment(folder), output, seconds)
        if status is not None and target.exists():
            found: dict[str, Any] = json.loads(target.read_text())
        else:
            found = {"status": "failed", "why": _reason(status, seconds)}
        if found["status"] != "timed":
            found["log"] = log.read_text(errors="replace")[-LOG_CHARACTERS:]
        return found


def _environment(folder: Path) -> dict[str, str]:
    """That of this process, with compilers' caches that are empty, and our package found wherever it lies."""
    paths = [str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])]
    caches = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"), "TRITON_CACHE_DIR": str(folder / "triton")}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **caches}


def wait_for(
    words: list[str], environment: dict[str, str], output: Any, seconds: float, folder: Path | None = None
) -> int | None:
    """Run a program; whatever ends this wait ends it, and the processes that it started.

    Args:
        words: of its command line.
        environment: of it.
        output: file of all that it prints.
        seconds: it may take.
        folder: that it works in; this process's if not given.

    Returns:
        The exit status; None if it took too long.
    """
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _reason(status: int | None, seconds: float) -> str:
    if status is None:
        return f"it took longer than {seconds:g} s and was killed"
    if status < 0:
        return f"the process died of {signal.Signals(-status).name}"
    return f"the process ended with status {status}"
