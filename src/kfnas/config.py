"""Configuration machinery: frozen models, YAML in, canonical JSON and JSON schema out.

Each package defines its own configuration beside the code that it configures; the run's configuration is composed of them by `kfnas.steps`.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
import yaml

from kfnas.errors import ConfigError, CorruptError, StateVersionError

ConfigT = TypeVar("ConfigT", bound="Config")


class Config(pydantic.BaseModel):
    """Base of every configuration and record: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def parse(model: type[ConfigT], value: Any, *, source: str = "configuration") -> ConfigT:
    """Validate `value` (a mapping) as `model`.

    Raises:
        ConfigError: one line for each wrong field: where, problem, value, remedy.
    """
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(f"{source}: {line}" for line in _lines(error, model))) from None


def parse_document(model: type[ConfigT], text: bytes, *, newest: int, where: str, what: str, remedy: str) -> ConfigT:
    """The record that a stored JSON document with a field `format` holds.

    Args:
        model: of the record.
        text: the document.
        newest: the latest format that this kfnas reads.
        where: where it was found.
        what: what it ought to be, as in "a search's head".
        remedy: what helps where it is none.

    Raises:
        CorruptError: it holds none.
        StateVersionError: a newer kfnas wrote it.
    """
    try:
        value = json.loads(text)
        if isinstance(value, dict) and isinstance(value.get("format"), int) and value["format"] > newest:
            raise StateVersionError(f"{where}: format {value['format']}, and this kfnas knows {newest}; install a newer kfnas")
        return parse(model, value)
    except (ValueError, ConfigError) as error:
        raise CorruptError(f"{where}: not {what} ({error}); {remedy}") from error


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds no mapping.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a search's YAML configuration") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a readable YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend the syntax") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds {type(value).__name__}, not a mapping; write `name: ...` and the other fields")
    return value


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and shortest floats: equal values give equal text. NaN and infinities are refused."""
    if isinstance(value, pydantic.BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Sha256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def json_schema(model: type[Config]) -> dict[str, Any]:
    """JSON schema of a configuration, for editors."""
    return model.model_json_schema()


def _lines(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> list[str]:
    return [_line(item, model) for item in error.errors(include_url=False)]


def _line(item: Any, model: type[pydantic.BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "(top level)"
    value = item.get("input")
    shown = "" if isinstance(value, dict | list) and len(str(value)) > 60 else f" (got {_shown(value)})"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown field{shown}; remove it or check its spelling{_known(item['loc'], model)}"
    if item["type"] == "missing":
        return f"{where}: missing; add it"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower() + message[1:]}{shown}; `kfnas config schema` lists the allowed values"


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return repr(value)[:80]


def _known(location: tuple[Any, ...], model: Any) -> str:
    """Names of the fields beside an unknown one, where the model can be followed that far."""
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = _model_of(field.annotation) if field is not None else None
    names = sorted(getattr(model, "model_fields", {}))
    return f" (known: {', '.join(names)})" if names else ""


def _model_of(annotation: Any) -> Any:
    """The model of an annotation that may allow None beside it."""
    return next((each for each in get_args(annotation) if hasattr(each, "model_fields")), annotation)
