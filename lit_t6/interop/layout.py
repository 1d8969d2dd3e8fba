"""The weights of upstream's models by name and shape, and whether a state dict is one of them.

Sizes are written with the names of upstream's configuration, so that an error can say where a number comes from.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lit_t6.interop.archs import UPSTREAM_ARCHS, Arch, Mechanism, read_settings

Shape = tuple[str, ...]
EMBEDDING = "transformer.wte.weight"

_OUT: dict[str, Shape] = {"attn.c_proj.weight": ("n_embd", "n_head·head_dim")}
_KEY_VALUE_FACTORS: dict[str, Shape] = {
    "attn.c_qkv.W_A_k.weight": ("n_head·rank", "n_embd"),
    "attn.c_qkv.W_A_v.weight": ("n_head·rank", "n_embd"),
    "attn.c_qkv.W_B_k.weight": ("rank·head_dim", "n_embd"),
    "attn.c_qkv.W_B_v.weight": ("rank·head_dim", "n_embd"),
}
_ATTENTION: dict[Mechanism, dict[str, Shape]] = {
    "tpa": {
        "attn.c_qkv.W_A_q.weight": ("n_head·q_rank", "n_embd"),
        "attn.c_qkv.W_B_q.weight": ("q_rank·head_dim", "n_embd"),
        **_KEY_VALUE_FACTORS,
        **_OUT,
    },
    "tpa-kv": {"attn.c_qkv.c_q.weight": ("n_head·head_dim", "n_embd"), **_KEY_VALUE_FACTORS, **_OUT},
    "mha": {**{f"attn.c_{part}.weight": ("n_embd", "n_embd") for part in "qkv"}, "attn.c_proj.weight": ("n_embd",) * 2},
    "gqa": {
        "attn.c_q.weight": ("n_head·head_dim", "n_embd"),
        "attn.c_k.weight": ("kv_heads·head_dim", "n_embd"),
        "attn.c_v.weight": ("kv_heads·head_dim", "n_embd"),
        **_OUT,
    },
    "mla": {
        "attn.q_a_proj.weight": ("q_lora_rank", "n_embd"),
        "attn.q_a_layernorm.weight": ("q_lora_rank",),
        "attn.q_b_proj.weight": ("n_head·head_dim + n_head·qk_rope_head_dim", "q_lora_rank"),
        "attn.kv_a_proj_with_mqa.weight": ("kv_lora_rank + qk_rope_head_dim", "n_embd"),
        "attn.kv_a_layernorm.weight": ("kv_lora_rank",),
        "attn.kv_b_proj.weight": ("n_head·head_dim + n_head·v_head_dim", "kv_lora_rank"),
        "attn.c_proj.weight": ("n_embd", "n_head·v_head_dim"),
    },
}
_FEED_FORWARD: dict[str, Shape] = {
    "mlp.c_fc1.weight": ("ffn_width", "n_embd"),
    "mlp.c_fc2.weight": ("ffn_width", "n_embd"),
    "mlp.c_proj.weight": ("n_embd", "ffn_width"),
}
_NORM = "attn.subln.weight"
_COMES_FROM = {"ffn_width": "⌊8·n_embd/3⌋", "kv_heads": "n_head / group_size"}


def layout(arch: Arch, settings: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of all weights of a model, as products and sums of its settings; the tied one counts once.

    Args:
        arch: the model file.
        settings: from `read_settings`.
    """
    layer = _ATTENTION[arch.mechanism] | _FEED_FORWARD
    if settings["using_groupnorm"]:
        layer = layer | {_NORM: ("v_head_dim" if arch.mechanism == "mla" else "head_dim",)}
    shapes: dict[str, Shape] = {EMBEDDING: ("vocab_size", "n_embd")}
    for index in range(settings["n_layer"]):
        shapes |= {f"transformer.h.{index}.{name}": shape for name, shape in layer.items()}
    return shapes


