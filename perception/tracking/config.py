"""Settings of the trackers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator

from perception.core.classes import NUSCENES_TRACKING
from perception.core.errors import nearest_hint

Positive = Annotated[float, Field(gt=0, le=1e9)]  # up to 30 years: "for ever" is spelt with a large number
PerClass = Annotated[dict[str, Positive], Field(min_length=1)]


class GreedyConfig(BaseModel, frozen=True, extra="forbid"):
    """Greedy closest-point tracker. Classes that `gate` does not name are not tracked."""

    name: Literal["greedy"] = "greedy"
    parity: Literal[False] = False
    gate: PerClass = Field(description="metres per class: largest distance of a match when 0.5 s have passed since the track was seen")
    gate_growth: float = Field(
        0.25, ge=0, le=1, description="share of the gate that is error of velocity and grows with time; the rest is error of position"
    )
    gate_horizon: Positive = Field(1.0, description="seconds after which a gate grows no more")
    max_age: PerClass = Field(description="seconds per class that a track goes on without a detection before it ends")
    birth_score: float = Field(0.0, ge=0, le=1, description="a detection below it extends a track but starts none")
    min_hits: int = Field(1, ge=1, description="detections before a track is reported")
    first_confidence: float = Field(
        0.5, gt=0, le=1, description="factor on the score of a track with one detection; the rest to 1 halves with each further one at 0.5"
    )
    coast_decay: float = Field(0.5, gt=0, le=1, description="factor on the score for each second without a detection")

    @field_validator("gate", "max_age")
    @classmethod
    def _known_classes(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in NUSCENES_TRACKING:
                known = NUSCENES_TRACKING.names
                raise ValueError(f"{name}: unknown class, expected one of {', '.join(known)}{nearest_hint(name, known)}")
        return value

    def model_post_init(self, _context: object) -> None:
        if set(self.gate) != set(self.max_age):
            different = sorted(set(self.gate) ^ set(self.max_age))
            raise ValueError(f"gate and max_age: expected the same classes in both, got {', '.join(different)} in one only")


class ParityConfig(BaseModel, frozen=True, extra="forbid"):
    """The published CenterPoint tracker with all its defects, for comparison: same ids, same order."""

    name: Literal["greedy"] = "greedy"
    parity: Literal[True]
    assignment: Literal["greedy", "hungarian"] = "greedy"
    max_age: int = Field(3, ge=0, description="frames that an unmatched track is carried on")


def _kind(value: Any) -> str:
    """Which of the two settings a mapping (or a finished value) holds; without `parity` the tracker proper."""
    parity = value.get("parity", False) if isinstance(value, dict) else getattr(value, "parity", False)
    return "parity" if parity is True else "greedy"


class TrackerConfig(BaseModel, frozen=True, extra="forbid"):
    """A tracker's file: `tracker:` and under it the settings of one tracker."""

    tracker: Annotated[Annotated[GreedyConfig, Tag("greedy")] | Annotated[ParityConfig, Tag("parity")], Discriminator(_kind)]
