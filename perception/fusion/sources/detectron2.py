"""Instances from any Detectron2 network: settings and weights of the user's. Source: Detectron2's documented API (`DefaultPredictor`)."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field

from perception.core.classes import COCO_CLASSES, NUSCENES_DETECTION, class_of_category
from perception.core.device import expect_device
from perception.core.errors import DETECTRON2_COMMAND, MissingPackage, UsageError, require_package
from perception.core.frame import Camera
from perception.fusion.instances import Instances
from perception.fusion.sources.source import SourceSettings, find_with, name_of
from perception.fusion.sources.weights import load_weights
from perception.fusion.virtual_points import MVP_CLASSES


class Detectron2Settings(SourceSettings, frozen=True):
    """A network of Detectron2."""

    name: Literal["detectron2"] = "detectron2"
    config: Path = Field(description="its settings, a YAML file of Detectron2's")
    weights: Path | None = Field(None, description="its state, .pth or .safetensors; without it the network has random weights, for trials")
    classes: tuple[str, ...] | None = Field(
        None,
        description="what its classes are called, in their order, as in files of masks; without it those of COCO where there are 80, those "
        "of MVP's nuImages model where there are 10",
    )
    centernet2: bool = Field(False, description="the settings are CenterNet2's, whose package `centernet` must be importable")
    min_score: float = Field(0.0, ge=0, le=1, description="finds below it are left out; Detectron2's own threshold comes first")
    device: str = "cpu"
    batch_size: int = Field(6, ge=1, description="pictures at once")


class Detectron2Instances:
    """See `InstanceSource`. MissingPackage without Detectron2, UsageError or CheckpointError for settings or weights that do not fit.

    Weights are read by us, because Detectron2 would unpickle them; its model zoo's .pkl files are refused, save their state with torch.
    """

    def __init__(self, settings: Detectron2Settings) -> None:
        if not Path(settings.config).is_file():
            raise UsageError(f"{settings.config}: expected the settings of a Detectron2 network, a YAML file, found none")
        self._settings, cfg = settings, _package("detectron2.config").get_cfg()
        self._device = expect_device(settings.device)
        if settings.centernet2:
            _package("centernet.config").add_centernet_config(cfg)
        try:
            cfg.merge_from_file(str(settings.config), allow_unsafe=False)  # by default it would run what a YAML file asks for
        except (KeyError, ValueError, AssertionError, TypeError, yaml.YAMLError) as error:
            raise UsageError(f"{settings.config}: expected settings of Detectron2, got {' '.join(str(error).split())}") from None
        cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", str(self._device)
        self._label = _labels(settings, int(cfg.MODEL.ROI_HEADS.NUM_CLASSES))
        self._predictor = _package("detectron2.engine").DefaultPredictor(cfg)
        if settings.weights is not None:
            load_weights(self._predictor.model, Path(settings.weights))

    def find(self, cameras: Mapping[str, Camera], /) -> dict[str, Instances]:
        options = self._settings
        return find_with(self._outputs, self._instances, cameras, on_missing=options.on_missing, batch_size=options.batch_size)

    def _outputs(self, pictures: list[np.ndarray]) -> list[Any]:
        return [output["instances"] for output in self._predictor.model([self._input(picture) for picture in pictures])]

    def _input(self, picture: np.ndarray) -> dict[str, Any]:
        """One picture as the network takes it: what `DefaultPredictor` does with the only one that it takes."""
        import torch

        height, width = picture.shape[:2]
        if self._predictor.input_format == "BGR":
            picture = picture[:, :, ::-1]
        resized = self._predictor.aug.get_transform(picture).apply_image(picture)
        image = torch.as_tensor(np.ascontiguousarray(resized.astype("float32").transpose(2, 0, 1)))
        return {"image": image.to(self._device), "height": height, "width": width}

    def _instances(self, output: Any, camera: Camera, name: str) -> Instances:
        """From pred_boxes (N, 4), scores (N,), pred_classes (N,) and pred_masks (N, H, W) bool of the picture's size."""
        label = self._label[output.pred_classes.cpu().numpy()]
        score = output.scores.double().cpu().numpy()
        kept = np.flatnonzero((label >= 0) & (score >= self._settings.min_score))
        masks = (output.pred_masks[row].bool().cpu().numpy() for row in kept.tolist())
        box = output.pred_boxes.tensor.double().cpu().numpy()[kept]
        where = f"{name} {name_of(camera)}"
        return Instances.from_masks(masks, label[kept], np.clip(score[kept], 0, 1), camera.size, box=box, where=where)


def _labels(settings: Detectron2Settings, count: int) -> np.ndarray:
    """(count,) the label of each class of the network, -1 for what nuScenes does not score."""
    names = settings.classes or {len(COCO_CLASSES): COCO_CLASSES, len(MVP_CLASSES): MVP_CLASSES.names}.get(count)
    if names is None or len(names) != count:
        got = "none" if names is None else f"{len(names)} names"
        raise UsageError(f"{settings.config}: classes: expected the names of the network's {count} classes, got {got}")
    ours = [class_of_category(name) for name in names]
    return np.array([-1 if name is None else NUSCENES_DETECTION.index(name) for name in ours])


def _package(module: str) -> Any:
    require_package("torch", extra="fusion", why="instances from Detectron2")
    try:
        return import_module(module)
    except Exception as error:  # a package of another torch's build fails with OSError, an old one with AttributeError
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        command = DETECTRON2_COMMAND if module.startswith("detectron2") else "see CenterNet2's own page, and put its folder on PYTHONPATH"
        raise MissingPackage(f"instances from Detectron2 need {module.partition('.')[0]} ({reason}); install it with: {command}") from error
