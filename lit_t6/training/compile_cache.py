"""Where compiled code is kept, so that the next run of the same model begins at once."""

import os
import stat
import tempfile
from pathlib import Path

from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from lit_t6.training.places import expand

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_PROBE_BYTES = 1 << 20


def keep_compiled_code() -> None:
    """Have torch.compile keep what it compiles in the user's folder of caches; its own folder is a temporary one.

    That is `$XDG_CACHE_HOME/lit_t6/inductor`, or `~/.cache/lit_t6/inductor` without that variable; its Triton kernels
    go there too, or where TRITON_CACHE_DIR says. Where TORCHINDUCTOR_CACHE_DIR is set, or the folder cannot be made or
    written to, has no space, or is one that others may write to, nothing changes. To be called before anything is
    compiled; later processes inherit it.
    """
    if os.environ.get(_VARIABLE, default_cache_dir()) != default_cache_dir():  # PyTorch sets it when it is loaded
        return
    ours = Path(expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "lit_t6").absolute()
    folder = ours / "inductor"
    try:
        ours.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not (_is_mine_alone(ours) and _is_mine_alone(folder)):
            return
        _try_to_write(folder)
    except OSError:
        return
    os.environ[_VARIABLE] = str(folder)


def _is_mine_alone(folder: Path) -> bool:
    """Whether nobody else writes there: what is kept is code that will be run."""
    status = folder.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _try_to_write(folder: Path) -> None:
    """Write what a compiled model takes at least: on a full disk, or over a quota, compiling would end the training.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(os.urandom(_PROBE_BYTES))  # nothing that a file system would make smaller
        probe.flush()
        os.fsync(probe.fileno())  # some count only now
