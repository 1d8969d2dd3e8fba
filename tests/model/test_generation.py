import pytest
import torch

from lit_t6.attention import MultiHeadConfig
from lit_t6.model import SamplingConfig, T6Config, T6Model

from .mechanisms import MECHANISMS, build

GREEDY = SamplingConfig(temperature=0)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3], [2, 3, 8]]


def rows_of(generation):
    return torch.stack(list(generation), dim=1).tolist()


@torch.no_grad()
def recomputed(model, prompt, num_tokens, context):
    """Greedy tokens, the whole window computed again for each; a full window gives way to its last half."""
    window, new = prompt[-context:], []
    for _ in range(num_tokens):
        if len(window) > context:
            window = window[-((context + 1) // 2) :]
        new.append(int(model(torch.tensor([window]))[0, -1].argmax()))
        window = [*window, new[-1]]
    return new


@pytest.fixture
def counter():
    """Always predicts the successor of the last token, modulo 10, with certainty."""
    model = T6Model(T6Config(10, 8, 16, 1, MultiHeadConfig(2, 1, 8)))  # blocks start as the identity
    model.embedding.weight.data = torch.eye(10, 16)
    model.head.weight = torch.nn.Parameter(100 * torch.eye(10, 16).roll(1, dims=0))
    return model


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("context", [64, 10, 5, 1])
def test_greedy_with_the_cache_is_greedy_by_recomputation(mechanism, context):
    model = build(mechanism, context)
    expected = [recomputed(model, prompt, 20, context) for prompt in PROMPTS]
    assert rows_of(model.generate(PROMPTS, 20, GREEDY)) == expected
    for prompt, alone in zip(PROMPTS, expected, strict=True):
        assert rows_of(model.generate([prompt], 20, GREEDY)) == [alone]


def test_every_token_is_computed_once(counter):
    seen = []
    counter.embedding.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
    list(counter.generate([[1, 2, 3]], 11, GREEDY))
    assert seen == [3, 1, 1, 1, 1, 1, 4, 1, 1, 1, 1]  # eight tokens are full: on from the last four


def test_the_head_and_the_cache_take_what_is_needed_only(counter):
    logits = []
    counter.head.register_forward_hook(lambda module, args, out: logits.append(out.shape))
    generation = counter.generate([[1, 2, 3], [4]], 4)
    assert generation.cache.capacity == 6
    list(generation)
    assert logits == [(2, 10)] * 4


def test_prompts_in_all_their_forms(counter):
    expected = [[3, 4, 5], [9, 0, 1]]
    tensor = torch.tensor([[1, 2], [7, 8]])
    for prompts in (tensor, tensor.int(), list(tensor), tensor.tolist(), [torch.tensor([2]), torch.tensor([7, 8])]):
        new = list(counter.generate(prompts, 3))
        assert torch.stack(new, dim=1).tolist() == expected
        assert new[0].dtype == torch.int64
    assert list(counter.generate(tensor, 0)) == []


def test_a_finished_row_goes_on_with_the_end_token_until_all_are_finished(counter):
    generation = counter.generate([[1], [6], [9]], 20, end_token=0)
    assert rows_of(generation) == [[2, 3, 4, 5, 6, 7, 8, 9, 0], [7, 8, 9, 0] + [0] * 5, [0] * 9]
    assert generation.finished.all()
    assert rows_of(counter.generate([[1], [6]], 3, end_token=0)) == [[2, 3, 4], [7, 8, 9]]


def test_a_seed_gives_the_same_text_again():
    model = T6Model(T6Config(50, 8, 32, 1, MultiHeadConfig(2, 1, 8)))
    prompts = [[1, 2], [3]]
    texts = [rows_of(model.generate(prompts, 12, SamplingConfig(1.0), seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_autocast_and_training_go_on_undisturbed():
    model = T6Model(T6Config(50, 8, 32, 1, MultiHeadConfig(2, 1, 8)))
    with torch.autocast("cpu", torch.bfloat16):
        generation = model.generate([[1, 2], [3]], 12, seed=0)
        assert generation.cache.layers[0].buffers["k"].dtype == torch.bfloat16
        list(generation)
    assert model.training
    assert torch.is_grad_enabled()
    model.loss(*torch.randint(50, (2, 2, 8))).backward()


def test_a_compiled_model_generates_without_compiling():
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    model = build("gqa")
    model.compile(backend=backend)
    assert rows_of(model.generate(PROMPTS, 5, GREEDY)) == rows_of(build("gqa").generate(PROMPTS, 5, GREEDY))
    assert not graphs


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "there are no prompts"),
        ([[1], []], "prompt 2 is empty: give at least one token"),
        ([[1], [2, 1000]], "prompt 2 holds the id 1000; the model knows 0 to"),
        ([[-1]], "prompt 1 holds the id -1"),
        (torch.zeros(1, 0, dtype=torch.long), "prompt 1 is empty"),
        ([1, 2], r"expected a tensor \(B, T\) or one sequence .* entry of shape \(\); .* pass tokens\[None\]"),
        ([[0.5]], "prompt 1 is of type torch.float32, expected integer ids"),
    ],
)
def test_impossible_prompts_are_refused(counter, prompts, message):
    with pytest.raises(ValueError, match=message):
        counter.generate(prompts, 1)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 0, got -1"):
        counter.generate([[1]], -1)
