"""The T6 language model and how text is drawn from it."""

from lit_t6.model.cache import ModelCache
from lit_t6.model.config import T6Config
from lit_t6.model.decode_step import DecodeStep, StepMode
from lit_t6.model.feed_forward import SwiGLU
from lit_t6.model.generation import Generation, Prompts
from lit_t6.model.recompute import Recompute, check_recompute
from lit_t6.model.sampling import SamplingConfig, sample
from lit_t6.model.t6 import IGNORED_TARGET, T6Model

__all__ = [
    "IGNORED_TARGET",
    "DecodeStep",
    "Generation",
    "ModelCache",
    "Prompts",
    "Recompute",
    "SamplingConfig",
    "StepMode",
    "SwiGLU",
    "T6Config",
    "T6Model",
    "check_recompute",
    "sample",
]
