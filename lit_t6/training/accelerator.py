"""What Lightning is asked to compute on: is it there, and in which precision does it compute."""

from typing import Any

import torch

from lit_t6.command_line.trainers import has_transformer_engine

_GPU = ("gpu", "cuda")


def choose_precision(accelerator: str, asked: Any) -> Any:
    """The trainer's precision: bfloat16 on GPUs that have it, unless another was asked for.

    Args:
        accelerator: as Lightning's Trainer takes it.
        asked: the precision that the user wants, None for any.

    Returns:
        A precision as Lightning's Trainer takes it; None is its default, float32.

    Raises:
        ValueError: a GPU was asked for, and there is none, or a precision whose package is not installed.
    """
    if str(asked).startswith("transformer-engine") and not has_transformer_engine():
        raise ValueError(
            f"trainer.precision={asked}: needs NVIDIA's package transformer_engine, which is not installed. Use "
            f"--trainer.precision bf16-mixed, or install it."
        )
    if accelerator in _GPU and not torch.cuda.is_available():
        why = "a build without CUDA" if torch.version.cuda is None else "no GPU, or no working driver"
        raise ValueError(
            f"trainer.accelerator={accelerator}: PyTorch {torch.__version__} sees no GPU here ({why}). Use "
            f"--trainer.accelerator cpu, or mend that."
        )
    if asked is not None or accelerator not in (*_GPU, "auto") or not torch.cuda.is_available():
        return asked
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else None