def sizes(shape: Shape, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """A shape of `layout` in numbers."""
    return tuple(
        sum(math.prod(settings[name] for name in term.split("·")) for term in extent.split(" + ")) for extent in shape
    )


def check_weights(weights: Mapping[str, Tensor], config: dict[str, Any], arch: Arch) -> None:
    """Refuse weights that are not those of the model file at that configuration.

    Args:
        weights: under upstream's names, prefixes stripped, the tied one under its embedding's name.
        config: of the checkpoint.
        arch: the model file.

    Raises:
        ValueError: a weight is missing, left over or of another shape; says which arch would fit, if one does.
    """
    try:
        settings = read_settings(config, arch)
    except ValueError as error:
        hint = _others_that_fit(weights, config, arch)
        if not hint:
            raise
        raise ValueError(f"{str(error).removesuffix('.')}{hint}.") from error
    num_layers = len({match[1] for name in weights if (match := re.match(r"transformer\.h\.(\d+)\.", name))})
    if num_layers and num_layers != settings["n_layer"]:
        raise ValueError(
            f"the weights have {num_layers} layers, but {_origin('n_layer', config, arch, settings)}: "
            f"the configuration is not that of these weights."
        )
    shapes = layout(arch, settings)
    missing = [name for name in shapes if name not in weights]
    left_over = [name for name in weights if name not in shapes]
    if missing or left_over:
        raise ValueError(_names_differ(missing, left_over, weights, config, arch))
    for name, shape in shapes.items():
        if tuple(weights[name].shape) != sizes(shape, settings):
            used = dict.fromkeys(re.findall(r"\w+", " ".join(shape)))
            because = ", ".join(_origin(setting, config, arch, settings) for setting in used)
            raise ValueError(
                f"{name} has the shape {tuple(weights[name].shape)}, but {arch.name} makes it ({', '.join(shape)}) = "
                f"{sizes(shape, settings)} at {because}: the configuration is not that of these weights"
                f"{_others_that_fit(weights, config, arch) or ', or the arch is not'}."
            )


def _origin(name: str, config: dict[str, Any], arch: Arch, settings: Mapping[str, Any]) -> str:
    """A setting with its value and, if the configuration does not give it, where that comes from."""
    value = f"{name}={settings[name]}"
    if name in _COMES_FROM:
        return f"{value} ({_COMES_FROM[name]})"
    if name not in arch.defaults:
        return f"{value} (n_embd / n_head)"
    return value if config.get(name) is not None else f"{value} (the default of {arch.name}; the config has none)"


def _names_differ(
    missing: list[str], left_over: list[str], weights: Mapping[str, Tensor], config: dict[str, Any], arch: Arch
) -> str:
    if all(name.endswith(_NORM) for name in (*missing, *left_over)):
        wrong = f"using_groupnorm={'true' if missing else 'false'}"
        have = "do not have" if missing else "have"
        return f"config: {wrong}, but the weights {have} {_some(missing or left_over)}: the two are not of one model."
    complaints = []
    if missing:
        complaints.append(f"{arch.name} expects {_some(missing)}, which is not among the weights")
    if left_over:
        complaints.append(f"{arch.name} has no use for {_some(left_over)}, which is among the weights")
    return f"{'; '.join(complaints)}{_others_that_fit(weights, config, arch)}."


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


def archs_that_fit(weights: Mapping[str, Tensor], config: dict[str, Any]) -> list[str]:
    """Names of all archs whose weights have these names and, at this configuration, these shapes.

    Args:
        weights: as in `check_weights`.
        config: of the checkpoint.
    """
    return [name for name, arch in UPSTREAM_ARCHS.items() if _fits(weights, config, arch)]


def _others_that_fit(weights: Mapping[str, Tensor], config: dict[str, Any], arch: Arch) -> str:
    """A hint at the archs whose weights have these names and, at this configuration, these shapes."""
    fitting = [name for name in archs_that_fit(weights, config) if name != arch.name]
    return f"; the weights are those of {_either(fitting)}" if fitting else ""


def _fits(weights: Mapping[str, Tensor], config: dict[str, Any], arch: Arch) -> bool:
    try:
        settings = read_settings(config, arch)
    except ValueError:
        return False
    expected = {name: sizes(shape, settings) for name, shape in layout(arch, settings).items()}
    return expected == {name: tuple(weight.shape) for name, weight in weights.items()}


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
