"""The model files of the authors' public code (tensorgi/TPA, folder model/): what each computes, and its defaults."""

import difflib
from dataclasses import dataclass, field
from typing import Any, Literal

Mechanism = Literal["tpa", "tpa-kv", "mha", "gqa", "mla"]

_COMMON: dict[str, Any] = {
    "vocab_size": 50304,
    "n_layer": 12,
    "n_embd": 768,
    "block_size": 1024,
    "using_groupnorm": False,
}
_OF_MECHANISM: dict[Mechanism, dict[str, Any]] = {
    "tpa": {"n_head": 22, "head_dim": 64, "rank": 2, "q_rank": 6},
    "tpa-kv": {"n_head": 22, "head_dim": 64, "rank": 2},
    "mha": {"n_head": 6},
    "gqa": {"n_head": 24, "head_dim": 64, "group_size": 4},
    "mla": {
        "n_head": 13,
        "head_dim": 64,
        "v_head_dim": 64,
        "qk_rope_head_dim": 32,
        "q_lora_rank": 512,
        "kv_lora_rank": 256,
    },
}


@dataclass(frozen=True)
class Arch:
    """One model file of upstream.

    Args:
        name: the file's name without .py.
        mechanism: of its attention.
        defaults: the settings that it reads from a configuration, and their values where a configuration is silent.
        rope_on: whether it rotates the factors of TPA, or the heads made of them.
    """

    name: str
    mechanism: Mechanism
    rope_on: Literal["factors", "heads"] = "factors"
    defaults: dict[str, Any] = field(default_factory=dict)


def _arch(
    name: str, mechanism: Mechanism, *, partial: bool = False, decay: bool = False, on_heads: bool = False
) -> Arch:
    defaults = _COMMON | _OF_MECHANISM[mechanism]
    if partial:
        defaults["rope_partial_factor"] = 1.0 / 3
    if decay:
        defaults["rope_decay_base"] = 0.999
    return Arch(name, mechanism, "heads" if on_heads else "factors", defaults)


UPSTREAM_ARCHS: dict[str, Arch] = {
    arch.name: arch
    for arch in (
        _arch("T6", "tpa"),
        _arch("T6_kvonly", "tpa-kv"),
        _arch("T6_ropek", "tpa", on_heads=True),
        _arch("T6_kvonly_ropek", "tpa-kv", on_heads=True),
        _arch("T6_partialrope", "tpa", partial=True),
        _arch("T6_partialrope_decay", "tpa", partial=True, decay=True),
        _arch("T6_kvonly_partialrope", "tpa-kv", partial=True),
        _arch("T6_kvonly_partialrope_decay", "tpa-kv", partial=True, decay=True),
        _arch("llama-mha", "mha"),
        _arch("llama-gqa", "gqa"),
        _arch("llama-mla", "mla"),
        _arch("llama-mha-partialrope", "mha", partial=True),
        _arch("llama-gqa-partialrope", "gqa", partial=True),
        _arch("llama-gqa-partialrope-decay", "gqa", partial=True, decay=True),
    )
}
"""Every model file of upstream that can be read, by its name."""


def find_arch(name: str) -> Arch:
    """The model file of that name.

    Raises:
        ValueError: none of that name, or one of linear attention.
    """
    name = name.removesuffix(".py")
    if name in UPSTREAM_ARCHS:
        return UPSTREAM_ARCHS[name]
    if "linear" in name.lower():
        raise ValueError(
            f"arch {name!r}: linear attention has no softmax, so its weights mean nothing to the attention of lit_t6, "
            f"which has no such mechanism. Archs that can be read: {', '.join(UPSTREAM_ARCHS)}."
        )
    if "infer" in name:
        raise ValueError(
            f"arch {name!r}: a file for decoding with the weights of {name.replace('_infer', '')}; name that one."
        )
    near = difflib.get_close_matches(name, UPSTREAM_ARCHS, n=1, cutoff=0.4)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"arch {name!r} is no model file of upstream{meant} There are {', '.join(UPSTREAM_ARCHS)}.")


def read_settings(config: dict[str, Any], arch: Arch) -> dict[str, Any]:
    """The settings that a model file reads: from the configuration, else its own defaults; others are passed over.

    Adds what the file works out from them: `kv_heads` of GQA, `head_dim` of MHA (n_embd / n_head, whatever the
    configuration says) and `ffn_width`, ⌊8·n_embd/3⌋. (Upstream's floating-point ⌊8 / 3 · n_embd⌋ is the same number.)

    Args:
        config: of the checkpoint; null counts as silent.
        arch: the model file.

    Raises:
        ValueError: a value of the wrong kind, or heads that cannot be divided.
    """
    settings = {name: default if config.get(name) is None else config[name] for name, default in arch.defaults.items()}
    for name, default in arch.defaults.items():
        _check_kind(arch, name, settings[name], default)
    heads, width = settings["n_head"], settings["n_embd"]
    if arch.mechanism == "mha":
        if width % heads:
            raise ValueError(
                f"config: n_embd={width} is not a multiple of n_head={heads}; heads of {arch.name} share it."
            )
        settings["head_dim"] = width // heads
    if arch.mechanism == "gqa":
        if heads % settings["group_size"]:
            raise ValueError(
                f"config: n_head={heads} is not a multiple of group_size={settings['group_size']}, the number of "
                f"query heads that share a key/value head."
            )
        settings["kv_heads"] = heads // settings["group_size"]
    if arch.mechanism == "mla" and settings["using_groupnorm"]:
        normed = settings["head_dim"] + settings["qk_rope_head_dim"]
        if normed != settings["v_head_dim"]:
            raise ValueError(
                f"config: with using_groupnorm, {arch.name} norms head_dim + qk_rope_head_dim = {normed} features of "
                f"values that have v_head_dim={settings['v_head_dim']}: upstream's code cannot run such a model either."
            )
    settings["ffn_width"] = 8 * width // 3
    return settings


def _check_kind(arch: Arch, name: str, value: Any, default: Any) -> None:
    if isinstance(default, bool):
        good, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        good, expected = isinstance(value, int) and not isinstance(value, bool) and value > 0, "a whole number above 0"
    else:
        good, expected = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    if not good:
        raise ValueError(f"config: {name}={value!r}, but {arch.name} needs {expected} there.")
