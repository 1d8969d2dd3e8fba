"""Training, evaluation and use of a T6 model through Lightning."""

from lit_t6.training.callbacks import (
    AttentionBackend,
    DocumentLossWriter,
    ExactResume,
    FactorDiagnostics,
    Guards,
    LastingCurves,
    SafeModelCheckpoint,
    SampleWriter,
    SaveForResume,
    SaveOnInterrupt,
    StartPanel,
    TensorBoardPages,
    Throughput,
    TrainingProgress,
    ValidateAtEnd,
)
from lit_t6.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lit_t6.training.checkpoint_files import DamagedCheckpoint
from lit_t6.training.checkpoint_io import CheckpointNotSaved, SafeCheckpointIO
from lit_t6.training.event_file import CurvesNotWritten
from lit_t6.training.generate import generate_text
from lit_t6.training.metrics import LanguageModelMetrics
from lit_t6.training.module import LitT6
from lit_t6.training.optimizer import OptimizerConfig
from lit_t6.training.streaming import TextStream, generate_texts, stream_text
from lit_t6.training.tensorboard_logger import LastingTensorBoardLogger

__all__ = [
    "AttentionBackend",
    "Checkpoint",
    "CheckpointNotSaved",
    "CurvesNotWritten",
    "DamagedCheckpoint",
    "DocumentLossWriter",
    "ExactResume",
    "FactorDiagnostics",
    "Guards",
    "LanguageModelMetrics",
    "LastingCurves",
    "LastingTensorBoardLogger",
    "LitT6",
    "OptimizerConfig",
    "SafeCheckpointIO",
    "SafeModelCheckpoint",
    "SampleWriter",
    "SaveForResume",
    "SaveOnInterrupt",
    "StartPanel",
    "TensorBoardPages",
    "TextStream",
    "Throughput",
    "TrainingProgress",
    "ValidateAtEnd",
    "generate_text",
    "generate_texts",
    "read_checkpoint",
    "stream_text",
    "write_checkpoint",
]
