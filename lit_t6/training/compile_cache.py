"""Where compiled code is kept, so that the next run of the same model begins at once."""

import os
from pathlib import Path

from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from lit_t6.training.places import expand

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_code() -> None:
    """Have torch.compile keep what it compiles in the user's folder of caches; its own folder is a temporary one.

    That is `$XDG_CACHE_HOME/lit_t6/inductor`, or `~/.cache/lit_t6/inductor` without that variable; its Triton kernels
    go there too, or where TRITON_CACHE_DIR says. Where TORCHINDUCTOR_CACHE_DIR is set, or the folder cannot be made or
    written to, nothing changes. To be called before anything is compiled; later processes inherit it.
    """
    if os.environ.get(_VARIABLE, default_cache_dir()) != default_cache_dir():  # PyTorch sets it when it is loaded
        return
    folder = Path(expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "lit_t6", "inductor").absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # code that will be run: nobody else writes there
    except OSError:
        return
    if os.access(folder, os.W_OK | os.X_OK):
        os.environ[_VARIABLE] = str(folder)
