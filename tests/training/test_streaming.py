import pytest
import torch
from tokenizers import Tokenizer

from lit_t6.attention import MultiHeadConfig
from lit_t6.data.tokenizer import END_OF_TEXT, train_tokenizer
from lit_t6.model import SamplingConfig, T6Config, T6Model
from lit_t6.training import TextStream, generate_texts, stream_text
from lit_t6.training.streaming import StopFilter

GREEDY = SamplingConfig(temperature=0)
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([], 257, show_progress=False)  # a token a byte


@pytest.fixture(scope="module")
def alphabet(tokenizer):
    """A model that says the alphabet from the last letter on, then ü, which is two tokens, then end-of-text."""
    ids = [token for letter in ALPHABET + "ü" for token in tokenizer.encode(letter).ids]
    end = tokenizer.token_to_id(END_OF_TEXT)
    model = T6Model(T6Config(257, 64, 257, 1, MultiHeadConfig(2, 1, 8)))  # blocks start as the identity
    successor = torch.zeros(257, 257)
    for this, following in zip([end, *ids], [*ids, end], strict=True):
        successor[following, this] = 100
    model.embedding.weight.data = torch.eye(257)
    model.head.weight = torch.nn.Parameter(successor)
    return model.eval()


def test_pieces_are_whole_characters_and_end_at_end_of_text(alphabet, tokenizer):
    assert list(stream_text(alphabet, tokenizer, "w", 50)) == ["x", "y", "z", "ü"]
    assert list(stream_text(alphabet, tokenizer, "w", 4)) == ["x", "y", "z"]
    assert list(stream_text(alphabet, tokenizer, "", 2)) == ["a", "b"]
    assert list(stream_text(alphabet, tokenizer, "w", 0)) == []


def test_a_stop_string_and_what_follows_are_not_part_of_the_text(alphabet, tokenizer):
    assert list(stream_text(alphabet, tokenizer, "a", 50, stop=["fgh"])) == ["b", "c", "d", "e"]
    assert list(stream_text(alphabet, tokenizer, "a", 50, stop=["fgx"]))[4] == "fgh"  # held back until it is decided
    assert list(stream_text(alphabet, tokenizer, "a", 6, stop=["fgh"])) == ["b", "c", "d", "e", "fg"]  # no more comes
    assert list(stream_text(alphabet, tokenizer, "x", 50, stop=["ü!"])) == ["y", "z", "ü"]
    assert list(stream_text(alphabet, tokenizer, "x", 50, stop="yz")) == []


def test_rows_of_a_batch_end_by_themselves(alphabet, tokenizer):
    prompts = ["a", "m", "", "xyz"]
    texts = generate_texts(alphabet, tokenizer, prompts, 10, GREEDY, stop=["ef", "r"])
    assert texts == ["bcd", "nopq", "abcd", "ü"]
    assert texts == [generate_texts(alphabet, tokenizer, [p], 10, GREEDY, stop=["ef", "r"])[0] for p in prompts]
    stream = TextStream(alphabet, tokenizer, prompts, 10, GREEDY, stop=["ef", "r"])
    assert list(stream)[:3] == [(0, "b"), (1, "n"), (2, "a")]
    assert [completion.num_tokens for completion in stream.completions] == [5, 5, 6, 2]
    assert all(completion.ended for completion in stream.completions)
    assert stream.cache.batch_size == 4


def test_nothing_is_computed_after_the_last_row_has_ended(alphabet, tokenizer):
    calls = []
    hook = alphabet.embedding.register_forward_hook(lambda *_: calls.append(1))
    generate_texts(alphabet, tokenizer, ["a", "b"], 50, stop=["de"])
    hook.remove()
    assert len(calls) == 4


def test_a_prompt_longer_than_the_context_is_read_from_behind(alphabet, tokenizer):
    stream = TextStream(alphabet, tokenizer, ["a" * 70 + "w", "w"], 3)
    assert stream.num_unread == [8, 0]  # of end-of-text and 71 letters
    assert [piece for row, piece in stream if row == 0] == ["x", "y", "z"]


@pytest.mark.parametrize("stop", [["abc"], ["aab"], ["bca", "c"], ["abc", "b"], ["ca", "bb"], ["aa", "a"], []], ids=str)
def test_where_a_text_stops_does_not_depend_on_how_it_is_cut(stop):
    text = "aabcabb"

    def through(pieces):
        stops = StopFilter(stop)
        out = "".join(stops.push(piece) for piece in pieces if not stops.stopped)
        return out + stops.flush()

    by_letter = through(text)
    # the stop string that is complete first ends the text; of two that end together, the longer one is cut off
    ends = [text.find(s) + len(s) for s in stop if s in text]
    cut = [text.find(s) for s in stop if s in text and text.find(s) + len(s) == min(ends)]
    assert by_letter == (text[: min(cut)] if cut else text)
    for first in range(len(text)):
        for second in range(first, len(text)):
            assert through([text[:first], text[first:second], text[second:]]) == by_letter


def test_impossible_settings_are_refused(alphabet, tokenizer):
    with pytest.raises(ValueError, match="stop: an empty string"):
        generate_texts(alphabet, tokenizer, ["a"], 5, stop=["b", ""])
    with pytest.raises(ValueError, match="there are no prompts"):
        generate_texts(alphabet, tokenizer, [], 5)
    small = T6Model(T6Config(100, 64, 16, 1, MultiHeadConfig(2, 1, 8)))
    with pytest.raises(ValueError, match="the tokenizer has 257 tokens and the model knows 100"):
        generate_texts(small, tokenizer, ["a"], 5)
