"""Instances from torchvision's Mask R-CNN, with weights of the user's. Source: "Mask R-CNN", and torchvision's model of that name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from perception.core.classes import COCO_CLASSES, COCO_TO_NUSCENES, NUSCENES_DETECTION
from perception.core.device import expect_device
from perception.core.errors import MissingPackage, require_package, torchvision_command
from perception.core.frame import Camera
from perception.fusion.instances import Instances
from perception.fusion.sources.source import SourceSettings, find_with, name_of
from perception.fusion.sources.weights import load_weights

_UNUSED_IDS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))  # of COCO's category ids 1 to 90
_COCO_IDS = [number for number in range(1, 91) if number not in _UNUSED_IDS]
_NUM_CLASSES = 91
# What is added to the variances of the batch norms: torchvision's published weights of the first network were trained without.
_NORM_EPS = {"maskrcnn_resnet50_fpn": 0.0, "maskrcnn_resnet50_fpn_v2": 1e-5}


class TorchvisionSettings(SourceSettings, frozen=True):
    """A Mask R-CNN trained on COCO: person, bicycle, car, motorcycle, bus and truck become classes of nuScenes, the rest is left out."""

    name: Literal["torchvision"] = "torchvision"
    weights: Path = Field(description="state of the network, .pth or .safetensors; nothing is downloaded")
    architecture: Literal["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2"] = "maskrcnn_resnet50_fpn"
    norm_eps: float | None = Field(
        None,
        ge=0,
        le=1,
        description="added to the variances of the batch norms; without it what torchvision's published weights need: 0, of v2 1e-5. "
        "Weights trained with torchvision's own recipe need 1e-5",
    )
    min_score: float = Field(0.3, ge=0, le=1, description="finds below it are left out")
    device: str = "cpu"
    batch_size: int = Field(1, ge=1, description="pictures at once; each needs up to 2 GB, because masks come as large as the picture")


class TorchvisionInstances:
    """See `InstanceSource`. Raises MissingPackage without torchvision, CheckpointError for weights that do not fit."""

    def __init__(self, settings: TorchvisionSettings) -> None:
        torch = require_package("torch", extra="fusion", why="instances from torchvision")
        try:
            from torchvision.models import detection  # pyright: ignore[reportMissingImports]
        except Exception as error:  # beside another build of torch it fails with RuntimeError
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise MissingPackage(
                f"instances from torchvision need torchvision ({reason}); install the one that belongs to torch {torch.__version__}: "
                f"{torchvision_command(str(torch.__version__))}"
            ) from error
        build = getattr(detection, settings.architecture)
        network = build(weights=None, weights_backbone=None, num_classes=_NUM_CLASSES, box_score_thresh=settings.min_score)
        eps = _NORM_EPS[settings.architecture] if settings.norm_eps is None else settings.norm_eps
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = eps
        load_weights(network, Path(settings.weights))
        self._device, self._settings = expect_device(settings.device), settings
        self._network = network.to(self._device).eval()
        self._label = np.full(_NUM_CLASSES, -1)
        for number, name in zip(_COCO_IDS, COCO_CLASSES, strict=True):
            self._label[number] = NUSCENES_DETECTION.index(COCO_TO_NUSCENES[name]) if name in COCO_TO_NUSCENES else -1

    def find(self, cameras: Mapping[str, Camera], /) -> dict[str, Instances]:
        options = self._settings
        return find_with(self._outputs, self._instances, cameras, on_missing=options.on_missing, batch_size=options.batch_size)

    def _outputs(self, pictures: list[np.ndarray]) -> list[Mapping[str, Any]]:
        import torch

        return self._network([torch.from_numpy(np.array(p)).permute(2, 0, 1).to(self._device) / 255 for p in pictures])

    def _instances(self, output: Mapping[str, Any], camera: Camera, name: str) -> Instances:
        """From boxes (N, 4), labels (N,), scores (N,) and masks (N, 1, H, W) 0 to 1, the most certain first."""
        label, score = self._label[output["labels"].cpu().numpy()], output["scores"].double().cpu().numpy()
        kept = np.flatnonzero((label >= 0) & (score >= self._settings.min_score))
        masks = ((output["masks"][row, 0] > 0.5).cpu().numpy() for row in kept.tolist())
        box = output["boxes"].double().cpu().numpy()[kept]
        where = f"{name} {name_of(camera)}"
        return Instances.from_masks(masks, label[kept], np.clip(score[kept], 0, 1), camera.size, box=box, where=where)
