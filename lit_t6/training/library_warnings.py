"""Warnings of the libraries that train: those that matter in our own words, others as they are, none with its path."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_HIDDEN = (
    # A name that is taken gets a number, and a run that goes on is to find its folder so.
    r"Checkpoint directory .* exists and is not empty",
    # Workers read batches ahead; those are slices of mapped files, which a single process reads faster than steps go.
    r"The '.*' does not have many workers",
    # Curves are written by the count of optimizer steps, over all epochs, and after the last.
    r"The number of training batches .* is smaller than the logging interval",
)
_IN_OUR_WORDS = (
    (
        r"`max_epochs` was not set\. Setting it to (\d+) epochs",
        r"neither trainer.max_steps nor trainer.max_epochs is set: training ends after \1 epochs, and the learning "
        r"rate falls until then.",
    ),
    (
        r"GPU available but not used",
        r"there is a GPU, and it is not used; --trainer.accelerator auto takes it.",
    ),
    (
        r"You passed `Trainer\(accelerator='cpu', precision='16-mixed'\)`",
        r"trainer.precision=16-mixed: a CPU does not train in float16, so this is bf16-mixed.",
    ),
    (
        r"The dirpath has changed from '(.*?)' to '(.*?)'",
        r"checkpoints go to \2 from here on: those in \1 are left alone, and which are the best is found out anew.",
    ),
    (
        r"The loaded checkpoint was produced with Lightning v(\S+), .*your current Lightning version: v(\S+)",
        r"the checkpoint was written with Lightning \1, and this is \2, which is older: if it is refused, update.",
    ),
    (
        r"This DataLoader will create (\d+) worker processes in total\. .* in current system is (\d+)",
        r"data.num_workers=\1, and \2 CPU cores may be used here: fewer workers may be faster.",
    ),
)


@contextmanager
def in_our_words(formats: bool) -> Iterator[None]:
    """Hide the warnings that mean nothing here, and show the others as lines of ours, each once.

    Args:
        formats: whether to do the second: how warnings look is the whole process's.
    """
    for pattern in _HIDDEN:
        warnings.filterwarnings("ignore", message=pattern)
    before, said = warnings.formatwarning, set[str]()

    def format_once(message: Warning | str, *_: object, **__: object) -> str:
        line = f"warning: {_reword(str(message))}\n"
        if line in said:
            return ""
        said.add(line)
        return line

    if formats:
        warnings.formatwarning = format_once
    try:
        yield
    finally:
        warnings.formatwarning = before


def _reword(message: str) -> str:
    text = " ".join(message.split())
    for pattern, ours in _IN_OUR_WORDS:
        if found := re.match(pattern, text):
            return found.expand(ours)
    return text
