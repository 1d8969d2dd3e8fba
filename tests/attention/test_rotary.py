import pytest
import torch

from lit_t6.attention import RotaryEmbedding, TPAConfig


def test_table_stays_float32_and_out_of_checkpoints():
    rope = RotaryEmbedding(8, 4).bfloat16()
    assert rope.cos.dtype == torch.float32
    assert not rope.state_dict()
    module = TPAConfig(2, 8).build(16).to(torch.float64)
    assert module.rope.cos.dtype == torch.float32


def test_table_extends_itself_and_agrees_with_explicit_positions():
    rope = RotaryEmbedding(8, 4)
    x = torch.randn(1, 11, 2, 8)
    (longer,) = rope(x)
    assert rope.cos.shape[0] >= 11
    (explicit,) = rope(x, positions=torch.arange(11))
    assert torch.equal(longer, explicit)


def test_a_table_that_grew_in_inference_mode_can_be_trained_with():
    module = TPAConfig(2, 8).build(16, max_seq_len=4)
    with torch.inference_mode():
        module(torch.randn(1, 9, 16))
    module(torch.randn(1, 4, 16)).sum().backward()


def test_odd_size_is_refused():
    with pytest.raises(ValueError, match="got 5"):
        RotaryEmbedding(5)


def test_survives_a_stay_on_the_meta_device():
    with torch.device("meta"):
        module = TPAConfig(2, 8).build(16)
    module = module.to_empty(device="cpu")
    module.reset_parameters()
    assert module(torch.randn(1, 3, 16)).shape == (1, 3, 16)
