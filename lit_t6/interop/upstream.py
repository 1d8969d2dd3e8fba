"""Models of the authors' public code (tensorgi/TPA), as ours.

Letters: C model width, H heads, D head size, R rank.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lit_t6.attention import AttentionConfig, LatentConfig, MultiHeadConfig, TPAConfig
from lit_t6.interop.archs import Arch, find_arch, read_settings
from lit_t6.interop.layout import EMBEDDING, check_weights
from lit_t6.model import T6Config, T6Model

_HEAD = "lm_head.weight"
_WRAPPERS = ("_orig_mod.", "module.")  # torch.compile's and DDP's

_LATENT_NAMES = {
    "query_down.weight": "attn.q_a_proj.weight",
    "query_norm.weight": "attn.q_a_layernorm.weight",
    "query_up.weight": "attn.q_b_proj.weight",
    "kv_down.weight": "attn.kv_a_proj_with_mqa.weight",
    "kv_norm.weight": "attn.kv_a_layernorm.weight",
    "kv_up.weight": "attn.kv_b_proj.weight",
}


def from_upstream(state_dict: Mapping[str, Tensor], config: dict[str, Any], arch: str) -> T6Model:
    """A model of the authors' code as ours: the same function of the same tokens.

    Upstream rounds the cosines and sines of RoPE to bfloat16 (but not in its `…_decay` files) where we keep float32;
    logits differ by that.

    Args:
        state_dict: weights under upstream's names. Prefixes of DDP and torch.compile are stripped; of the tied
            `lm_head.weight` and `transformer.wte.weight` one suffices.
        config: upstream's config.json. A missing or null setting takes the default of that model file:
            vocab_size 50304, n_layer 12, n_embd 768, block_size 1024, using_groupnorm false, and for its attention
            T6*: n_head 22, head_dim 64, rank 2, q_rank 6; llama-mha*: n_head 6; llama-gqa*: n_head 24, head_dim 64,
            group_size 4; llama-mla: n_head 13, head_dim 64, v_head_dim 64, qk_rope_head_dim 32, q_lora_rank 512,
            kv_lora_rank 256; *partialrope*: rope_partial_factor 1/3; *decay: rope_decay_base 0.999.
            Other settings are passed over, as upstream's model files do.
        arch: name of upstream's model file, such as "T6", "T6_kvonly" or "llama-gqa"; `UPSTREAM_ARCHS` has all.

    Returns:
        The model, its weights in float32.

    Raises:
        ValueError: an unknown arch or one of linear attention; a weight that is missing, left over or of a shape that
            contradicts the configuration; tied weights that differ; a weight that is not finite.
    """
    found = find_arch(arch)
    weights = plain_weights(state_dict)
    check_weights(weights, config, found)
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite: the weights are of a training that failed.")
    model = T6Model(upstream_config(config, found))
    model.load_state_dict(_our_weights(weights, model, found))
    return model


def upstream_config(config: dict[str, Any], arch: Arch) -> T6Config:
    """The settings of one of upstream's models as ours.

    Args:
        config: upstream's config.json.
        arch: the model file.

    Raises:
        ValueError: settings that neither upstream's code nor ours can run.
    """
    settings = read_settings(config, arch)
    return T6Config(
        vocab_size=settings["vocab_size"],
        max_seq_len=settings["block_size"],
        d_model=settings["n_embd"],
        num_layers=settings["n_layer"],
        attention=_attention_config(settings, arch),
        multiple_of=1,
    )


def _attention_config(settings: dict[str, Any], arch: Arch) -> AttentionConfig:
    heads = {"num_heads": settings["n_head"], "head_dim": settings["head_dim"]}
    heads["head_norm"] = settings["using_groupnorm"]
    if arch.mechanism == "mla":
        return LatentConfig(
            **heads,
            value_dim=settings["v_head_dim"],
            rope_dim=settings["qk_rope_head_dim"],
            query_latent_dim=settings["q_lora_rank"],
            kv_latent_dim=settings["kv_lora_rank"],
        )
    heads |= {"rope_fraction": settings.get("rope_partial_factor", 1.0), "rope_decay": settings.get("rope_decay_base")}
    if arch.mechanism in ("mha", "gqa"):
        return MultiHeadConfig(num_kv_heads=settings.get("kv_heads"), **heads)
    ranks = {"rank_k": settings["rank"], "rank_v": settings["rank"]}
    if arch.mechanism == "tpa-kv":
        return TPAConfig(**heads, **ranks, factorized="kv", rope_on=arch.rope_on)
    return TPAConfig(**heads, **ranks, rank_q=settings["q_rank"], rope_on=arch.rope_on)


def plain_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a state dict of upstream, without prefixes of wrappers, the tied one once.

    Raises:
        ValueError: something that is no tensor, a weight twice, or tied weights that differ.
    """
    weights: dict[str, Tensor] = {}
    for wrapped, weight in state_dict.items():
        name = wrapped
        for prefix in _WRAPPERS:
            name = name.replace(prefix, "")
        if not isinstance(weight, Tensor):
            raise ValueError(f"{wrapped} is of type {type(weight).__name__}; a state dict holds tensors only.")
        if name in weights:
            raise ValueError(f"{wrapped}: the state dict holds {name} twice, under two prefixes.")
        weights[name] = weight
    head = weights.pop(_HEAD, None)
    if head is not None and not torch.equal(weights.setdefault(EMBEDDING, head), head):
        raise ValueError(
            f"{_HEAD} and {EMBEDDING} are one tied weight in every model of upstream, but these two differ: "
            f"the weights are not of such a model, or damaged."
        )
    return weights


