"""Addresses of storages as they may be shown: a password may have any letter in it, or be a parameter."""

import re

_GUESSED = re.compile("(?<=://)(?P<user>[^:?]*):.*@")
"""User and password, to the last @ there is: where an address does not work, any of them may be in the password."""
_LOGIN = re.compile("(?<=://)[^:/?]*(?::[^@]*)?@(?:[^/?]*@)?")
"""As SQLAlchemy reads it in an address that works, to the first @ after the colon; a host has no @ in it."""
_PASSWORDS = re.compile(r"(?<=[?&])(?P<name>\w*(?:password|passwd|pwd))=[^&]*(?P<end>&?)", re.IGNORECASE)
_USERS = re.compile("(?<=[?&])user(?:name)?=[^&]*&?", re.IGNORECASE)


def hidden(address: str | None) -> str:
    """An address for its owner, who sees who asks, and that there is a password."""
    return _PASSWORDS.sub(r"\g<name>=…\g<end>", _GUESSED.sub(r"\g<user>:…@", address or ""))


def published(word: str) -> str:
    """A word of a command for anybody: of an address, neither user nor password."""
    return _USERS.sub("", _PASSWORDS.sub("", _LOGIN.sub("", word)))
