import pytest

from lit_t6.sweeps.addresses import hidden, published


def test_a_password_is_hidden():
    assert hidden("postgresql://me:secret@host/x") == "postgresql://me:…@host/x"
    assert hidden("postgresql://host/x") == "postgresql://host/x"
    assert hidden(None) == ""


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:…@host/db"),
        ("postgresql://me:se/cr@et@host/db", "postgresql://me:…@host/db"),
        (
            "postgresql://me@host/db?password=secret&sslmode=require",
            "postgresql://me@host/db?password=…&sslmode=require",
        ),
        ("postgresql://host/db", "postgresql://host/db"),
        (None, ""),
    ],
)
def test_no_password_is_shown(address, shown):
    assert hidden(address) == shown


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("postgresql://me:se/cr@et@host/db", "postgresql://host/db"),
        ("postgresql://me@host/db?password=secret&sslmode=require", "postgresql://host/db?sslmode=require"),
        ("--logs", "--logs"),
    ],
)
def test_neither_user_nor_password_is_published(word, shown):
    assert published(word) == shown