def _our_weights(weights: Mapping[str, Tensor], model: T6Model, arch: Arch) -> dict[str, Tensor]:
    """The weights under our names, in our layout."""
    ours = {"embedding.weight": weights[EMBEDDING], "head.weight": weights[EMBEDDING]}
    for index in range(model.config.num_layers):
        prefix = f"transformer.h.{index}."
        theirs = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        layer = {
            "feed_forward.gate_and_value.weight": torch.cat((theirs["mlp.c_fc1.weight"], theirs["mlp.c_fc2.weight"])),
            "feed_forward.out.weight": theirs["mlp.c_proj.weight"],
            "attention.out.weight": theirs["attn.c_proj.weight"],
        }
        if "attn.subln.weight" in theirs:
            layer["attention.head_norm.weight"] = theirs["attn.subln.weight"]
        if arch.mechanism == "mla":
            layer |= {f"attention.{name}": theirs[name_there] for name, name_there in _LATENT_NAMES.items()}
        elif arch.mechanism in ("mha", "gqa"):
            layer["attention.qkv.weight"] = torch.cat([theirs[f"attn.c_{part}.weight"] for part in "qkv"])
        else:
            layer["attention.factors.weight"] = _factor_rows(theirs, model.config.attention)
        ours |= {f"blocks.{index}.{name}": weight for name, weight in layer.items()}
    return ours


def _factor_rows(theirs: Mapping[str, Tensor], config: AttentionConfig) -> Tensor:
    """Upstream's factor weights, one below the other as our module has them.

    Upstream views A as (H, R): row h·R + r of its weight belongs to head h of term r. Ours is row r·H + h.
    """
    assert isinstance(config, TPAConfig)
    rows = []
    for name, (rank, size) in config.pieces().items():
        if name == "q":
            rows.append(theirs["attn.c_qkv.c_q.weight"])
            continue
        factor, part = name.split("_")
        weight = theirs[f"attn.c_qkv.W_{factor.upper()}_{part}.weight"]
        if factor == "a":
            weight = weight.unflatten(0, (size, rank)).transpose(0, 1).flatten(0, 1)
        rows.append(weight)
    return torch.cat(rows)
