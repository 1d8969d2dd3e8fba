"""What `fit` makes of options, without running it: its own parser, built once for many trainings."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jsonargparse import capture_parser

from lit_t6.command_line.options import arrange
from lit_t6.command_line.parsing import parse
from lit_t6.data import TokenDataModule
from lit_t6.model import T6Config
from lit_t6.training.cli import T6CLI
from lit_t6.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class FitSettings:
    """Options of `fit`, read.

    Args:
        model: its head count known, unless it was to be left open.
        optimizer: of the training.
        trainer: options of Lightning's Trainer.
        data: options of `TokenDataModule`.
        compiles: whether blocks are compiled.
        recompute: what a backward pass computes again.
    """

    model: T6Config
    optimizer: OptimizerConfig
    trainer: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    compiles: bool = False
    recompute: str = "none"

    @property
    def on_cpu(self) -> bool:
        """Whether a CPU is asked for; else a GPU is assumed."""
        return bool(self.trainer["accelerator"] == "cpu")

    @property
    def precision(self) -> str:
        """Of the trainer; as `fit` chooses it on such a device, where none is asked for."""
        return str(self.trainer.get("precision") or ("32-true" if self.on_cpu else "bf16-mixed"))

    @property
    def seq_len(self) -> int:
        """Tokens of a training sequence."""
        return int(self.data["seq_len"] or self.model.max_seq_len)

    @property
    def sequences_per_step(self) -> int:
        """Of an optimizer step, over all devices."""
        devices, accumulate = self.trainer["devices"], self.trainer["accumulate_grad_batches"]
        return int(self.data["global_batch_size"] or self.data["batch_size"] * int(devices) * int(accumulate))

    @property
    def batches_per_step(self) -> float:
        """Micro-batches of one device that make up an optimizer step."""
        return self.sequences_per_step / (self.data["batch_size"] * int(self.trainer["devices"]))

    @property
    def asked_of_data(self) -> str:
        """All that `check_data` depends on."""
        model = self.model
        return json.dumps([self.data, model.vocab_size, model.max_seq_len], sort_keys=True, default=str)

    def check_data(self) -> None:
        """Look at the data as `fit` does before it starts.

        Raises:
            ValueError: no prepared data, a damaged shard, or a vocabulary or length that does not go with the model.
        """
        data = TokenDataModule(**self.data)
        data.prepare_data()
        data.fit_to_model(self.model.vocab_size, self.model.max_seq_len)
        data.windows("train", cover=False)
        data.windows("validation", cover=True)


class FitReader:
    """Reads options of `fit` with its own parser, and builds what can be built without weights and data."""

    def __init__(self) -> None:
        whole: Any = capture_parser(partial(T6CLI.run, "fit", []))
        self._parser = whole._subcommands_action.choices["fit"]

    def read(self, words: Sequence[str], heads: bool = True) -> FitSettings:
        """The settings that some options make.

        Args:
            words: options, as typed.
            heads: solve a head count that is null.

        Raises:
            ValueError: what `fit` refuses of options, model, recipe and limits.
        """
        config = parse(self._parser, arrange(words))
        model = config.model.as_dict()
        optimizer = OptimizerConfig(**model.pop("optimizer"))
        compiles, recompute = model.pop("compile"), model.pop("recompute")
        trainer = config.trainer.as_dict()
        _check_end(trainer)
        TokenDataModule(**config.data.as_dict())  # it refuses sizes below 1
        read = T6Config.from_dict(model)
        read = read.resolved() if heads else read
        return FitSettings(read, optimizer, trainer, config.data.as_dict(), compiles, recompute)


def _check_end(trainer: dict[str, Any]) -> None:
    limits = ("max_steps", "max_epochs", "max_time")
    if all(trainer.get(limit) in (None, -1) for limit in limits):
        raise ValueError("the training has no end: set trainer.max_steps among the options.")
    for limit in limits:
        if trainer.get(limit) == 0:
            raise ValueError(f"trainer.{limit}=0: nothing would be trained; give a number above 0.")
