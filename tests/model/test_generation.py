import pytest
import torch

from lit_t6.attention import TPAConfig
from lit_t6.model import SamplingConfig, T6Config, T6Model, generate, sample


def counting_model(tokens):
    """Always predicts the successor of the last token, modulo 10, with certainty."""
    return torch.nn.functional.one_hot((tokens + 1) % 10, 10) * 100.0


def test_continues_every_row():
    new = list(generate(counting_model, torch.tensor([[1, 2], [7, 8]]), 3, SamplingConfig()))
    assert torch.stack(new, dim=1).tolist() == [[3, 4, 5], [9, 0, 1]]


def test_context_is_bounded():
    seen = []

    def model(tokens):
        seen.append(tokens.shape[1])
        return counting_model(tokens)

    list(generate(model, torch.tensor([[1, 2, 3]]), 4, SamplingConfig(), context=5))
    assert seen == [3, 4, 5, 5]


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


def test_a_seed_gives_the_same_text_again():
    model = T6Model(T6Config(50, 8, 32, 1, TPAConfig(2, 8)))
    prompt = torch.tensor([[1, 2]])
    texts = [[int(t) for t in model.generate(prompt, 12, SamplingConfig(1.0), seed)] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": -1}, "got -1"), ({"top_k": 0}, "top_k .* got 0"), ({"top_p": 0}, "top_p .* got 0")],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**options)


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="the prompt is empty"):
        next(generate(counting_model, torch.zeros(1, 0, dtype=torch.long), 1, SamplingConfig()))
