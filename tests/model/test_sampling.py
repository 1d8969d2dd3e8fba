import pytest
import torch

from lit_t6.model import SamplingConfig, sample


def test_greedy_takes_the_likeliest_and_cuts_leave_only_the_likely():
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0]]).repeat(2000, 1)
    assert (sample(logits, SamplingConfig(temperature=0)) == 1).all()
    assert set(sample(logits, SamplingConfig(temperature=5, top_k=2, top_p=1)).tolist()) == {1, 2}
    # probabilities .644, .237, .087, .032: the first two reach .7 together
    assert set(sample(logits, SamplingConfig(temperature=1, top_p=0.7)).tolist()) == {1, 2}
    assert set(sample(logits, SamplingConfig(temperature=1, top_p=1e-6)).tolist()) == {1}


def test_samples_follow_the_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.2])
    drawn = sample(probabilities.log().repeat(20000, 1), SamplingConfig(temperature=1, top_p=1))
    frequencies = torch.bincount(drawn, minlength=3) / 20000
    torch.testing.assert_close(frequencies, probabilities, rtol=0, atol=0.015)


def test_the_smallest_temperature_takes_the_likeliest():
    logits = torch.randn(100, 30) * 50
    for temperature in (1e-42, 1e-300):
        assert torch.equal(sample(logits, SamplingConfig(temperature, top_p=1)), logits.argmax(-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, "got -1"),
        ({"temperature": float("nan")}, "got nan"),
        ({"top_k": 0}, "top_k .* got 0"),
        ({"top_p": 0}, "top_p .* got 0"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)
