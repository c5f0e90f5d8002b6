"""Weight files in code: small networks, foreign layouts of their weights written by hand, and broken and malicious files."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from perception.detection.build import build_network
from perception.detection.config import DetectorConfig

TASKS = [["car"], ["truck", "bus"]]


def small_settings(
    *, voxels: bool = True, channels: tuple[int, ...] = (4, 6, 7, 8), second_stage: bool = False, deformable: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The settings of a network of a few thousand parameters; all widths differ, so that no transposition goes unseen."""
    reader = {"name": "mean"} if voxels else {"name": "pillar", "channels": [8, 10]}
    limit = {"max_points": 5, "max_voxels": 100, "max_voxels_training": 100}
    settings = {
        "name": "centerpoint",
        "frame": "nuscenes_lidar",
        "grid": {"lower": [-3.2, -3.2, -5.0], "upper": [3.2, 3.2, 3.0], "voxel_size": [0.2, 0.2, 0.2 if voxels else 8.0]},
        "reader": reader | {"limit": limit},
        "neck": {"layers": [1, 2], "strides": [1, 2], "channels": [5, 7], "up_strides": [1, 2], "up_channels": [9, 11]},
        "head": {"tasks": TASKS, "shared_channels": 6, "branch_channels": 3, "deformable": deformable},
        "decode": {"center_lower": [-9, -9, -9], "center_upper": [9, 9, 9], "nms": {"name": "rotated"}},
    }
    if voxels:
        settings["encoder_channels"] = list(channels)
    if second_stage:
        settings["second_stage"] = {"shared": [4, 5], "score": [3, 2], "box": [6, 7]}
    return {"detector": settings}


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def random_state(settings: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """A state dict of ours in which every number is random, counters included."""
    generator = torch.Generator().manual_seed(seed)
    state = build_network(DetectorConfig.model_validate(settings).detector).state_dict()
    return {
        name: torch.randn(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(7)
        for name, value in state.items()
    }


def as_det3d(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under det3d's names: the converter's tables backwards, written independently of them."""
    foreign, is_deformable = {}, any(name.startswith("head.adapt.") for name in state)
    for name, value in state.items():
        part, *path = name.split(".")
        leaf = path[-1]
        if part == "reader":
            new = f"reader.pfn_layers.{path[2]}.{path[3]}"
        elif part == "encoder" and path[0] in ("stem", "squeeze"):
            new = f"backbone.{'conv_input' if path[0] == 'stem' else 'extra_conv'}.{['conv', 'norm'].index(path[1])}"
        elif part == "encoder" and path[2] == "down":
            new = f"backbone.conv{int(path[1]) + 1}.{['conv', 'norm'].index(path[3])}"
        elif part == "encoder":
            stage = int(path[1])
            which = 1 + ["first", "second"].index(path[4])
            new = f"backbone.conv{stage + 1}.{int(path[3]) + (3 if stage else 0)}.{'bn' if path[5] == 'norm' else 'conv'}{which}"
        elif part == "neck" and path[0] == "stages":
            new = f"neck.blocks.{path[1]}.{3 * int(path[2]) + 1 + ['conv', 'norm'].index(path[3])}"
        elif part == "neck":
            new = f"neck.deblocks.{path[1]}.{['conv', 'norm'].index(path[2])}"
        elif part == "head" and path[0] == "adapt":
            layer = "conv_adaption" if path[3] == "weight" else "conv_offset"
            new = f"bbox_head.tasks.{path[1]}.feature_adapt_{ {'heatmap': 'cls', 'boxes': 'reg'}[path[2]] }.{layer}"
        elif part == "head" and path[0] == "shared":
            new = f"bbox_head.shared_conv.{['conv', 'norm'].index(path[1])}"
        elif part == "head":
            kinds = {"offset": "reg", "height": "height", "log_size": "dim", "heading": "rot", "velocity": "vel", "heatmap": "hm"}
            number = 3 if path[3] == "out" else ["conv", "norm"].index(path[4])
            group = ("" if not is_deformable else "cls_head" if path[2] == "heatmap" else f"task_head.{kinds[path[2]]}") or kinds[path[2]]
            new = f"bbox_head.tasks.{path[1]}.{group}.{number}"
        else:
            new = _roi_name(path)
            value = value[..., None] if leaf == "weight" and value.ndim == 2 else value  # det3d has convolutions over one position
        foreign[f"{new}.{leaf}"] = value.clone()
    return foreign


def _roi_name(path: list[str]) -> str:
    if path[0] == "shared":
        return f"roi_head.shared_fc_layer.{4 * int(path[1]) + ['linear', 'norm'].index(path[2])}"
    branch = {"score": "cls_layers", "box": "reg_layers"}[path[0]]
    return f"roi_head.{branch}.7" if path[1] == "out" else f"roi_head.{branch}.{4 * int(path[2]) + ['linear', 'norm'].index(path[3])}"


def as_two_stages(det3d: dict[str, Tensor]) -> dict[str, Tensor]:
    """As det3d saves a two-stage detector: the first stage under a prefix, its head once more without, normalisation frozen."""
    first = {f"single_det.{n}": v for n, v in det3d.items() if not n.startswith("roi_head.") and not n.endswith("num_batches_tracked")}
    head = {n.removeprefix("single_det."): v for n, v in first.items() if n.startswith("single_det.bbox_head.")}
    return first | head | {n: v for n, v in det3d.items() if n.startswith("roi_head.")}


def with_older_names(det3d: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of det3d before its sparse backbone had stages."""
    first = {"conv_input": 0, "conv1": 3, "conv2": 5, "conv3": 10, "conv4": 15, "extra_conv": 20}

    def older(name: str) -> str:
        part, _, rest = name.partition(".")
        if part != "backbone":
            return name
        stage, number, leaf = rest.split(".", 2)
        return f"backbone.middle_conv.{first[stage] + int(number)}.{leaf}"

    return {older(name): value for name, value in det3d.items()}


def with_sparse(state: dict[str, Tensor], order: tuple[int, ...]) -> dict[str, Tensor]:
    """Sparse weights (out, kz, ky, kx, in) with their axes in another order."""
    return {name: value.permute(order).contiguous() if value.ndim == 5 else value for name, value in state.items()}


SPCONV1 = (1, 2, 3, 4, 0)  # kz ky kx in out
SPCONV20 = (1, 2, 3, 0, 4)  # kz ky kx out in


def as_openpcdet(det3d: dict[str, Tensor]) -> dict[str, Tensor]:
    """det3d's weights as OpenPCDet has them, names and meaning."""
    foreign = {"global_step": torch.tensor([3])}
    for name, value in det3d.items():
        part, path = name.split(".")[0], name.split(".")[1:]
        if part == "reader":
            new = "vfe." + ".".join(path)
        elif part == "backbone":
            stage, number, *leaf = path
            if stage in ("conv2", "conv3", "conv4"):
                number = f"0.{number}" if int(number) < 2 else str(int(number) - 2)
            new = ".".join(["backbone_3d", "conv_out" if stage == "extra_conv" else stage, number, *leaf])
        elif part == "neck":
            new = "backbone_2d." + ".".join(path)
            if path[0] == "deblocks" and path[2] == "0" and value.shape[2:] == (1, 1):
                value = value.transpose(0, 1)
        elif path[0] == "shared_conv":
            new = "dense_head." + ".".join(path)
        else:
            _, task, branch, number, leaf = path
            if number == "3" and branch == "rot":
                value = torch.stack([-value[0], -value[1]])  # sin r, cos r = -cos yaw, -sin yaw
            if number == "3" and branch == "dim":
                value = torch.stack([value[1], value[0], value[2]])
            branch = {"reg": "center", "height": "center_z"}.get(branch, branch)
            new = f"dense_head.heads_list.{task}.{branch}.{ {'0': '0.0', '1': '0.1', '3': '1'}[number] }.{leaf}"
        foreign[new] = value.contiguous()
    return foreign


def as_mmdet3d(det3d: dict[str, Tensor], *, old: bool = False) -> dict[str, Tensor]:
    """det3d's weights as mmdetection3d has them (old: before 1.0); biases before a normalisation must be zero and are left out."""
    foreign = {}
    for name, value in det3d.items():
        part, path = name.split(".")[0], name.split(".")[1:]
        if part == "reader":
            new = "pts_voxel_encoder." + ".".join(path)
        elif part == "backbone":
            stage, number, *leaf = path
            if stage == "conv_input":
                where = f"conv_input.{number}"
            elif stage == "extra_conv":
                where = f"conv_out.{number}"
            elif stage == "conv1":
                where = f"encoder_layers.encoder_layer1.{number}"
            elif int(number) < 2:
                where = f"encoder_layers.encoder_layer{int(stage[-1]) - 1}.2.{number}"
            else:
                where = f"encoder_layers.encoder_layer{stage[-1]}.{int(number) - 3}"
            new = ".".join(["pts_middle_encoder", where, *leaf])
            if leaf[0] in ("conv1", "conv2") and leaf[1] == "bias":
                continue
        elif part == "neck" and path[0] == "blocks":
            new = f"pts_backbone.blocks.{path[1]}.{int(path[2]) - 1}.{path[3]}"
        elif part == "neck":
            new = "pts_neck." + ".".join(path)
        elif path[0] == "shared_conv":
            new = f"pts_bbox_head.shared_conv.{['conv', 'bn'][int(path[1])]}.{path[2]}"
            if new.endswith("conv.bias"):
                continue
        elif path[2].startswith("feature_adapt_"):
            new = f"pts_bbox_head.task_heads.{path[1]}.{path[2]}.{'weight' if path[3] == 'conv_adaption' else '.'.join(path[3:])}"
        else:
            _, task, *group, number, leaf = path
            branch = group[-1]
            if number == "0" and leaf == "bias":
                continue
            if not old and number == "3" and branch == "rot":
                value = torch.stack([-value[1], -value[0]])  # sin yaw = -cos r, cos yaw = -sin r
            if not old and number == "3" and branch == "dim":
                value = torch.stack([value[1], value[0], value[2]])
            branch = {"hm": "heatmap"}.get(branch, ".".join(group))
            new = f"pts_bbox_head.task_heads.{task}.{branch}.{ {'0': '0.conv', '1': '0.bn', '3': '1'}[number] }.{leaf}"
        foreign[new] = value.contiguous()
    return foreign


def without_hidden_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights with zeros where mmdetection3d has no bias."""
    hidden = (".first.conv.bias", ".second.conv.bias", ".hidden.conv.bias", "head.shared.conv.bias")
    return {name: torch.zeros_like(value) if name.endswith(hidden) else value for name, value in state.items()}


def write_pth(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def edited_archive(data: bytes, edit: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive whose entries went through `edit(name, content)`; checksums fit again."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, edit(entry.filename, old.read(entry)))
    return target.getvalue()


class MakesFile:
    """Unpickling it creates a file: harmless proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def proof(path: Path) -> MakesFile:
    """An object that creates `path` when a pickle of it is read carelessly."""
    return MakesFile(path)


def runs(content: bytes) -> None:
    """Read a pickle carelessly, to see that a proof works."""
    pickle.loads(content)  # noqa: S301
