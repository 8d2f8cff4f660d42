from __future__ import annotations

import pytest

from kfnas.tracking import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@host:5000/x", "http://***@host:5000/x"),
        ("postgresql+psycopg2://me:p@ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("s3://AKIA:secret@bucket/prefix", "s3://***@bucket/prefix"),
        ("https://host/x?sig=abc&a=1&access_token=t", "https://host/x?sig=***&a=1&access_token=***"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("mail me@host", "mail me@host"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_credentials_of_an_address_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(f"cannot reach '{text}' now") == f"cannot reach '{shown}' now"


def test_nested_values_are_redacted_and_the_rest_is_kept() -> None:
    value = {"a": [{"uri": "http://u:p@h/"}], "n": 3, "t": ("s3://k@b",), "none": None}
    assert redacted(value) == {"a": [{"uri": "http://***@h/"}], "n": 3, "t": ["s3://***@b"], "none": None}
