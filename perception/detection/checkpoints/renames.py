"""Tables of renames: a pattern of a foreign name, and the name that it becomes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_FIELD = re.compile(r"\{(\d+)([+-]\d+)?\}")
LEFT_OUT = ""  # the new name of a value that no network needs


@dataclass(frozen=True)
class Rename:
    """One row of a table.

    pattern   regular expression of whole names
    template  the new name: `{1}` is the first group of the pattern, `{1-5}` that number less 5; LEFT_OUT drops the value
    words     per group, what its text becomes; a text that is not in the list stays
    """

    pattern: str
    template: str
    words: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    def apply(self, name: str) -> str | None:
        """The new name, or None where the pattern does not fit."""
        match = re.fullmatch(self.pattern, name)
        if match is None:
            return None

        def filled(part: re.Match[str]) -> str:
            number = int(part[1])
            text = match[number]
            text = self.words.get(number, {}).get(text, text)
            return text if part[2] is None else str(int(text) + int(part[2]))

        return _FIELD.sub(filled, self.template)


def renamed(name: str, table: tuple[Rename, ...]) -> str | None:
    """What the first fitting row makes of a name (perhaps LEFT_OUT); None where no row fits."""
    return next((new for row in table if (new := row.apply(name)) is not None), None)
