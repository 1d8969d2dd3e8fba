"""Gradient accumulation that keeps an optimizer step what it is, whatever the number of devices."""

import lightning as L


def batches_of_step(trainer: L.Trainer, batch_size: int, global_batch_size: int | None) -> int:
    """Batches that an optimizer step takes from each device.

    Args:
        trainer: of the training; its devices count.
        batch_size: sequences a device and batch.
        global_batch_size: sequences an optimizer step over all devices; None leaves it to the trainer.

    Raises:
        ValueError: a global batch that the devices do not divide, or that contradicts the trainer.
    """
    if global_batch_size is None:
        return trainer.accumulate_grad_batches
    at_once = batch_size * trainer.world_size
    if global_batch_size % at_once:
        raise ValueError(
            f"data.global_batch_size={global_batch_size} is not a multiple of data.batch_size={batch_size} times "
            f"{trainer.world_size} device(s), {at_once}; change one of them."
        )
    accumulate = global_batch_size // at_once
    if trainer.accumulate_grad_batches not in (1, accumulate):
        raise ValueError(
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} contradicts "
            f"data.global_batch_size={global_batch_size}, which needs {accumulate}; give one of the two."
        )
    return accumulate


def set_accumulation(trainer: L.Trainer, batches: int) -> None:
    """Have an optimizer step take a number of batches; validations stay at the same steps.

    Args:
        trainer: of the training.
        batches: of each device.
    """
    if isinstance(getattr(trainer, "val_check_interval", None), int):  # a time is kept elsewhere
        trainer.val_check_interval *= batches // trainer.accumulate_grad_batches
    trainer.accumulate_grad_batches = batches
