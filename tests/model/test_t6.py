import pytest
import torch
import torch.nn.functional as F

from lit_t6.attention import MultiHeadConfig, TPAConfig
from lit_t6.model import IGNORED_TARGET, SwiGLU, T6Config, T6Model
from lit_t6.ops.linear_cross_entropy import chunks

SMALL = T6Config(vocab_size=97, max_seq_len=16, d_model=48, num_layers=2, attention=TPAConfig(3, 16), multiple_of=8)


def randomised(config=SMALL):
    """A model whose zero-initialised projections are random too."""
    model = T6Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model


def test_starts_as_the_tied_head_of_the_normed_embedding():
    model = T6Model(SMALL)
    tokens = torch.randint(97, (2, 5))
    x = model.embedding.weight[tokens]
    torch.testing.assert_close(model(tokens), F.rms_norm(x, (48,)) @ model.embedding.weight.T)


def test_block_is_the_papers():
    model = randomised()
    block = model.blocks[0]
    x = torch.randn(1, 4, 48)
    middle = x + block.attention(F.rms_norm(x, (48,)))
    w1, w2 = block.feed_forward.gate_and_value.weight.chunk(2)
    normed = F.rms_norm(middle, (48,))
    expected = middle + (F.silu(normed @ w1.T) * (normed @ w2.T)) @ block.feed_forward.out.weight.T
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("attention", [TPAConfig(head_dim=8), MultiHeadConfig(head_dim=16), MultiHeadConfig(4, 2, 8)])
def test_number_of_parameters(attention):
    config = T6Config(vocab_size=97, d_model=48, num_layers=2, attention=attention)
    model = T6Model(config)
    assert sum(p.numel() for p in model.parameters()) == config.num_parameters()
    assert model.config.attention.num_heads is not None


def test_loss_reductions_and_ignored_targets():
    model = randomised()
    tokens, targets = torch.randint(97, (2, 3, 6))
    targets[0, 4:] = IGNORED_TARGET
    each = model.loss(tokens, targets, reduction="none")
    assert each.shape == (3, 6)
    assert not each[0, 4:].any()
    torch.testing.assert_close(model.loss(tokens, targets, reduction="sum"), each.sum())
    torch.testing.assert_close(model.loss(tokens, targets), each.sum() / 16)
    log_probabilities = model(tokens).log_softmax(-1)
    torch.testing.assert_close(each[1, 2], -log_probabilities[1, 2, targets[1, 2]])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss_of_many_tokens_takes_some_of_them_at_a_time(reduction, monkeypatch):
    model = randomised().double()
    tokens, targets = torch.randint(97, (2, 9, 16))
    targets[3] = IGNORED_TARGET
    found = []
    for limit in (chunks.MAX_BYTES, 0):
        monkeypatch.setattr(chunks, "MAX_BYTES", limit)
        monkeypatch.setattr(chunks, "MIN_TOKENS", 128)
        loss = model.loss(tokens, targets, reduction=reduction)
        parameters = dict(model.named_parameters())
        grads = torch.autograd.grad(loss.square().sum(), list(parameters.values()))
        found.append({"loss": loss.detach()} | dict(zip(parameters, grads, strict=True)))
    torch.testing.assert_close(found[1], found[0])


def test_causal_and_documents_reach_the_attention():
    model = randomised()
    tokens = torch.randint(97, (1, 8))
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 97
    assert torch.equal(model(tokens)[:, :5], model(changed)[:, :5])
    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])
    torch.testing.assert_close(model(tokens, document_ids=ids)[:, 3:], model(tokens[:, 3:]), rtol=1e-4, atol=1e-4)
    shifted = model(tokens, positions=torch.arange(8) + 100)
    torch.testing.assert_close(shifted, model(tokens), rtol=1e-4, atol=1e-4)


def test_longer_than_max_seq_len():
    assert randomised()(torch.randint(97, (1, 40))).shape == (1, 40, 97)


def test_swiglu_width():
    assert T6Config(d_model=1024, multiple_of=1).ffn_width == 2730
    assert T6Config(d_model=1024).ffn_width == 2752
    assert SwiGLU(8, 24)(torch.randn(2, 8)).shape == (2, 8)


def test_init_reaches_the_attention():
    def spread(**options):
        torch.manual_seed(0)
        config = T6Config(vocab_size=97, d_model=64, num_layers=1, attention=TPAConfig(4, 16), **options)
        return T6Model(config).blocks[0].attention.factors.weight.std().item()

    assert spread(init="paper") > 1.5 * spread()
    assert spread(init="variance", init_variance=4.0) > 1.5 * spread(init="variance", init_variance=0.25)


def test_the_loss_goes_through_the_call_of_the_model():
    """Hooks that gather sharded weights hang there."""
    model, seen = T6Model(SMALL), []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    model.loss(torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4, dtype=torch.int64)).backward()
    assert seen == [1]
