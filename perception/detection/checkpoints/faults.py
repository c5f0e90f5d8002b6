"""Everything that does not fit between a file and a network, collected and told at once."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_MOST_LINES = 12  # for each kind; the tensors of a layer, and layers whose names differ in numbers only, share a line
_MOST_CHARACTERS = 160


@dataclass
class Faults:
    """missing: our names; unexpected, broken: the file's; wrong_shape: the file's name with expected and got."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.wrong_shape or self.broken)

    @property
    def message(self) -> str:
        """A head line with counts, then a line for each group of names, indented."""
        kinds = {
            "missing": self.missing,
            "unexpected": self.unexpected,
            "of wrong shape": self.wrong_shape,
            "not finite or doubled": self.broken,
        }
        counts = ", ".join(f"{len(names)} {kind}" for kind, names in kinds.items() if names)
        lines = [f"  {kind}: {line}" for kind, names in kinds.items() for line in _grouped(names)]
        return "\n".join([counts, *lines])


def _grouped(entries: Iterable[str]) -> list[str]:
    """A line for each group: entries whose names differ in numbers and in the tensor of a layer only, and whose rest (shapes) is equal."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        name, colon, rest = entry.partition(":")
        layer = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name.rpartition(".")[0] or name)
        groups.setdefault(layer + colon + rest, []).append(entry)
    lines = [members[0] if len(members) == 1 else f"{group} ({len(members)})" for group, members in groups.items()]
    lines = [line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 3] + "..." for line in lines]
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"... and {more} more groups of names"]
