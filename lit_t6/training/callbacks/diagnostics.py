"""What the factors of tensor product attention look like while it trains.

Letters: B batch, T positions, C model width, R rank, H heads, D head size.
"""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lit_t6.attention import TensorProductAttention
from lit_t6.ops import TPAFactors, effective_rank
from lit_t6.training.callbacks.throughput import ends_training, logged_step

FACTORS = TPAFactors._fields
RANKS = ("effective_rank_k", "effective_rank_v")


class FactorDiagnostics(Callback):
    """Logs, for each layer of a TPA model, the size of the factors and how many directions its keys and values use.

    At a validation, over some tokens of its first batch: the root mean square of every factor
    (`factors/rms_a_q/layer_00`, …), and the effective rank of the keys and values of a token over its heads
    (`factors/effective_rank_k/layer_00`, …; see `lit_t6.ops.effective_rank`); the means over the layers
    (`factors/rms_a_q`, …); and a picture of all of them, `factors/figure`. As that takes longer than all else, it is
    drawn at the first time, the second, fourth, eighth and so on, and after the last step. Dense queries, keys and
    values have no factors to log; models without TPA log nothing.

    Args:
        every_n_validations: look at every n-th validation; 0 never. The picture, `factors/figure`, comes at the 1st,
            2nd, 4th, 8th … of these looks, and after the last step.
        num_tokens: how many tokens to look at.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, every_n_validations: int = 1, num_tokens: int = 64) -> None:
        if every_n_validations < 0 or num_tokens < 1:
            raise ValueError(
                f"diagnostics: expected every_n_validations >= 0 and num_tokens >= 1, got {every_n_validations} and "
                f"{num_tokens}."
            )
        self.every_n_validations, self.num_tokens = every_n_validations, num_tokens
        self._validations = 0
        self._counted_at = -1  # batches done at the last one: a resumed run may come by it once more
        self._seen: list[dict[str, float]] = []  # by layer
        self._hooks: list[RemovableHandle] = []

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations, "counted_at": self._counted_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations, self._counted_at = state_dict["validations"], state_dict["counted_at"]

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if batch_idx or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not trainer.is_global_zero or not self.every_n_validations:
            return
        self._validations += trainer.fit_loop.total_batch_idx != self._counted_at
        self._counted_at = trainer.fit_loop.total_batch_idx
        if (self._validations - 1) % self.every_n_validations:
            return
        self._seen = []
        for module in pl_module.modules():
            if isinstance(module, TensorProductAttention):
                self._hooks.append(module.register_forward_pre_hook(self._look))

    def _look(self, module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, TensorProductAttention)
        x = args[0].detach().flatten(0, 1)  # (B·T, C)
        stride = max(1, len(x) // self.num_tokens)
        with torch.no_grad():
            factors = module.compute_factors(x[::stride][: self.num_tokens][None])
        factors = TPAFactors(*(factor[0].float().cpu() for factor in factors))
        self._seen.append(describe_factors(factors, module.config.factorized))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._remove_hooks()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._remove_hooks()

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        layers, self._seen = self._seen, []
        if not layers:
            return
        step = logged_step(trainer)
        values = {f"factors/{name}": sum(layer[name] for layer in layers) / len(layers) for name in layers[0]}
        values |= {f"factors/{name}/layer_{n:02}": layer[name] for n, layer in enumerate(layers) for name in layer}
        times = (self._validations - 1) // self.every_n_validations + 1
        draws = times.bit_count() == 1 or ends_training(trainer, trainer.global_step)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)
            if draws and isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("factors/figure", draw_factors(layers), step, close=False)


def describe_factors(factors: TPAFactors, letters: str = "qkv") -> dict[str, float]:
    """Root mean square of each factor, and mean effective rank of keys and values.

    Args:
        factors: of some tokens, each (tokens, R, H or D).
        letters: which of queries, keys and values are made from factors; the others are left out.

    Returns:
        `rms_a_q`, …, `rms_b_v`, `effective_rank_k`, `effective_rank_v`.
    """
    named = {name: factor for name, factor in factors._asdict().items() if name[-1] in letters}
    sizes = {f"rms_{name}": factor.square().mean().sqrt().item() for name, factor in named.items()}
    ranks = {
        name: effective_rank(named[f"a_{name[-1]}"], named[f"b_{name[-1]}"]).mean().item()
        for name in RANKS
        if name[-1] in letters
    }
    return sizes | ranks


def draw_factors(layers: list[dict[str, float]]) -> Figure:
    """Two charts over the layers: root mean square of the factors, and effective ranks.

    Args:
        layers: from `describe_factors`.
    """
    figure = Figure(figsize=(9, 5))  # not pyplot's: nothing to close
    figure.subplots_adjust(0.12, 0.11, 0.98, 0.92, 0.24)  # a layout engine would take half of the drawing's time
    sizes, ranks = figure.subplots(1, 2)
    numbers = range(len(layers))
    for name in (name for name in FACTORS if f"rms_{name}" in layers[0]):
        letter = name[-1]
        style = {"color": {"q": "C0", "k": "C1", "v": "C2"}[letter], "linestyle": "-" if name[0] == "a" else "--"}
        sizes.plot(numbers, [layer[f"rms_{name}"] for layer in layers], marker="o", label=name, **style)
    for name in (name for name in RANKS if name in layers[0]):
        label, colour = {"effective_rank_k": ("keys", "C1"), "effective_rank_v": ("values", "C2")}[name]
        ranks.plot(numbers, [layer[name] for layer in layers], marker="o", color=colour, label=label)
    sizes.set(title="Size of the factors", ylabel="root mean square", yscale="log")
    ranks.set(title="Directions that a token's heads use", ylabel="effective rank")
    for axes in (sizes, ranks):
        axes.set_xlabel("layer")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(ncols=2)
    return figure
