"""Files of upstream's models: folders as Hugging Face writes them, and bare state dicts. Nothing in them is run."""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CONFIG_NAME = "config.json"
_WEIGHT_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_MODEL_KEYS = ("model", "state_dict", "model_state_dict")
_CONFIG_KEYS = ("model_args", "config")


def read_upstream(path: str | Path, config_json: str | Path | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model that upstream's code saved.

    Args:
        path: a folder with config.json and model.safetensors or pytorch_model.bin, in one piece or in shards with an
            index; or one file (.safetensors, .bin, .pt, .pth): a state dict, or a dictionary with it under "model"
            and its configuration under "model_args" or "config".
        config_json: the configuration, where the path has none or a wrong one.

    Returns:
        The state dict and the configuration, for `from_upstream`.

    Raises:
        ValueError: no such file, no configuration, or a file that is damaged or needs code to be run.
    """
    path = Path(path)
    if path.is_dir():
        given = None if config_json is not None else _read_json(path / CONFIG_NAME, "--config_json names another")
        weights = _read_folder(path)
    elif path.is_file():
        weights, given = _read_file(path)
        beside = path.parent / CONFIG_NAME
        if given is None and config_json is None and beside.is_file():
            given = _read_json(beside, "")
    else:
        raise ValueError(f"{path}: no such file or folder.")
    config = given if config_json is None else _read_json(Path(config_json), "")
    if config is None:
        raise ValueError(
            f"{path}: holds weights without a configuration, and no {CONFIG_NAME} is beside it; give the model's "
            f'settings as a JSON file (--config_json), such as {{"n_layer": 12, "n_head": 34, "n_embd": 768}}.'
        )
    return weights, config


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file{f' ({otherwise})' if otherwise else ''}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}.")
    return content


def _read_folder(folder: Path) -> dict[str, Tensor]:
    name = next((name for name in _WEIGHT_NAMES if (folder / name).is_file()), None)
    if name is None:
        raise ValueError(f"{folder}: none of {', '.join(_WEIGHT_NAMES)} is there.")
    if not name.endswith(".index.json"):
        return _read_file(folder / name)[0]
    places = _read_json(folder / name, "").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(shard, str) for shard in places.values()):
        raise ValueError(f"{folder / name}: expected a weight_map from names of weights to files.")
    weights: dict[str, Tensor] = {}
    for shard in dict.fromkeys(places.values()):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise ValueError(f"{folder / name}: names the shard {shard!r}, but no such file is beside it.")
        weights |= _read_file(folder / shard)[0]
    lost = [weight for weight in places if weight not in weights]
    if lost:
        raise ValueError(f"{folder / name}: promises {lost[0]} in {places[lost[0]]}, but it is not there.")
    return weights


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """The state dict of a file, and its configuration if it has one."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path), None
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file, or a damaged one ({error}).") from error
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a state dict, got {type(content).__name__}.")
    if "pytorch-lightning_version" in content:
        raise ValueError(f"{path}: is a checkpoint of lit_t6 already; there is nothing to convert.")
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return content, None
    weights = next((content[key] for key in _MODEL_KEYS if isinstance(content.get(key), dict)), None)
    if weights is None:
        raise ValueError(
            f"{path}: holds {', '.join(map(str, content)) or 'nothing'}; expected a state dict, or one under "
            f"{', '.join(_MODEL_KEYS)}."
        )
    return weights, next((content[key] for key in _CONFIG_KEYS if isinstance(content.get(key), dict)), None)


def _unpickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # bytes that are no pickle raise anything, KeyError among it
        if "global" in str(error).lower():
            raise ValueError(
                f"{path}: holds Python objects besides tensors and plain values; loading them could run any code, and "
                f"is refused. Where the file is trusted, save its weights alone: "
                f"torch.save(model.state_dict(), 'weights.pt')."
            ) from error
        raise ValueError(f"{path}: not a file of torch.save, or a damaged one.") from error
