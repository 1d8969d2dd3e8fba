"""Text for TensorBoard's Text page."""

from tensorboard.plugins.text.summary_v2 import text_pb  # type: ignore[import-untyped]
from torch.utils.tensorboard.writer import SummaryWriter


def add_text(writer: SummaryWriter, tag: str, markdown: str, step: int = 0) -> None:
    """Write Markdown under a tag; SummaryWriter.add_text would append to the tag and draw a second frame."""
    writer._get_file_writer().add_summary(text_pb(tag, markdown), step)


def as_code(text: str) -> str:
    """Markdown that shows a text letter by letter."""
    return "\n".join("    " + line for line in text.splitlines())
