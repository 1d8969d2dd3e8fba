"""Fully sharded training: every rank keeps a part of the weights, gradients and optimizer states (FSDP2)."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
import torch.distributed as dist
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from lit_t6.model import T6Model
from lit_t6.training.checkpoint_io import SafeCheckpointIO
from lit_t6.training.checkpoint_shards import folder_to_fill, move_into_place, separate, write_shard

StateDictType = Literal["full", "sharded"]


class ShardedStrategy(DDPStrategy):
    """Lightning strategy: what `--trainer.strategy fsdp` means, on GPUs and, over gloo, on CPUs.

    PyTorch's `fully_shard` around each block of the model and around the rest. A rank keeps its rows of each weight, of
    its gradient and of its optimizer states; a block's weights are gathered when it runs. What is computed is what one
    device would compute: weights are gathered in their own precision, and the trainer's precision does the rest. The
    model is built whole on every rank first, and rank 0's weights count.

    In gradient accumulation a rank keeps whole gradients up to the step, and ranks exchange them there once.

    Lightning's own FSDPStrategy wraps FSDP1, which needs GPUs, knows no norm of a whole gradient without its own
    clipping, and saves shards in a format that is run when it is read.

    Args:
        state_dict_type: "full" gathers each checkpoint on rank 0, in one file as of a single device; "sharded" has each
            rank write its part into a folder that all of them see. Either is gone on from with any number of devices
            and any strategy; `python cli.py convert --from shards` makes one file of a folder.
        reshard_after_forward: free a block's gathered weights between its forward and backward pass, and gather them
            once more; false is faster and takes the memory of all weights.
        **options: of Lightning's DDPStrategy: `process_group_backend`, `timeout` and its like.

    Raises:
        ValueError: an unknown `state_dict_type`.
    """

    def __init__(
        self, state_dict_type: StateDictType = "full", reshard_after_forward: bool = True, **options: Any
    ) -> None:
        if state_dict_type not in ("full", "sharded"):
            raise ValueError(f"state_dict_type={state_dict_type!r}: expected 'full' or 'sharded'.")
        super().__init__(**options)
        self.state_dict_type, self.reshard_after_forward = state_dict_type, reshard_after_forward

    def setup(self, trainer: L.Trainer) -> None:
        """Shard the model, and let the optimizer be built for its shards."""
        assert self.accelerator is not None
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        self._setup_model(self.model)
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if trainer.state.fn == TrainerFn.FITTING:
            _optimizers_to_device(self.optimizers, self.root_device)

    def _setup_model(self, model: torch.nn.Module) -> Any:
        shared_out = {weight for part in _models(model) for weight in part.parameters()}
        alone = [name for name, weight in model.named_parameters() if weight not in shared_out]
        if alone:
            raise ValueError(
                f"ShardedStrategy shards T6Model, and ranks would not agree on the weights outside of one: "
                f"{', '.join(alone[:3])}{' …' * (len(alone) > 3)}. Use --trainer.strategy ddp."
            )
        for part in _models(model):
            if isinstance(part, FSDPModule):  # of a training before
                continue
            for tensor in (*part.parameters(), *part.buffers()):
                dist.broadcast(tensor.detach(), 0)
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            for block in part.blocks:
                fully_shard(block, mesh=mesh, reshard_after_forward=self.reshard_after_forward)
            fully_shard(part, mesh=mesh, reshard_after_forward=False)  # it begins and ends every pass
        return model

    @contextlib.contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Within this, backward passes add to whole gradients on each rank; none are exchanged."""
        assert self.model is not None
        parts = [part for part in _models(self.model) if isinstance(part, FSDPModule)]
        for part in parts:
            part.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            for part in parts:
                part.set_requires_gradient_sync(True)

    # Checkpoints.

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Of one file: all weights on rank 0, and nothing elsewhere; else each rank's shards."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict()
        return state if self.state_dict_type == "sharded" else self._gathered(state)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The same of an optimizer, its weights by their numbers, as of a single device."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer._optimizer
        state = optimizer.state_dict()
        return state if self.state_dict_type == "sharded" else self._gathered(state)

    def _gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """Whole tensors on the CPU of rank 0, tied ones once; an empty dictionary on the others."""
        seen: dict[int, Tensor] = {}

        def gather(value: Any) -> Any:
            if isinstance(value, dict):
                return type(value)((key, gather(inside)) for key, inside in value.items())
            if not isinstance(value, Tensor):
                return value
            if not isinstance(value, DTensor):
                return value.detach().cpu()
            whole = value.full_tensor().detach()  # by all ranks, and so of tied ones twice
            return seen.setdefault(value.to_local().data_ptr(), whole.cpu()) if self.is_global_zero else None

        whole = gather(state)
        return cast(dict[str, Any], whole) if self.is_global_zero else {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write one file on rank 0, or a folder with a shard of each rank.

        Raises:
            CheckpointNotSaved: the disk is full or fails; all ranks raise it, or none if the errors are kept.
        """
        if self.state_dict_type == "full":
            super().save_checkpoint(checkpoint, filepath, storage_options)
            return
        io = self.checkpoint_io
        if storage_options is not None or not isinstance(io, SafeCheckpointIO):
            raise ValueError("state_dict_type=sharded: expected SafeCheckpointIO to write it, without storage options.")
        path = Path(self.broadcast(filepath))
        content, rows = separate(checkpoint)
        with io.noting_errors(path), contextlib.ExitStack() as stack:
            error: OSError | None = None
            folder: Path | None = None
            if self.is_global_zero:
                try:
                    folder = stack.enter_context(folder_to_fill(path))
                except OSError as failed:
                    error = failed
            folder = self.broadcast(folder)
            if folder is not None:
                try:
                    write_shard(folder, rows, self.global_rank, self.world_size)
                except OSError as failed:
                    error = failed
            self._raise_first(error)
            if self.is_global_zero:
                assert folder is not None
                try:
                    move_into_place(folder, content, path)
                except OSError as failed:
                    error = failed
            self._raise_first(error)

    def _raise_first(self, error: OSError | None) -> None:
        """Raise, on all ranks, what the first of them that failed has to say."""
        mine = None if error is None else (error.errno, error.strerror, error.filename)
        all_of_them: list[Any] = [None] * self.world_size
        dist.all_gather_object(all_of_them, mine)
        first = next((said for said in all_of_them if said is not None), None)
        if first is not None:
            raise OSError(*first)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """As the plugin reads it."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take over whole weights; a model that is sharded already takes its rows of them."""
        assert self.lightning_module is not None
        places = self.lightning_module.state_dict()
        state = {name: _rows_of(whole, places.get(name)) for name, whole in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take over an optimizer's rows of whole states."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            state = {
                number: {name: _rows_of(value, weights[number]) for name, value in of_weight.items()}
                for number, of_weight in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})
            _optimizers_to_device([optimizer], self.root_device)

    def teardown(self) -> None:
        """Leave shards where they are: a GPU's cannot be gathered from elsewhere."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def _models(module: torch.nn.Module) -> list[T6Model]:
    return [part for part in module.modules() if isinstance(part, T6Model)]


def _rows_of(whole: Any, place: Any) -> Any:
    """This rank's rows of a tensor, if it goes into a sharded place of its shape."""
    if not isinstance(place, DTensor) or not isinstance(whole, Tensor) or whole.shape != place.shape:
        return whole
    on_device = whole.to(place.device)
    rows = distribute_tensor(on_device, place.device_mesh, place.placements, src_data_rank=None)
    return rows.clone()  # a part of the whole would hold its memory


def whole_model(model: T6Model, is_global_zero: bool) -> T6Model | None:
    """A model that rank 0 may use by itself; where weights are sharded, all ranks must call this.

    Args:
        model: that trains.
        is_global_zero: whether this is rank 0.

    Returns:
        On rank 0 the model, or a copy on its device if weights are sharded; None elsewhere.
    """
    if not isinstance(model, FSDPModule):
        return model if is_global_zero else None
    weight = next(model.parameters())
    copy = None
    if is_global_zero:
        with torch.random.fork_rng([weight.device] if weight.device.type == "cuda" else []), weight.device:
            copy = T6Model(model.config).to(weight.dtype).train(model.training)
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        if copy is not None:
            copy.load_state_dict({name: whole}, strict=False)
    return copy
