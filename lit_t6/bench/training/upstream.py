"""The authors' own model files (tensorgi/TPA), which are not part of this package: they are read where they lie."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from lit_t6.attention import AttentionConfig, LatentConfig, MultiHeadConfig, TPAConfig
from lit_t6.interop.archs import find_arch
from lit_t6.interop.upstream import upstream_config
from lit_t6.model import T6Config

Counterpart = tuple[str, dict[str, Any]]
"""Name of a model file, without .py, and the settings with which it makes a model."""


def find_models(path: str | Path) -> Path:
    """The authors' folder of model files.

    Args:
        path: a clone of their repository, or its folder `model`.

    Raises:
        ValueError: it is neither.
    """
    place = Path(path).expanduser()
    for folder in (place / "model", place):
        if (folder / "T6.py").is_file():
            return folder.resolve()
    raise ValueError(
        f"upstream: {place} has no model/T6.py; expected a clone of https://github.com/tensorgi/TPA, or its folder "
        "model."
    )


def counterpart(config: T6Config) -> Counterpart | None:
    """The authors' model that computes what ours does.

    Args:
        config: of our model, its head count known.

    Returns:
        Its file and settings; None if there is none.
    """
    sizes = {"vocab_size": config.vocab_size, "n_layer": config.num_layers, "n_embd": config.d_model}
    sizes |= {"block_size": config.max_seq_len, "using_groupnorm": config.attention.head_norm}
    for name, own in _candidates(config.attention, config.d_model):
        settings = {**sizes, **own}
        if _equal(upstream_config(settings, find_arch(name)), config):
            return name, settings
    return None


def _candidates(attention: AttentionConfig, d_model: int) -> list[Counterpart]:
    """Model files that may compute a mechanism, and their settings; what does not fit, `counterpart` sees."""
    heads = {"n_head": attention.heads(), "head_dim": attention.head_dim}
    if isinstance(attention, TPAConfig):
        heads |= {"rank": attention.rank_k, "q_rank": attention.rank_q}
        return [(name + ("_ropek" if attention.rope_on == "heads" else ""), heads) for name in ("T6", "T6_kvonly")]
    if isinstance(attention, LatentConfig):
        own = {"v_head_dim": attention.value_size, "qk_rope_head_dim": attention.rope_size}
        own |= {"q_lora_rank": attention.query_latent_size, "kv_lora_rank": attention.kv_latent_size}
        if attention.head_norm:  # their norm is over another size
            return []
        return [("llama-mla", heads | own)]
    if isinstance(attention, MultiHeadConfig):
        grouped = ("llama-gqa", heads | {"group_size": attention.heads() // attention.kv_heads})
        return [("llama-mha", heads), grouped] if d_model == attention.heads() * attention.head_dim else [grouped]
    return []


def _equal(theirs: T6Config, ours: T6Config) -> bool:
    """Whether two configurations make the same function of the same weights."""

    def told(config: T6Config) -> list[Any]:
        attention = config.attention
        sizes = [config.vocab_size, config.d_model, config.num_layers, config.ffn_width, config.norm_eps]
        return [*sizes, type(attention), attention.label, attention.numbers()]

    return told(theirs) == told(ours)


class _PretrainedConfig:
    """What the authors' files need of the class of that name in `transformers`: it keeps what it is given."""

    def __init__(self, **settings: Any) -> None:
        for name, value in settings.items():
            setattr(self, name, value)


class _PreTrainedModel(nn.Module):
    """The same of the base class of their models: nothing of it is used in training."""

    def __init__(self, config: Any) -> None:
        super().__init__()


def load(file: Path) -> ModuleType:
    """A model file as a module, with `GPT` and `GPTConfig`.

    The files inherit from two classes of `transformers`, of which training uses nothing; stand-ins take their place,
    so that the package need not be there and none of its versions matters.

    Args:
        file: of the authors'.

    Raises:
        ValueError: it does not offer what is called here.
    """
    name = f"upstream_{file.stem.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ValueError(f"upstream: {file} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    before = {place: sys.modules.get(place) for place in _STAND_INS}
    sys.modules[name] = module  # torch.compile imports by name what it compiles
    sys.modules.update(_STAND_INS)
    try:
        spec.loader.exec_module(module)
    finally:
        for place, old in before.items():
            if old is None:
                del sys.modules[place]
            else:
                sys.modules[place] = old
    missing = [wanted for wanted in ("GPT", "GPTConfig") if not hasattr(module, wanted)]
    if missing:
        raise ValueError(f"upstream: {file} has no class {missing[0]}.")
    return module


def _stand_ins() -> dict[str, ModuleType]:
    modules = {}
    for place in ("transformers", "transformers.configuration_utils", "transformers.modeling_utils"):
        modules[place] = ModuleType(place)
        modules[place].__dict__.update(PretrainedConfig=_PretrainedConfig, PreTrainedModel=_PreTrainedModel)
    return modules


_STAND_INS = _stand_ins()


def fill_rotary_tables(model: nn.Module, seq_len: int, device: str) -> None:
    """Have every RoPE of a model of theirs make its tables, as its first step would.

    Args:
        model: of a model file.
        seq_len: tokens of a sequence.
        device: where it trains.
    """
    row = torch.empty(1, seq_len, 1, 1, device=device)
    for module in model.modules():
        if hasattr(module, "seq_len_cached"):
            module(row)
