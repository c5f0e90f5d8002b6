"""Stand-ins for torchvision's and Detectron2's documented API: networks that find rectangles by their colours."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import nn

PERSON, CAR, DOG = (200, 10, 10), (10, 200, 10), (10, 10, 200)  # colours, RGB
_COCO_ID = {PERSON: 1, CAR: 3, DOG: 18}  # of COCO's 90 ids
_CONTIGUOUS = {PERSON: 0, CAR: 2, DOG: 16}  # of its 80 classes
SCORE = {PERSON: 0.9, CAR: 0.8, DOG: 0.7}


def found_in(picture: np.ndarray) -> list[tuple[tuple[int, int, int], np.ndarray]]:
    """Colour and mask of each rectangle in a picture (H, W, 3) RGB, the most certain first."""
    return [(color, mask) for color in (PERSON, CAR, DOG) if (mask := (picture == color).all(axis=2)).any()]


def corners(mask: np.ndarray) -> list[float]:
    y, x = np.nonzero(mask)
    return [x.min() + 0.25, y.min() + 0.25, x.max() + 0.75, y.max() + 0.75]


class TorchvisionNetwork(nn.Module):
    """As `torchvision.models.detection.maskrcnn_resnet50_fpn` answers."""

    def __init__(self, *, weights, weights_backbone, num_classes, box_score_thresh) -> None:
        super().__init__()
        assert (weights, weights_backbone, num_classes) == (None, None, 91)
        self.threshold, self.layer = box_score_thresh, nn.Linear(2, 2)
        self.norm = nn.BatchNorm2d(1, affine=False, track_running_stats=False)

    def forward(self, images):
        assert isinstance(images, list)
        assert all(image.dtype == torch.float32 and image.max() <= 1 for image in images)
        assert not self.training
        outputs = []
        for image in images:
            things = found_in((image * 255).round().byte().permute(1, 2, 0).numpy())
            things = [thing for thing in things if SCORE[thing[0]] > self.threshold]
            masks = np.array([mask * 0.9 + ~mask * 0.1 for _, mask in things], np.float32).reshape(-1, 1, *image.shape[1:])
            outputs.append(
                {
                    "boxes": torch.tensor([corners(mask) for _, mask in things], dtype=torch.float32).reshape(-1, 4),
                    "labels": torch.tensor([_COCO_ID[color] for color, _ in things], dtype=torch.int64),
                    "scores": torch.tensor([SCORE[color] for color, _ in things], dtype=torch.float32),
                    "masks": torch.from_numpy(masks),
                }
            )
        return outputs


class _Config(SimpleNamespace):
    def merge_from_file(self, path, allow_unsafe=True):
        assert not allow_unsafe  # a YAML file of the user's could run code
        text = open(path).read()  # noqa: PTH123, SIM115
        if "NONSENSE" in text:
            raise KeyError("Non-existent config key: NONSENSE")
        if "CLASSES: 10" in text:
            self.MODEL.ROI_HEADS.NUM_CLASSES = 10


class _Predictor:
    """As `detectron2.engine.DefaultPredictor`: the network takes resized BGR pictures, and pastes masks back to their size."""

    def __init__(self, cfg) -> None:
        assert cfg.MODEL.WEIGHTS == ""  # it would unpickle them
        self.model, self.input_format, self.aug = _Detectron2Network(), "BGR", self
        self.cfg = cfg

    def get_transform(self, image):
        assert image.dtype == np.uint8
        return self

    def apply_image(self, image):
        return image.repeat(2, axis=0).repeat(2, axis=1)


class _Detectron2Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs):
        outputs = []
        for one in inputs:
            picture = one["image"].numpy().transpose(1, 2, 0)[::2, ::2, ::-1].astype(np.uint8)
            assert picture.shape[:2] == (one["height"], one["width"])
            things = found_in(picture)
            masks = np.array([mask for _, mask in things], bool).reshape(-1, *picture.shape[:2])
            instances = SimpleNamespace(
                pred_boxes=SimpleNamespace(tensor=torch.tensor([corners(mask) for mask in masks], dtype=torch.float32).reshape(-1, 4)),
                scores=torch.tensor([SCORE[color] for color, _ in things], dtype=torch.float32),
                pred_classes=torch.tensor([_CONTIGUOUS[color] for color, _ in things], dtype=torch.int64),
                pred_masks=torch.from_numpy(masks),
            )
            outputs.append({"instances": instances})
        return outputs


def install(monkeypatch) -> None:
    """Put the stand-ins where the packages would be."""

    def module(name, **content):
        made = ModuleType(name)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    detection = module(
        "torchvision.models.detection", maskrcnn_resnet50_fpn=TorchvisionNetwork, maskrcnn_resnet50_fpn_v2=TorchvisionNetwork
    )
    module("torchvision", models=module("torchvision.models", detection=detection))

    def get_cfg():
        return _Config(MODEL=SimpleNamespace(WEIGHTS="zoo://x.pkl", DEVICE="cuda", ROI_HEADS=SimpleNamespace(NUM_CLASSES=80)))

    module("detectron2")
    module("detectron2.config", get_cfg=get_cfg)
    module("detectron2.engine", DefaultPredictor=_Predictor)
    module("centernet")
    module("centernet.config", add_centernet_config=lambda cfg: setattr(cfg, "CENTERNET", SimpleNamespace()))
