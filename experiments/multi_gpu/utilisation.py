"""How busy each GPU is while something else runs."""

import shutil
import signal
import statistics
import subprocess
import tempfile
from types import TracebackType
from typing import Any, Self

_QUERY = "index,uuid,utilization.gpu,memory.used"


class GpuUse:
    """Asks `nvidia-smi` once a second, within a `with`; knows nothing where there is no such program.

    Args:
        visible: numbers or UUIDs of the GPUs that count, as CUDA_VISIBLE_DEVICES has them; None for all.
    """

    def __init__(self, visible: str | None) -> None:
        self._visible = visible
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._output = tempfile.TemporaryFile("w+")
        if shutil.which("nvidia-smi"):
            words = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits", "--loop=1"]
            self._process = subprocess.Popen(words, stdout=self._output, stderr=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait()
        self._output.seek(0)
        self._text = self._output.read()
        self._output.close()

    def by_gpu(self) -> dict[str, dict[str, Any]]:
        """After the end, by the number of a GPU: `percent` of the time in which a kernel ran, and `peak_gib`."""
        return summarised(self._text, self._visible)


def summarised(text: str, visible: str | None = None) -> dict[str, dict[str, Any]]:
    """Lines of `nvidia-smi` by GPU.

    Args:
        text: its lines: number, UUID, percent, MiB.
        visible: as of `GpuUse`.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    wanted = [] if visible is None else [name.strip() for name in visible.split(",")]
    for line in text.splitlines():
        number, *rest = (part.strip() for part in line.split(","))
        uuid, *figures = rest or [""]
        if visible is not None and not any(name == number or (name and uuid.startswith(name)) for name in wanted):
            continue
        try:
            percent, mebibytes = map(float, figures)
        except ValueError:  # a line that was cut, or "[N/A]"
            continue
        found.setdefault(number, []).append((percent, mebibytes))
    return {
        number: {
            "percent": statistics.mean(percent for percent, _ in samples),
            "peak_gib": max(mebibytes for _, mebibytes in samples) / 1024,
            "samples": len(samples),
        }
        for number, samples in sorted(found.items())
    }
