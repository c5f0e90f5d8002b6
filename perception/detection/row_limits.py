"""Numbers of rows that are fixed before the data are seen, so that nothing waits for a count and a CUDA graph can hold a whole network."""

from torch import Tensor

_LEAST = 1024
_STEP = 1024


class RowLimits:
    """How many rows the results have whose number only the data tell, place by place in the network.

    A pass asks for its limits, notes what it would have needed, and goes on with rows of -1, or without what had no room. Whoever runs it
    reads `noted` afterwards: where more was needed than there was room for, the result is not to be used.
    """

    def __init__(self) -> None:
        self.capacity: dict[str, int] = {}
        self.noted: dict[str, Tensor] = {}
        self._most: dict[str, int] = {}

    def rows(self, name: str, *, guess: int, most: int) -> int:
        """Rows for the place `name`: `guess` until it is fitted or grown, never above `most`, which is always enough."""
        self._most[name] = most
        return min(most, self.capacity.setdefault(name, min(guess, most)))

    def note(self, name: str, needed: Tensor) -> None:
        """needed: one number, on the device: rows that would have been enough."""
        self.noted[name] = needed

    def grow(self, needed: dict[str, int]) -> bool:
        """Make room for what was needed. Whether there was too little of it."""
        short = {name: count for name, count in needed.items() if self.capacity[name] < min(count, self._most[name])}
        for name, count in short.items():
            self.capacity[name] = self._rounded(name, max(2 * self.capacity[name], count + count // 4))
        return bool(short)

    def fit(self, needed: dict[str, int]) -> None:
        """Rooms half as large again as what was needed, where they are larger: every free row costs a little time."""
        for name, count in needed.items():
            self.capacity[name] = min(self.capacity[name], self._rounded(name, count + count // 2))

    def _rounded(self, name: str, count: int) -> int:
        return min(self._most[name], max(_LEAST, -(-count // _STEP) * _STEP))
