"""Index segments: the rows of one commit as JSON, columns of repeated texts written once. A segment is known by the sha256 in its name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from kfnas.config import canonical_json
from kfnas.errors import CorruptError, StateVersionError
from kfnas.pool.entries import BlockKey, Row

FORMAT = 1
_PACK = re.compile(r"packs/[0-9]{6,}-[0-9a-f]{64}")


def encode_segment(rows: Sequence[Row]) -> bytes:
    """The bytes of a segment with these rows."""
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    listed = [
        [
            row.key.block,
            number(row.key.part),
            list(row.key.tokens),
            number(row.key.shape),
            number(row.task),
            row.generation,
            row.score,
            number(row.source),
            number(row.operations),
            [int(value) if value.is_integer() else value for value in row.embedding],
            row.sha256,
            row.length,
            number(row.pack),
            row.offset,
        ]
        for row in rows
    ]
    return canonical_json({"format": FORMAT, "texts": list(texts), "rows": listed}).encode()


def decode_segment(data: bytes, key: str) -> list[Row]:
    """The rows of the segment named `key`.

    Raises:
        CorruptError: its bytes differ from the digest in its name, or are no segment.
        StateVersionError: a newer kfnas wrote it.
    """
    if hashlib.sha256(data).hexdigest() != key.rpartition("-")[2]:
        raise CorruptError(f"index segment {key} differs from its digest")
    try:
        value = json.loads(data)
        if isinstance(value["format"], int) and value["format"] > FORMAT:
            raise StateVersionError(f"index segment {key}: format {value['format']}, and this kfnas knows {FORMAT}; install a newer kfnas")
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}, not {FORMAT}")
        return [_row(values, value["texts"]) for values in value["rows"]]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise CorruptError(f"index segment {key} is none that this kfnas reads ({error})") from error


def _row(values: list[Any], texts: list[str]) -> Row:
    block, part, tokens, shape, task, generation, score, source, operations, embedding, sha256, length, pack, offset = values
    if not _PACK.fullmatch(texts[pack]) or type(offset) is not int or type(length) is not int or offset < 0 or length < 1:
        raise ValueError(f"an entry in {texts[pack]!r} at {offset!r}, {length!r} bytes")
    return Row(
        key=BlockKey(block, texts[part], tuple(tokens), texts[shape]),
        task=texts[task],
        generation=generation,
        score=score,
        source=texts[source],
        operations=texts[operations],
        embedding=tuple(map(float, embedding)),
        sha256=sha256,
        length=length,
        pack=texts[pack],
        offset=offset,
    )
