"""Training, evaluation and use of a T6 model through Lightning."""

from lit_t6.training.callbacks import DocumentLossWriter, ValidateAtEnd
from lit_t6.training.checkpoint import Checkpoint, read_checkpoint
from lit_t6.training.diagnostics import FactorDiagnostics
from lit_t6.training.generate import generate_text
from lit_t6.training.metrics import LanguageModelMetrics
from lit_t6.training.module import LitT6
from lit_t6.training.optimizer import OptimizerConfig
from lit_t6.training.progress import TrainingProgress
from lit_t6.training.samples import SampleWriter
from lit_t6.training.start_panel import StartPanel
from lit_t6.training.streaming import stream_text
from lit_t6.training.tensorboard_pages import TensorBoardPages
from lit_t6.training.throughput import Throughput

__all__ = [
    "Checkpoint",
    "DocumentLossWriter",
    "FactorDiagnostics",
    "LanguageModelMetrics",
    "LitT6",
    "OptimizerConfig",
    "SampleWriter",
    "StartPanel",
    "TensorBoardPages",
    "Throughput",
    "TrainingProgress",
    "ValidateAtEnd",
    "generate_text",
    "read_checkpoint",
    "stream_text",
]
