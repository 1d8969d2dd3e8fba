import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.interop import UPSTREAM_ARCHS, archs_that_fit, from_upstream, plain_weights
from lit_t6.interop.archs import find_arch, read_settings
from lit_t6.interop.layout import layout, sizes
from lit_t6.interop.upstream import upstream_config

FIXTURES = sorted(Path("tests/golden").glob("*.safetensors"))
CONFIG = {"vocab_size": 19, "n_layer": 2, "n_embd": 30, "n_head": 5, "head_dim": 16, "rank": 2, "q_rank": 3}
CONFIG |= {"group_size": 5, "q_lora_rank": 7, "kv_lora_rank": 9, "qk_rope_head_dim": 4, "v_head_dim": 8}
T6 = "transformer.h.0.attn.c_qkv."


def golden(path):
    """(tensors, configuration, arch) of a fixture."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    return load_file(path), json.loads(metadata["config"]), Path(metadata["official_file"]).stem


def part(tensors, kind):
    return {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}


def random_weights(arch, **changes):
    config = CONFIG | changes
    found = find_arch(arch)
    settings = read_settings(config, found)
    return {name: torch.randn(sizes(shape, settings)) for name, shape in layout(found, settings).items()}, config


def relative(ours, theirs):
    """Largest error, relative to the largest number."""
    return float((ours.detach() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_logits_loss_and_gradients_are_those_of_the_authors_code(path):
    tensors, config, arch = golden(path)
    model = from_upstream(part(tensors, "param."), config, arch)
    logits = model(tensors["idx"])
    loss = model.loss(tensors["idx"], tensors["targets"].long())
    loss.backward()
    gradients = from_upstream(part(tensors, "grad."), config, arch).state_dict()  # laid out as the weights are
    errors = {name: relative(weight.grad, gradients[name]) for name, weight in model.named_parameters()}
    worst = max(errors, key=errors.__getitem__)
    of_logits, of_loss = relative(logits, tensors["logits"]), abs(loss.item() / tensors["loss"].item() - 1)
    print(f"\n{path.stem}: logits {of_logits:.1e}, loss {of_loss:.1e}, gradients {errors[worst]:.1e} ({worst})")
    assert of_logits < 1e-4
    assert of_loss < 1e-5
    assert errors[worst] < 1e-3


def test_there_are_fixtures():
    assert len(FIXTURES) >= 6


def test_settings_become_ours():
    config = upstream_config(CONFIG | {"using_groupnorm": True}, find_arch("T6_partialrope_decay"))
    expected = dict(rope_fraction=1 / 3, rope_decay=0.999, head_norm=True)
    attention = config.attention
    assert isinstance(attention, TPAConfig)
    assert {name: getattr(attention, name) for name in expected} == expected
    assert (attention.num_heads, attention.rank_q, attention.rank_k, attention.rank_v) == (5, 3, 2, 2)
    assert (config.max_seq_len, config.ffn_width, config.vocab_size) == (1024, 80, 19)
    assert upstream_config({}, find_arch("llama-gqa")).attention == MultiHeadConfig(24, 6, 64)
    assert upstream_config({"n_head": None}, find_arch("llama-mha")).attention == MultiHeadConfig(6, None, 128)
    rotated = upstream_config(CONFIG | {"rope_partial_factor": 0.5}, find_arch("llama-gqa-partialrope")).attention
    assert rotated == MultiHeadConfig(5, 1, 16, rope_fraction=0.5)


def test_heads_of_mha_share_the_width_whatever_head_dim_says():
    weights, config = random_weights("llama-mha", head_dim=64)
    assert from_upstream(weights, config, "llama-mha").config.attention.head_dim == 6


def test_the_authors_width_is_ours():
    assert all(math.floor(8 / 3 * width) == 8 * width // 3 for width in range(1, 20_000))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_wrappers_are_stripped(prefix):
    weights, config = random_weights("T6")
    plain = from_upstream(weights, config, "T6").state_dict()
    wrapped = from_upstream({prefix + name: weight for name, weight in weights.items()}, config, "T6.py").state_dict()
    assert all(torch.equal(wrapped[name], plain[name]) for name in plain)


def test_a_weights_type_becomes_float32():
    weights, config = random_weights("llama-gqa")
    model = from_upstream({name: weight.bfloat16() for name, weight in weights.items()}, config, "llama-gqa")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_one_of_the_tied_weights_is_enough():
    weights, config = random_weights("T6")
    head = weights.pop("transformer.wte.weight")
    model = from_upstream(weights | {"lm_head.weight": head}, config, "T6")
    assert torch.equal(model.embedding.weight, head)
    assert model.head.weight is model.embedding.weight
    both = weights | {"lm_head.weight": head, "transformer.wte.weight": head + 1}
    with pytest.raises(ValueError, match=r"tied weight .* these two differ"):
        from_upstream(both, config, "T6")
    with pytest.raises(ValueError, match=r"expects transformer.wte.weight, which is not among the weights\."):
        from_upstream(weights, config, "T6")


def refusal(arch, weights, config):
    with pytest.raises(ValueError, match=r"\.$") as error:
        from_upstream(weights, config, arch)
    return str(error.value)


def test_a_weight_that_is_not_finite_is_named():
    weights, config = random_weights("T6")
    name = next(name for name in weights if name.endswith("W_B_k.weight"))
    weights[name][0, 0] = float("nan")
    assert f"{name} holds numbers that are not finite" in refusal("T6", weights, config)


def test_archs_that_only_their_owner_can_tell_apart():
    weights, config = random_weights("T6")
    also = archs_that_fit(plain_weights(weights), config)
    assert also == ["T6", "T6_ropek", "T6_partialrope", "T6_partialrope_decay"]


def test_another_arch_is_named():
    weights, config = random_weights("T6_kvonly")
    message = refusal("T6", weights, config)
    assert f"T6 expects {T6}W_A_q.weight (and 3 more)" in message
    assert f"no use for {T6}c_q.weight (and 1 more)" in message
    assert message.endswith(
        "the weights are those of T6_kvonly, T6_kvonly_ropek, T6_kvonly_partialrope or T6_kvonly_partialrope_decay."
    )
    weights, config = random_weights("llama-gqa")
    assert "the weights are those of llama-gqa, llama-gqa-partialrope" in refusal("llama-mha", weights, config)


def test_missing_and_left_over_weights_are_named():
    weights, config = random_weights("llama-mla")
    lost = "transformer.h.1.attn.kv_b_proj.weight"
    without = {name: weight for name, weight in weights.items() if name != lost}
    assert refusal("llama-mla", without, config) == f"llama-mla expects {lost}, which is not among the weights."
    more = weights | {"transformer.wpe.weight": torch.zeros(3, 3)}
    assert refusal("llama-mla", more, config).startswith("llama-mla has no use for transformer.wpe.weight, which is")
    assert "is of type int" in refusal("llama-mla", {"step": 3}, config)


@pytest.mark.parametrize(
    ("arch", "change", "words"),
    [
        ("T6", {"n_head": 7}, [f"{T6}W_A_q.weight has the shape (15, 30)", "(21, 30)", "n_head=7, q_rank=3"]),
        ("T6", {"q_rank": None}, ["q_rank=6 (the default of T6; the config has none)"]),
        ("T6", {"n_layer": 12}, ["the weights have 2 layers, but n_layer=12"]),
        ("T6", {"vocab_size": 50304}, ["transformer.wte.weight", "(19, 30)", "vocab_size=50304"]),
        ("T6", {"using_groupnorm": True}, ["using_groupnorm=true, but the weights do not have", "subln"]),
        ("T6", {"n_embd": 31}, ["n_embd=31"]),
        ("llama-gqa", {"group_size": 1}, ["kv_heads=5 (n_head / group_size)"]),
        ("llama-gqa", {"group_size": 3}, ["n_head=5 is not a multiple of group_size=3"]),
        ("llama-mha", {"n_head": 4}, ["n_embd=30 is not a multiple of n_head=4"]),
        ("llama-mla", {"n_head": 4}, ["q_b_proj.weight has the shape (100, 7)", "(80, 7)"]),
        ("llama-mla", {"using_groupnorm": True}, ["norms head_dim + qk_rope_head_dim = 20 features"]),
        ("T6", {"n_head": "5"}, ["n_head='5', but T6 needs a whole number above 0"]),
        ("T6", {"using_groupnorm": "yes"}, ["needs true or false"]),
        ("T6_partialrope", {"rope_partial_factor": "half"}, ["rope_partial_factor='half'", "a number"]),
        ("T6_partialrope", {"rope_partial_factor": 0.01}, ["leaves no pair to rotate"]),
    ],
)
def test_a_configuration_that_contradicts_the_weights(arch, change, words):
    weights, config = random_weights(arch)
    message = refusal(arch, weights, config | change)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("T6_kvonli", "no model file of upstream; did you mean 'T6_kvonly'? There are T6, T6_kvonly, "),
        ("T6_linearattn_partialrope_decay", "linear attention has no softmax"),
        ("llama-linearattn-gqa-partialrope-decay", "linear attention has no softmax"),
        ("T6_linear", "linear attention has no softmax"),
        ("T6_infer", "a file for decoding with the weights of T6; name that one"),
    ],
)
def test_unknown_archs(arch, words):
    assert words in refusal(arch, {}, {})


def test_every_arch_has_a_layout():
    for name, arch in UPSTREAM_ARCHS.items():
        weights, config = random_weights(name)
        shapes = layout(arch, read_settings(config, arch))
        assert list(shapes) == list(weights)
