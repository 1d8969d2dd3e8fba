"""Training, evaluation and use of a T6 model through Lightning."""

from typing import TYPE_CHECKING

from lit_t6.lazy_names import lazy_names

if TYPE_CHECKING:
    from lit_t6.training.callbacks import (
        AttentionBackend,
        DocumentLossWriter,
        ExactResume,
        FactorDiagnostics,
        GradientExchange,
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
    from lit_t6.training.sharded import ShardedStrategy
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
    "GradientExchange",
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
    "ShardedStrategy",
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

_HOMES = {
    "AttentionBackend": "lit_t6.training.callbacks",
    "Checkpoint": "lit_t6.training.checkpoint",
    "CheckpointNotSaved": "lit_t6.training.checkpoint_io",
    "CurvesNotWritten": "lit_t6.training.event_file",
    "DamagedCheckpoint": "lit_t6.training.checkpoint_files",
    "DocumentLossWriter": "lit_t6.training.callbacks",
    "ExactResume": "lit_t6.training.callbacks",
    "FactorDiagnostics": "lit_t6.training.callbacks",
    "GradientExchange": "lit_t6.training.callbacks",
    "Guards": "lit_t6.training.callbacks",
    "LanguageModelMetrics": "lit_t6.training.metrics",
    "LastingCurves": "lit_t6.training.callbacks",
    "LastingTensorBoardLogger": "lit_t6.training.tensorboard_logger",
    "LitT6": "lit_t6.training.module",
    "OptimizerConfig": "lit_t6.training.optimizer",
    "SafeCheckpointIO": "lit_t6.training.checkpoint_io",
    "SafeModelCheckpoint": "lit_t6.training.callbacks",
    "SampleWriter": "lit_t6.training.callbacks",
    "SaveForResume": "lit_t6.training.callbacks",
    "SaveOnInterrupt": "lit_t6.training.callbacks",
    "ShardedStrategy": "lit_t6.training.sharded",
    "StartPanel": "lit_t6.training.callbacks",
    "TensorBoardPages": "lit_t6.training.callbacks",
    "TextStream": "lit_t6.training.streaming",
    "Throughput": "lit_t6.training.callbacks",
    "TrainingProgress": "lit_t6.training.callbacks",
    "ValidateAtEnd": "lit_t6.training.callbacks",
    "generate_text": "lit_t6.training.generate",
    "generate_texts": "lit_t6.training.streaming",
    "read_checkpoint": "lit_t6.training.checkpoint",
    "stream_text": "lit_t6.training.streaming",
    "write_checkpoint": "lit_t6.training.checkpoint",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)  # `generate --help` waits for neither PyTorch nor Lightning
