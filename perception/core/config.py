"""YAML files into frozen pydantic models; an error names file, key, what was expected and the nearest known name."""

from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from perception.core.errors import UsageError, nearest_hint

Model = TypeVar("Model", bound=BaseModel)
_MAX_BYTES = 1 << 20


def load_config(path: Path, model: type[Model]) -> Model:
    """The configuration in a YAML file, checked. Raises UsageError for a missing or broken file and for every key that does not fit."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: expected a configuration file, got {error.strerror}") from None
    if len(text) > _MAX_BYTES:
        raise UsageError(f"{path}: expected at most {_MAX_BYTES >> 20} MiB of YAML, got {len(text)} bytes")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None
    return parse_config(values, model, where=str(path))


def parse_config(values: Any, model: type[Model], *, where: str) -> Model:
    """`values` as a `model`; `where` begins the message of the UsageError, one line for each key that does not fit."""
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected keys and values, got {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = list(model.model_fields)
                lines.append(f"{where}: {key}: unknown key, expected one of {', '.join(known)}{nearest_hint(key, known)}")
            else:
                message = problem["msg"].removeprefix("Value error, ")
                lines.append(f"{where}: {key}: {message}, got {problem['input']!r}" if key else f"{where}: {message}")
        raise UsageError("\n".join(lines)) from None


def shipped_config(name: str) -> Path:
    """The path of a configuration that comes with the package: inside of it when installed, in `configs/` of a checkout."""
    installed = Path(str(resources.files("perception"))) / "configs" / name
    return installed if installed.is_file() else installed.parents[2] / "configs" / name
