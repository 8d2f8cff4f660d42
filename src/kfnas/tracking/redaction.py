"""Credentials out of text: what is logged, tracked or shown names a server, never its password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"<>]*@")
_SECRET = r"(?:[\w.-]*(?:password|passwd|pwd|token|secret|signature|credential|api_?key|access_?key)[\w.-]*|sig)"
_QUERY = re.compile(rf"(?i)(?P<key>[?&;]{_SECRET}=)[^&;\s'\"<>]+")


def redacted(value: Any) -> Any:
    """`value` (a text, or mappings and sequences of texts) with the user part and the secret query fields of every URI in it hidden."""
    if isinstance(value, str):
        return _QUERY.sub(rf"\g<key>{HIDDEN}", _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", value))
    if isinstance(value, Mapping):
        return {key: redacted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    return value
