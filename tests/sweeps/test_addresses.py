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
        (
            "postgresql://host/db?PASSWORD=secret&sslpassword=other&x=1",
            "postgresql://host/db?PASSWORD=…&sslpassword=…&x=1",
        ),
        ("postgresql://me@corp:secret@host/db", "postgresql://me@corp:…@host/db"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
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
        ("postgresql://host/db?PASSWORD=secret&sslPassword=other&x=1", "postgresql://host/db?x=1"),
        ("postgresql://me:secret@host:5432/d@b?role=me@corp", "postgresql://host:5432/d@b?role=me@corp"),
        ("postgresql://me@host/db?role=me@corp", "postgresql://host/db?role=me@corp"),
        ("postgresql://host/d@b", "postgresql://host/d@b"),
        ("postgresql://host?user=me@corp&x=1", "postgresql://host?x=1"),
        ("postgresql://me@corp:se/c?r=et@host/db", "postgresql://host/db"),
        ("--logs", "--logs"),
    ],
)
def test_neither_user_nor_password_is_published(word, shown):
    assert published(word) == shown
