"""Settings of the training data: which recordings, clips or simulated streets the samples come from."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, PositiveFloat, Tag, field_validator, model_validator

from perception.core.errors import UsageError, nearest_hint
from perception.fusion import InstancesConfig, load_source_config


class FolderSettings(BaseModel, frozen=True, extra="forbid"):
    """The folder of one data set: whatever `perception.drives.open_drives` reads."""

    root: Path
    version: str | None = Field(None, description="nuScenes version folder, where there are several")
    splits: tuple[str, ...] = Field((), description="names of its splits; all drives without one")
    on_missing: Literal["error", "skip"] = Field("error", description="what to do with a frame whose lidar file is not there")
    sweeps: Annotated[int, Field(ge=1, le=100)] | None = Field(None, description="in a cloud; as many as the detector expects if none")


def _instances(value: Any) -> Any:
    """The settings behind a short text or the path of a file."""
    return load_source_config(value) if isinstance(value, str) else value


class DrivesSettings(BaseModel, frozen=True, extra="forbid"):
    """Recorded or simulated drives: every frame with truth is a sample."""

    name: Literal["drives"]
    folders: Annotated[tuple[FolderSettings, ...], Field(min_length=1)]
    class_balanced: bool = Field(False, description="repeat the frames with rare classes (CBGS)")
    instances: Annotated[InstancesConfig | None, BeforeValidator(_instances)] = Field(
        None,
        description="for networks of virtual points (MVP), what the pictures show: settings, or a text as `perception run --instances` "
        "takes it; {root} in a path is the folder whose drives are read. Each worker has a source of its own",
    )


class ClipsSettings(BaseModel, frozen=True, extra="forbid"):
    """A folder of clips as `perception.drives.simulated.clips.write_clips` makes them."""

    name: Literal["clips"]
    folder: Path
    class_balanced: bool = Field(False, description="repeat the clips with rare classes (CBGS)")


class SimulationSettings(BaseModel, frozen=True, extra="forbid"):
    """Streets simulated while the training runs, never the same twice; see `perception.training.pool_feed` for how they are drawn."""

    name: Literal["simulation"]
    lidars: dict[str, PositiveFloat] = Field(
        {"hdl32e_nuscenes": 1.0}, min_length=1, description="lidar models and how often each is drawn, as shares of their sum"
    )
    varied: bool = Field(True, description="each street is seen from another vehicle: height and tilt of the lidar differ")
    density: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="of the streets, drawn between half and double of it")
    balanced: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="share of the streets on which the rare classes are three times as frequent, at the cost of cars"
    )
    pool_size: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000, description="clips kept on the device, the newest; a clip of ten sweeps of 32 beams takes 2.5 MB, of five of 64 beams 5 MB"
    )
    warm_up: Annotated[int, Field(ge=1)] = Field(100, description="clips before the first batch")
    fresh_per_step: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        1.0,
        description="new clips a batch, the same in every run; auto: what has arrived, which never waits and differs from run to run",
    )

    @field_validator("lidars")
    @classmethod
    def _known_lidars(cls, lidars: dict[str, float]) -> dict[str, float]:
        from perception.drives.simulated.lidars import LIDARS  # here: it takes a second that settings without simulation do not need

        for name in lidars:
            if name not in LIDARS:
                raise ValueError(f"unknown lidar {name!r}, expected one of {', '.join(LIDARS)}{nearest_hint(name, tuple(LIDARS))}")
        return lidars

    @model_validator(mode="after")
    def _pool_holds_warm_up(self) -> "SimulationSettings":
        if self.warm_up > self.pool_size:
            raise ValueError(f"warm_up: expected at most pool_size, {self.pool_size}, got {self.warm_up}; the first clips would be lost")
        return self


def _name(value: Any) -> str:
    return str(value.get("name")) if isinstance(value, dict) else str(getattr(value, "name", None))


class DataSettings(BaseModel, frozen=True, extra="forbid"):
    """Where samples come from and how many processes make or read them ahead."""

    source: Annotated[
        Annotated[DrivesSettings, Tag("drives")]
        | Annotated[ClipsSettings, Tag("clips")]
        | Annotated[SimulationSettings, Tag("simulation")],
        Discriminator(_name),
    ]
    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        2, description="processes that read or simulate ahead, of each rank; 0: the training process does it itself, when it needs it"
    )

    @model_validator(mode="after")
    def _somebody_simulates(self) -> "DataSettings":
        if self.workers == 0 and isinstance(self.source, SimulationSettings) and self.source.fresh_per_step == "auto":
            raise ValueError("workers: expected 1 or more with fresh_per_step auto, got 0: nothing would arrive")
        return self

    def reading(self, root: Path | str, *, version: str | None = None, splits: tuple[str, ...] = ()) -> "DataSettings":
        """The same with samples from a folder of drives or of clips, whichever is in it.

        `class_balanced` stays, of drives `instances` too, and `sweeps` and `on_missing` where there is one folder.
        Raises UsageError for clips with a version or splits.
        """
        root, before = Path(root), self.source
        balanced = not isinstance(before, SimulationSettings) and before.class_balanced
        if root.is_dir() and any(root.glob("clip-*.npz")):
            if version is not None or splits:
                raise UsageError(f"{root}: version {version!r}, splits {splits}: a folder of clips has none")
            source: Any = ClipsSettings.model_validate({"name": "clips", "folder": root, "class_balanced": balanced})
        else:
            folder, instances = {"root": root, "version": version, "splits": splits}, None
            if isinstance(before, DrivesSettings):
                instances = before.instances
                if len(before.folders) == 1:
                    folder |= before.folders[0].model_dump(include={"sweeps", "on_missing"})
            values = {"name": "drives", "folders": [folder], "class_balanced": balanced, "instances": instances}
            source = DrivesSettings.model_validate(values)
        return self.model_copy(update={"source": source})
