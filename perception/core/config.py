"""YAML files into frozen pydantic models; an error names file, key, what was expected and the nearest known name."""

from collections.abc import Hashable
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from perception.core.errors import UsageError, nearest_hint

Model = TypeVar("Model", bound=BaseModel)
_MAX_BYTES = 1 << 16  # a configuration has a page or two; a megabyte would keep the YAML parser busy for half a minute
_SHORT = Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 8, 4, 60, 60, 40


class _Loader(yaml.SafeLoader):
    """Plain values only; no `<<`, which multiplies the content of aliases, and no key twice, of which one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "'<<' is not supported, write the values out", key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} comes twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(path: Path, model: type[Model]) -> Model:
    """The configuration in a YAML file, checked. Raises UsageError for a missing or broken file and for every key that does not fit."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: expected a configuration file, got {error.strerror}") from None
    if len(text) > _MAX_BYTES:
        raise UsageError(f"{path}: expected at most {_MAX_BYTES >> 10} KiB of YAML, got more; is it a configuration file?")
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506  a SafeLoader
    except RecursionError:
        raise UsageError(f"{path}: invalid YAML: nested too deeply") from None
    # A wrong !!tag, an impossible date and a number of 5,000 digits let PyYAML fail in ways of its own.
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UsageError(f"{path}: invalid YAML: {' '.join(str(error).split())}") from None
    return parse_config(values, model, where=str(path))


def parse_config(values: Any, model: type[Model], *, where: str) -> Model:
    """`values` as a `model`; `where` begins the message of the UsageError, one line for each key that does not fit."""
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected keys and values, got {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError("\n".join(f"{where}: {_line(problem, model)}" for problem in error.errors())) from None


def _line(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """Key, what was expected and what was found there."""
    path, known = _place(problem["loc"], model)
    key = f"{path}: " if path else ""
    if problem["type"] == "extra_forbidden":
        return f"{key}unknown key, expected one of {', '.join(known)}{nearest_hint(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"{key}expected this key, it is missing"
    if problem["type"] == "value_error":  # a model's own check: the message says what it found
        return key + problem["msg"].removeprefix("Value error, ")
    return f"{key}{problem['msg']}, got {_SHORT.repr(problem['input'])}"  # shortened: an alias of aliases has no end


def _place(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[str, list[str]]:
    """An error's place as the file spells it (`tracker.gate.car`), and the keys known beside its last one."""
    keys: list[str] = []
    known: list[str] = []
    current: Any = model
    for part in loc:
        if (chosen := _tagged(current, part)) is not None:  # which model of a union: the file has no such key
            current = chosen
            continue
        keys.append(str(part))
        if isinstance(current, type) and issubclass(current, BaseModel):
            known = list(current.model_fields)
            field = current.model_fields.get(str(part))
            current = _without_none(field.annotation) if field else None
        else:  # into a dict or list: its values
            current = (get_args(current) or (None,))[-1]
            current = get_args(current)[0] if get_origin(current) is Annotated else current
    return ".".join(keys), known


def _without_none(annotation: Any) -> Any:
    """X of `X | None`; anything else stays as it is."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and type(None) in get_args(annotation) else annotation


def _tagged(union: Any, tag: int | str) -> Any:
    """The member of a union of `Annotated[Model, Tag(...)]` that has the tag, or None."""
    for member in get_args(union):
        if any(isinstance(note, Tag) and note.tag == tag for note in getattr(member, "__metadata__", ())):
            return get_args(member)[0]
    return None


def shipped_config(name: str) -> Path:
    """The path of a configuration that comes with the package: inside of it when installed, in `configs/` of a checkout."""
    package = Path(__file__).resolve().parents[1]  # not importlib.resources: it invents a path for an editable install
    installed = package / "configs" / name
    return installed if installed.is_file() else package.parent / "configs" / name
