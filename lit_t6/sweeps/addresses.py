"""Addresses of storages as they may be shown: a password may have any letter in it, or be a parameter."""

import re

_LOGIN = re.compile("(?<=://)(?:(?P<user>[^:@/]*):)?.*@")
_PARAMETER = re.compile("(?<=[?&])(?P<name>password|passwd|pwd)=[^&]*(?P<end>&?)")


def hidden(address: str | None) -> str:
    """An address for its owner, who sees who asks, and that there is a password."""
    shown = _LOGIN.sub(lambda login: login[0] if login["user"] is None else f"{login['user']}:…@", address or "")
    return _PARAMETER.sub(r"\g<name>=…\g<end>", shown)


def published(word: str) -> str:
    """A word of a command for anybody: of an address, neither user nor password."""
    return _PARAMETER.sub("", _LOGIN.sub("", word))
