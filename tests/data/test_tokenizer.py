import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lit_t6.data.tokenizer import (
    END_OF_TEXT,
    encode_documents,
    encode_text,
    end_of_text_id,
    load_tokenizer,
    parse_tokenizer,
    token_num_bytes,
    train_tokenizer,
)

TEXTS = ["hello hello world", "naïve café — 日本語 🙂\n\tindented", "  leading", "\x00\x7f\xa0"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 5, 300, show_progress=False)


def test_any_text_comes_back(tokenizer):
    for text in [*TEXTS, "letters never seen: Ж ∀ 😀"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_bytes_of_tokens_are_those_of_the_text(tokenizer):
    num_bytes = token_num_bytes(tokenizer)
    assert num_bytes[end_of_text_id(tokenizer)] == 0
    for text in [*TEXTS, "letters never seen: Ж ∀ 😀"]:
        assert num_bytes[tokenizer.encode(text).ids].sum() == len(text.encode())


def test_every_byte_is_one_byte_long(tokenizer):
    """Also those that no valid UTF-8 text holds."""
    num_bytes = token_num_bytes(tokenizer)
    alphabet = [tokenizer.token_to_id(letter) for letter in pre_tokenizers.ByteLevel.alphabet()]
    assert len(alphabet) == 256
    assert (num_bytes[alphabet] == 1).all()


def test_documents_in_batches(tokenizer):
    texts = [f"hello {n}" for n in range(10)]
    encoded = list(encode_documents(tokenizer, texts, batch_characters=25))
    assert [document for document, _ in encoded] == texts
    assert [tokenizer.decode(ids) for _, ids in encoded] == texts
    assert all(ids.dtype == np.int64 for _, ids in encoded)


def test_a_special_token_in_a_text_is_text(tokenizer):
    text = f"a {END_OF_TEXT} b"
    ids = encode_text(tokenizer, text)
    assert end_of_text_id(tokenizer) not in ids
    assert tokenizer.decode(ids) == text
    assert token_num_bytes(tokenizer)[ids].sum() == len(text)
    assert not tokenizer.encode_special_tokens


def test_tokenizers_that_do_not_serve(tmp_path):
    with pytest.raises(ValueError, match="vocab_size=100: a byte-level vocabulary needs at least 257"):
        train_tokenizer(TEXTS, 100)
    with pytest.raises(ValueError, match="no such tokenizer file"):
        load_tokenizer(tmp_path / "none.json")
    with pytest.raises(ValueError, match="mine: not a tokenizer"):
        parse_tokenizer("{}", "mine")
    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(["日本 語"], trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False))
    with pytest.raises(ValueError, match="not written in bytes: only byte-level BPE"):
        token_num_bytes(words)
    with pytest.raises(ValueError, match=rf"no end-of-text token: expected one of {END_OF_TEXT}".replace("|", r"\|")):
        end_of_text_id(words)
