"""What happens beside the training: figures, pictures, texts, a progress bar, checkpoints, also at a signal."""

from lit_t6.training.callbacks.attention_backend import AttentionBackend
from lit_t6.training.callbacks.diagnostics import FactorDiagnostics
from lit_t6.training.callbacks.document_losses import DocumentLossWriter
from lit_t6.training.callbacks.exact_resume import ExactResume
from lit_t6.training.callbacks.gradient_exchange import GradientExchange
from lit_t6.training.callbacks.guards import Guards
from lit_t6.training.callbacks.interrupt import SaveOnInterrupt
from lit_t6.training.callbacks.lasting_curves import LastingCurves
from lit_t6.training.callbacks.model_checkpoint import SafeModelCheckpoint
from lit_t6.training.callbacks.progress import TrainingProgress
from lit_t6.training.callbacks.samples import SampleWriter
from lit_t6.training.callbacks.save_for_resume import SaveForResume
from lit_t6.training.callbacks.start_panel import StartPanel
from lit_t6.training.callbacks.tensorboard_pages import TensorBoardPages
from lit_t6.training.callbacks.throughput import Throughput, is_logging_step
from lit_t6.training.callbacks.validate_at_end import ValidateAtEnd

__all__ = [
    "AttentionBackend",
    "DocumentLossWriter",
    "ExactResume",
    "FactorDiagnostics",
    "GradientExchange",
    "Guards",
    "LastingCurves",
    "SafeModelCheckpoint",
    "SampleWriter",
    "SaveForResume",
    "SaveOnInterrupt",
    "StartPanel",
    "TensorBoardPages",
    "Throughput",
    "TrainingProgress",
    "ValidateAtEnd",
    "is_logging_step",
]
