"""When a batch does not fit into memory: the largest that does."""

import gc

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from lit_t6.data import TokenDataModule
from lit_t6.training.module import LitT6
from lit_t6.training.sharded import ShardedStrategy

HEADROOM = 0.03
"""Share of a GPU's memory that an advised batch leaves free."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return on_cpu or isinstance(error, torch.OutOfMemoryError | MemoryError)


class StageOfFailure(Callback):
    """Remembers what the trainer was doing when an error ended it; Lightning has forgotten when it raises.

    `evaluating`: whether it was validating, testing or predicting; `device`: where.
    """

    def __init__(self) -> None:
        self.evaluating = False
        self.device = torch.device("cpu")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.evaluating = not trainer.training
        self.device = trainer.strategy.root_device


def explain_out_of_memory(
    module: LitT6, data: TokenDataModule, trainer: L.Trainer, failure: StageOfFailure, message: str
) -> str:
    """What to say of a batch that did not fit: its size, the largest that does, and what to type.

    Args:
        module: that was trained or evaluated; its weights are of no use after this.
        data: that gave the batch.
        trainer: of the run, which has ended.
        failure: what it was doing.
        message: of the error.
    """
    training = not failure.evaluating
    name, size = ("batch_size", data.batch_size) if training else ("eval_batch_size", data.eval_batch_size)
    seq_len = data.seq_len or module.config.max_seq_len
    refused = f"data.{name}={size} sequences of {seq_len} tokens do not fit into the memory of {failure.device}"
    if isinstance(trainer.strategy, ShardedStrategy):  # no rank can take a step by itself
        return f"{refused}, in {trainer.world_size} shards of the model: take a smaller --data.{name}."
    trainer.strategy._optimizers = []  # their states would take the room that is measured
    release_memory(module)
    print(f"Out of memory: {message}\nLooking for the largest batch that fits ...", flush=True)
    largest = largest_batch(module, size, seq_len, trainer, failure.device, training=training)
    recomputes = training and module.hparams["recompute"] != "none"
    if not largest:
        or_recompute = ", or --model.recompute full" if training and not recomputes else ""
        return f"{refused}, nor does a single one: take a smaller model or a smaller --data.seq_len{or_recompute}."
    advice = f"{refused}; the largest that does is {largest}: --data.{name} {largest}."
    if training and data.global_batch_size is None:
        advice += (
            f" With --data.global_batch_size {size * trainer.world_size} a step takes as many as before, in parts."
        )
    if training and not recomputes:
        advice += " --model.recompute selective makes room for more in a batch."
    return advice


def largest_batch(
    module: LitT6, below: int, seq_len: int, trainer: L.Trainer, device: torch.device, *, training: bool
) -> int:
    """The largest batch that fits, found by taking steps on random tokens. The module's weights are of no use after it.

    Args:
        module: what is trained, or evaluated.
        below: a batch that does not fit.
        seq_len: T.
        trainer: its precision counts, and whether there are other devices, whose gradients need buffers.
        device: where to try.
        training: whether gradients and the optimizer have to fit too.

    Returns:
        0 if not even one sequence fits.
    """
    if device.type == "cuda":  # a whole training cuts its memory up a little more than the steps tried here
        torch.cuda.set_per_process_memory_fraction(1 - HEADROOM, device)
    try:
        return _search(module, below, seq_len, trainer, device, training=training)
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)


def _search(
    module: LitT6, below: int, seq_len: int, trainer: L.Trainer, device: torch.device, *, training: bool
) -> int:
    fits, fails = 0, below
    while fails - fits > 1:
        middle = 1 if fits == 0 and fails == below else (fits + fails) // 2  # a single sequence first
        if _fits(module, middle, seq_len, trainer, device, training=training):
            fits = middle
        elif middle == 1:
            return 0
        else:
            fails = middle
    return fits


def _fits(
    module: LitT6, batch_size: int, seq_len: int, trainer: L.Trainer, device: torch.device, *, training: bool
) -> bool:
    try:
        module.to(device)
        tokens = torch.randint(module.config.vocab_size, (batch_size, seq_len), device=device)
        if training:
            _train(module, tokens, trainer)
        else:
            held = _train(module, tokens[:1], trainer) if trainer.state.fn == "fit" else []
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                module.model.loss(tokens, tokens, reduction="none")
            del held
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        release_memory(module)
    return True


def _train(module: LitT6, tokens: torch.Tensor, trainer: L.Trainer) -> list[object]:
    """Two steps, as Lightning takes them: the second finds the memory that the first has cut up, and its leavings.

    Returns:
        What a training holds between its steps, beside weights and gradients.
    """
    optimizer = module.optimizer_config.build(module.parameters(), fused=trainer.precision != "16-mixed")
    buckets = [torch.empty_like(p) for p in module.parameters()] if trainer.world_size > 1 else []
    for _ in range(2):
        with trainer.precision_plugin.forward_context():
            loss = module._loss(tokens, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [optimizer, buckets]


def release_memory(module: torch.nn.Module) -> None:
    """Give up gradients and what the allocator keeps."""
    for parameter in module.parameters():
        parameter.grad = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
