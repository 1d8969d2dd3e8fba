"""A step with fixed shapes, as one graph, compiled: each gives what the plain step gives."""

import pytest
import torch

from lit_t6.attention import TPAConfig
from lit_t6.model import DecodeStep, SamplingConfig, T6Config, T6Model

from ..attention.mechanisms import MECHANISMS
from .mechanisms import build

GREEDY = SamplingConfig(temperature=0)
RAGGED = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]


def random_model(config, device="cpu", dtype=torch.float32, **settings):
    """All weights random, zero-initialised projections too."""
    settings = {"vocab_size": 211, "max_seq_len": 512, "d_model": 48, "num_layers": 2, "multiple_of": 8} | settings
    model = T6Model(T6Config(attention=config, **settings))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model.eval().to(device, dtype)


def prefilled(model, prompts, capacity):
    """A cache that holds ragged prompts."""
    cache = model.new_cache(len(prompts), capacity)
    longest = max(map(len, prompts))
    padded = torch.tensor([[*p, *[0] * (longest - len(p))] for p in prompts], device=cache.device)
    with torch.no_grad():
        model.hidden_states(padded, cache=cache)
    cache.truncate([len(p) for p in prompts])
    return cache


@pytest.mark.parametrize("mechanism", MECHANISMS)
@torch.no_grad()
def test_fixed_shapes_give_what_growing_ones_give(mechanism):
    model = random_model(MECHANISMS[mechanism], dtype=torch.float64)
    growing, fixed = (prefilled(model, RAGGED, 40) for _ in range(2))
    for tokens in torch.randint(211, (6, 3, 1)):
        expected = model(tokens, cache=growing)
        with fixed.fixed_shapes(1):
            torch.testing.assert_close(model(tokens, cache=fixed), expected)
        assert fixed.longest == growing.longest
        assert torch.equal(fixed.lengths, growing.lengths)


def test_with_fixed_shapes_a_full_cache_refuses_before_it_is_written():
    model = build("tpa")
    step = DecodeStep(model, prefilled(model, RAGGED, 5), "compile")
    with pytest.raises(ValueError, match="the cache is full: 5 of its 5 positions are taken"):
        step(torch.tensor([1, 2, 3]))


def test_impossible_steps_are_refused():
    model = build("tpa")
    with pytest.raises(ValueError, match="step='fast' is none of auto, eager, graph, compile"):
        model.generate(RAGGED, 3, step="fast")
    with pytest.raises(ValueError, match="step=graph: the model is on cpu, expected a GPU; use auto, eager or compile"):
        model.generate(RAGGED, 3, step="graph")


@pytest.mark.slow  # the C++ compiler
@pytest.mark.parametrize("mechanism", ["tpa", "shared b", "gqa", "mla"])
def test_compiled_blocks_give_the_same_and_are_compiled_once(mechanism):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = random_model(MECHANISMS[mechanism])
    expected = torch.stack(list(model.generate(RAGGED, 12, GREEDY, step="eager")))
    compiled = model.generate(RAGGED, 12, GREEDY, step="compile")
    tokens = [next(compiled) for _ in range(3)]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 1, "one for all blocks"
    assert torch.equal(torch.stack([*tokens, *compiled]), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs


@torch.no_grad()
def assert_greedy(model, prompts, tokens):
    """Each token is the likeliest by a full forward pass over all before it."""
    for prompt, row in zip(prompts, tokens.T, strict=True):
        whole = torch.cat((torch.as_tensor(prompt, device=row.device), row))
        logits = model(whole[None, :-1])[0, len(prompt) - 1 :]
        assert torch.equal(logits.argmax(-1), row)


@pytest.mark.gpu
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_on_a_gpu_greedy_tokens_are_those_of_the_full_forward(mechanism):
    """In float32, past several blocks, in a ragged batch; by a graph and kernel by kernel."""
    model = random_model(MECHANISMS[mechanism], "cuda")
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(211, (length,), generator=generator).tolist() for length in (5, 70, 131)]
    by_graph = torch.stack(list(model.generate(prompts, 300, GREEDY)))
    assert_greedy(model, prompts, by_graph)
    eager = torch.stack(list(model.generate(prompts, 30, GREEDY, step="eager")))
    assert torch.equal(by_graph[:30], eager)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # the compiler's advice; here float32 is wanted
@pytest.mark.parametrize("mechanism", ["tpa", "shared b", "third order", "gqa", "mla", "mfa", "head norm"])
def test_on_a_gpu_compiled_blocks_give_the_same_tokens(mechanism):
    torch._dynamo.reset()
    model = random_model(MECHANISMS[mechanism], "cuda")
    expected = torch.stack(list(model.generate(RAGGED, 200, GREEDY, step="eager")))
    assert torch.equal(torch.stack(list(model.generate(RAGGED, 200, GREEDY, step="compile"))), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("step", ["eager", "graph"])
@pytest.mark.parametrize("mechanism", ["tpa", "gqa", "mla"])
def test_on_a_gpu_nothing_is_compiled_after_the_first_steps(mechanism, step):
    from triton import knobs

    model = random_model(MECHANISMS[mechanism], "cuda", torch.bfloat16, max_seq_len=2048)
    compiled = []

    def count(*args, fn=None, **kwargs):
        compiled.append(fn)
        return False  # go on

    generation = model.generate([[1, 2, 3], [4]], 2000, GREEDY, step=step)
    tokens = [next(generation) for _ in range(10)]
    knobs.runtime.jit_cache_hook = count
    try:
        tokens += list(generation)
    finally:
        knobs.runtime.jit_cache_hook = None
    assert len(tokens) == 2000
    assert not compiled


@pytest.mark.gpu
def test_on_a_gpu_a_graph_goes_on_in_a_new_window_and_under_autocast():
    model = random_model(TPAConfig(6, 16), "cuda", max_seq_len=32)
    with torch.autocast("cuda", torch.bfloat16):
        expected = torch.stack(list(model.generate(RAGGED, 90, GREEDY, step="eager")))
        assert torch.equal(torch.stack(list(model.generate(RAGGED, 90, GREEDY))), expected)


@pytest.mark.gpu
def test_on_a_gpu_the_hook_of_the_compilations_test_sees_them():
    from triton import knobs

    seen = []
    model = random_model(TPAConfig(5, 36), "cuda", torch.bfloat16)  # of no other test
    knobs.runtime.jit_cache_hook = lambda *args, **kwargs: bool(seen.append(1))
    try:
        list(model.generate([[1, 2, 3]], 3, GREEDY))
    finally:
        knobs.runtime.jit_cache_hook = None
    assert seen
