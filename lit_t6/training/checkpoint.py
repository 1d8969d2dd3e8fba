"""Checkpoint files of ours: read without running anything in them, and written for models of other origin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from tokenizers import Tokenizer

from lit_t6.data import parse_tokenizer
from lit_t6.model import T6Model
from lit_t6.training.checkpoint_choice import checkpoints_beside, newest_whole
from lit_t6.training.checkpoint_files import DamagedCheckpoint, is_sharded, verify_file, write_atomically
from lit_t6.training.checkpoint_shards import read_whole
from lit_t6.training.module import LitT6, hyper_parameters
from lit_t6.training.optimizer import OptimizerConfig

PADDING = 1024
"""Vocabularies are padded to a multiple of 64 to 128 times the number of devices, as of GPT-2 to 50,304 or 51,200."""


@dataclass
class Checkpoint:
    """A checkpoint, its tensors still in the file.

    Args:
        path: where it was read from.
        content: Lightning's dictionary.
    """

    path: str
    content: dict[str, Any]

    def options(self) -> dict[str, Any]:
        """Model and data as options of the command line: what holds where the user says nothing."""
        trained = self.content["hyper_parameters"]
        optimizer = {**trained["optimizer"], "betas": list(trained["optimizer"]["betas"])}
        of_training = {name: trained[name] for name in ("compile", "recompute") if name in trained}
        model = {**trained["config"], "optimizer": optimizer, **of_training}
        data = self.content.get("datamodule_hyper_parameters")
        return {"model": model} | ({"data": dict(data)} if data else {})

    def model(self, device: str = "cpu") -> T6Model:
        """The model, ready to evaluate."""
        module = LitT6(self.content["hyper_parameters"]["config"])
        module.load_state_dict(self.content["state_dict"])
        return module.model.to(device).eval()

    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the data that it was trained on, if it says so."""
        data_state = self.content.get("TokenDataModule", {})
        return parse_tokenizer(data_state["tokenizer"], self.path) if "tokenizer" in data_state else None

    def check_tokenizer(self, tokenizer: Tokenizer, name: str) -> None:
        """Refuse a tokenizer whose ids mean something else to the model.

        Args:
            tokenizer: to use with the model.
            name: of it, for the error.

        Raises:
            ValueError: the checkpoint holds another one; or it holds none, and this one does not fit the vocabulary.
        """
        own = self.tokenizer()
        if own is None:
            check_vocabulary(tokenizer, self.content["hyper_parameters"]["config"]["vocab_size"], name)
        elif own.to_str() != tokenizer.to_str():
            raise ValueError(
                f"{name}: not the tokenizer that {self.path} was trained with, and the text would mean nothing. The "
                f"checkpoint holds its own: leave --tokenizer out."
            )


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint that `fit` or `Trainer.save_checkpoint` wrote, a file or a folder, once it is verified.

    Raises:
        ValueError: no such file, a damaged one (the newest whole one beside it is named), or not one of LitT6.
    """
    if Path(path).is_dir() and not is_sharded(path):
        inside = max(Path(path).rglob("last.ckpt"), key=lambda file: file.stat().st_mtime, default=None)
        what = f"did you mean {inside}?" if inside else "expected the file of a checkpoint."
        raise ValueError(f"{path}: is a folder; {what}")
    if not Path(path).exists():
        raise ValueError(f"{path}: no such checkpoint.")
    try:
        content = _load(path)
    except DamagedCheckpoint as error:
        other, _ = newest_whole(checkpoints_beside(Path(path)))
        offer = f" {other} is whole, the newest beside it." if other else ""
        raise ValueError(f"{error}{offer}") from error
    if not isinstance(content, dict) or "config" not in content.get("hyper_parameters", {}):
        raise ValueError(f"{path}: not a checkpoint of lit_t6: it does not say what model it holds.")
    return Checkpoint(str(path), content)


def _load(path: str | Path) -> Any:
    verify_file(path)
    try:
        if is_sharded(path):
            return read_whole(Path(path))
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # an archive of something else raises anything, KeyError among it
        raise DamagedCheckpoint(path, "it holds other things than tensors and plain values") from error


def write_checkpoint(path: str | Path, model: T6Model, tokenizer: Tokenizer | None = None) -> None:
    """Write a model that was not trained by `fit` as a checkpoint of ours, all or nothing.

    It holds weights and no state of a training: `generate` and the evaluations take it as it is, `fit` with
    `--convert true`.

    Args:
        path: of the file; its folder is made, a file that is there is replaced.
        model: its weights and its configuration are written.
        tokenizer: of the tokens that the model knows.

    Raises:
        ValueError: a tokenizer of another vocabulary; see `check_vocabulary`.
        OSError: it cannot be written; a file that was there is as it was.
    """
    content: dict[str, Any] = {
        "state_dict": {f"model.{name}": weight for name, weight in model.state_dict().items()},
        "hyper_parameters": hyper_parameters(model.config, OptimizerConfig()),
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
    }
    if tokenizer is not None:
        check_vocabulary(tokenizer, model.config.vocab_size)
        content["TokenDataModule"] = {"samples_seen": 0, "tokenizer": tokenizer.to_str()}
    write_atomically(content, path)


def check_vocabulary(tokenizer: Tokenizer, vocab_size: int, name: str = "the tokenizer") -> None:
    """Refuse a tokenizer that cannot be the one that a model was trained with.

    Args:
        tokenizer: in question.
        vocab_size: rows of the model's embedding. Those of a padded vocabulary are more than the tokens: up to the next
            multiple of PADDING.
        name: of the tokenizer, for the error.

    Raises:
        ValueError: more tokens than the model has rows, or fewer than padding explains.
    """
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if not size <= vocab_size <= -(-size // PADDING) * PADDING:
        raise ValueError(
            f"{name} has {size} tokens, but the model has vocab_size={vocab_size}: it is not the tokenizer that the "
            f"model was trained with."
        )


def convert_weights(module: LitT6, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Give a model the weights of another one's checkpoint, where name and shape are the same.

    Args:
        module: of any configuration; its other weights stay as they are.
        checkpoint: of any configuration.

    Returns:
        Names of the weights that were taken, and of those of `module` that were not.
    """
    theirs = checkpoint.content["state_dict"]
    ours = module.state_dict()
    taken = [name for name, weight in ours.items() if name in theirs and theirs[name].shape == weight.shape]
    module.load_state_dict({name: theirs[name] for name in taken}, strict=False)
    return taken, [name for name in ours if name not in taken]
