"""TensorBoard's event files, cut back to a checkpoint, so that steps that are computed again are drawn once."""

import os
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from lit_t6.training.event_records import frames
from lit_t6.whole_files import replace_bytes

OVER_TOKENS = "_over_tokens"
"""Tags that end so have tokens, not steps, on their horizontal axis."""


_WRITTEN_AT_EVERY_START = (
    "run/configuration",
    "run/model",
    "custom_scalars__config__",
    "_hparams_/",
    "cache/bytes_per_token",
)
_OF_A_RUN = {"config.yaml", "hparams.yaml", "run.lock"}
"""Files that only the folder of a run holds, or that of its curves."""
_OF_A_VALIDATION = ("val/", "factors/", "samples/", "epoch")


def trim_curves(folder: Path, step: int, tokens: int, validated: bool = True) -> None:
    """Remove the points that a run logged after a checkpoint, and what it writes again when it starts.

    Args:
        folder: of the run's curves; every event file in it, or in a folder in it that is not of another run, is read,
            and replaced if it holds such points.
        step: optimizer steps done at the checkpoint; points are logged under the step before, counted from 0.
        tokens: trained on at the checkpoint.
        validated: false where a validation at the checkpoint's step is still to come, or to be done again.
    """
    for path in _event_files(folder):
        content = path.read_bytes()
        records = list(frames(content))
        kept = b"".join(frame for frame, event in records if not _is_later(event, step, tokens, validated))
        if len(kept) < len(content):
            replace_bytes(path, kept)


def _event_files(folder: Path) -> Iterator[Path]:
    for at, inside, names in os.walk(folder):
        if Path(at) != folder and not _OF_A_RUN.isdisjoint(names):
            inside.clear()
            continue
        yield from (Path(at) / name for name in sorted(names) if name.startswith("events.out.tfevents."))


def _is_later(event: Event, step: int, tokens: int, validated: bool) -> bool:
    tags = [value.tag for value in event.summary.value]
    if not validated and tags and all(tag.startswith(_OF_A_VALIDATION) for tag in tags):
        step, tokens = step - 1, tokens - 1
    if tags and all(tag.startswith(_WRITTEN_AT_EVERY_START) for tag in tags):
        return True
    if tags and all(tag.endswith(OVER_TOKENS) for tag in tags):
        return event.step > tokens
    return bool(tags) and event.step >= step
