"""Settings of targets and losses. Defaults are those of the published nuScenes models, but for unknown velocities."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e4)]


class SecondStageLossSettings(BaseModel, frozen=True, extra="forbid"):
    """Boxes of the first stage that the second one learns from. Defaults are those of the published nuScenes model."""

    boxes: Annotated[int, Field(ge=2, le=10_000)] = Field(default=128, description="of a sample")
    foreground: Share = Field(default=0.5, description="most of these that overlap an object by foreground_iou")
    hard: Share = Field(default=0.8, description="most of the others that overlap one at all, by hard_iou")
    foreground_iou: Share = Field(
        default=0.55, description="IoU from which a box is drawn as foreground, and above which its borders learn"
    )
    hard_iou: Share = Field(default=0.1, description="IoU from which other boxes are hard ones")
    score_iou: tuple[Share, Share] = Field(
        default=(0.25, 0.75), description="IoU up to which the score should be 0, from which 1; a line between"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SecondStageLossSettings":
        if self.score_iou[0] >= self.score_iou[1]:
            raise ValueError(f"score_iou: expected two rising numbers, got {self.score_iou[0]:g} and {self.score_iou[1]:g}")
        return self


class LossSettings(BaseModel, frozen=True, extra="forbid"):
    """What the network is asked for, and how much each part counts."""

    box_weight: Weight = Field(default=0.25, description="of the boxes beside the heat maps; Waymo's models: 2")
    velocity_weight: Weight = Field(default=0.2, description="of velocity beside the other numbers of a box")
    moving_weight: Weight = Field(
        default=1.0,
        description="of the velocity of what moves beside that of what stands: most things stand, and a network that says so of all of them"
        " is at a minimum of absolute differences that it does not leave soon",
    )
    axis_weight: Weight = Field(
        default=0.0,
        description="of the line along which a box lies, whichever end is its front, beside the other numbers of a box: boxes whose front"
        " cannot be told then at least lie right",
    )
    class_weights: dict[str, Weight] = Field(default_factory=dict, description="of a class in its heat map's loss, 1 where it is not named")
    unknown_velocity: Literal["ignore", "zero"] = Field(
        default="ignore",
        description="an object whose velocity is NaN teaches none, or (zero) that it stands still, as the published models learnt",
    )
    gaussian_overlap: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="IoU from which the radius of an object's heat follows"
    )
    min_radius: Annotated[int, Field(ge=0, le=100)] = Field(default=2, description="cells, the least radius of an object's heat")
    max_objects: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=500, description="of a sample that are learnt, the nearest to the lidar; the others are left out of the loss"
    )
    min_points: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=1, description="returns of the key sweep; an object with fewer is left out of the loss: neither found nor missed"
    )
    iou_weight: Weight = Field(default=1.0, description="of the branch that predicts the IoU, where the head has it")
    second_stage_weight: Weight = Field(default=1.0, description="of the second stage, where the network has it")
    second_stage: SecondStageLossSettings = Field(default_factory=SecondStageLossSettings, description="what that learns from")
