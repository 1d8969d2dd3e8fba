"""Records of TensorBoard's event files, as bytes and back; without PyTorch, for those who only read curves."""

import io
import struct
from collections.abc import Iterator

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

VERSION = "brain.Event:2"
"""What the first event of a file says."""


def as_record(event: Event) -> bytes:
    """An event as it stands in a file, with its length and checksums."""
    written = io.BytesIO()
    RecordWriter(written).write(event.SerializeToString())
    return written.getvalue()


def frames(content: bytes) -> Iterator[tuple[bytes, Event]]:
    """Every whole record with its frame: the length in 8 bytes, their checksum in 4, the event, its checksum in 4."""
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        end = at + 12 + length + 4
        if end > len(content):  # what a killed process was writing
            return
        yield content[at:end], Event.FromString(content[at + 12 : end - 4])
        at = end
