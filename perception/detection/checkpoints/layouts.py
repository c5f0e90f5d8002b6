"""How published CenterPoint weights name things and what their numbers mean: one entry for each code base.

Every layout is led to det3d's names and meaning (the original's); `OURS` leads from there to the networks of `perception.detection`, whose
boxes are det3d's. Sources: the module trees of CenterPoint (det3d), OpenPCDet 0.6.0 and MMDetection3D 1.4.0.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from perception.core.errors import CheckpointError, UsageError, nearest_hint, shown
from perception.detection.checkpoints.renames import LEFT_OUT, Rename
from perception.detection.checkpoints.values import (
    Change,
    conv_from_transposed,
    heading_from_cos_sin,
    heading_from_sin_cos,
    linear_from_conv,
    size_from_lwh,
)

_ROT, _DIM = (rf"bbox_head\.tasks\.\d+\.{branch}\.3\.(weight|bias)" for branch in ("rot", "dim"))


@dataclass(frozen=True)
class Layout:
    """A code base's way to write a state dict.

    sign        pattern of a name that every file of this layout has and no other's
    renames     from its names to det3d's
    changes     what is done to values, by pattern of det3d's name
    zeros       patterns of our names that its files lack where we have zeros
    convention  of boxes and layers, for people
    no_readers  kinds of reader (`ReaderSettings`) that the code base has not under these names, although names and shapes would fit
    """

    name: str
    sign: str
    renames: tuple[Rename, ...]
    changes: tuple[tuple[str, Change], ...]
    zeros: tuple[str, ...]
    convention: str
    no_readers: tuple[str, ...] = ()


DET3D = Layout(
    name="det3d",
    sign=r"(single_det\.)?bbox_head\.tasks\.\d+\..*",
    renames=(
        # Older files count the sparse backbone through.
        Rename(r"backbone\.middle_conv\.([0-2])\.(.*)", "backbone.conv_input.{1}.{2}"),
        Rename(r"backbone\.middle_conv\.([34])\.(.*)", "backbone.conv1.{1-3}.{2}"),
        Rename(r"backbone\.middle_conv\.([5-9])\.(.*)", "backbone.conv2.{1-5}.{2}"),
        Rename(r"backbone\.middle_conv\.(1[0-4])\.(.*)", "backbone.conv3.{1-10}.{2}"),
        Rename(r"backbone\.middle_conv\.(1[5-9])\.(.*)", "backbone.conv4.{1-15}.{2}"),
        Rename(r"backbone\.middle_conv\.(2[0-2])\.(.*)", "backbone.extra_conv.{1-20}.{2}"),
        # Deformable heads (DCN) put branches into two groups.
        Rename(r"bbox_head\.tasks\.(\d+)\.cls_head\.(.*)", "bbox_head.tasks.{1}.hm.{2}"),
        Rename(r"bbox_head\.tasks\.(\d+)\.task_head\.(.*)", "bbox_head.tasks.{1}.{2}"),
        Rename(r"((?:reader|backbone|neck|bbox_head|roi_head)\..*)", "{1}"),
    ),
    changes=((r"roi_head\.\w+\.\d\.weight", linear_from_conv),),
    zeros=(),
    convention="size w, l, h; rot sin r, cos r with r = -yaw - pi/2",
)

OPENPCDET = Layout(
    name="openpcdet",
    sign=r"dense_head\.heads_list\.\d+\..*",
    renames=(
        Rename(r"global_step", LEFT_OUT),
        Rename(r"vfe\.(.*)", "reader.{1}"),
        Rename(r"backbone_3d\.(conv_input|conv1)\.(.*)", "backbone.{1}.{2}"),
        Rename(r"backbone_3d\.conv([2-4])\.0\.(.*)", "backbone.conv{1}.{2}"),
        Rename(r"backbone_3d\.conv([2-4])\.([12])\.(.*)", "backbone.conv{1}.{2+2}.{3}"),
        Rename(r"backbone_3d\.conv_out\.(.*)", "backbone.extra_conv.{1}"),
        Rename(r"backbone_2d\.(.*)", "neck.{1}"),
        Rename(r"dense_head\.shared_conv\.(.*)", "bbox_head.shared_conv.{1}"),
        Rename(
            r"dense_head\.heads_list\.(\d+)\.(center|center_z|dim|rot|vel|hm)\.(0\.0|0\.1|1)\.(.*)",
            "bbox_head.tasks.{1}.{2}.{3}.{4}",
            {2: {"center": "reg", "center_z": "height"}, 3: {"0.0": "0", "0.1": "1", "1": "3"}},
        ),
    ),
    changes=((_ROT, heading_from_cos_sin), (_DIM, size_from_lwh), (r"neck\.deblocks\.\d+\.0\.weight", conv_from_transposed)),
    zeros=(),
    convention="size l, w, h; rot cos yaw, sin yaw; up-sampling by 1 is a transposed convolution",
)

_MMDET3D_RENAMES = (
    Rename(r"pts_voxel_encoder\.(.*)", "reader.{1}"),
    Rename(r"pts_middle_encoder\.conv_input\.(.*)", "backbone.conv_input.{1}"),
    Rename(r"pts_middle_encoder\.encoder_layers\.encoder_layer1\.([01])\.(.*)", "backbone.conv1.{1}.{2}"),
    # The strided convolution of a stage stands at the end of the stage before it.
    Rename(r"pts_middle_encoder\.encoder_layers\.encoder_layer([1-3])\.2\.(.*)", "backbone.conv{1+1}.{2}"),
    Rename(r"pts_middle_encoder\.encoder_layers\.encoder_layer([2-4])\.([01])\.(.*)", "backbone.conv{1}.{2+3}.{3}"),
    Rename(r"pts_middle_encoder\.conv_out\.(.*)", "backbone.extra_conv.{1}"),
    Rename(r"pts_backbone\.blocks\.(\d+)\.(\d+)\.(.*)", "neck.blocks.{1}.{2+1}.{3}"),  # det3d has a layer of padding in front
    Rename(r"pts_neck\.(.*)", "neck.{1}"),
    Rename(r"pts_bbox_head\.shared_conv\.(conv|bn)\.(.*)", "bbox_head.shared_conv.{1}.{2}", {1: {"conv": "0", "bn": "1"}}),
    Rename(
        r"pts_bbox_head\.task_heads\.(\d+)\.feature_adapt_(cls|reg)\.weight", "bbox_head.tasks.{1}.feature_adapt_{2}.conv_adaption.weight"
    ),
    Rename(r"pts_bbox_head\.task_heads\.(\d+)\.(feature_adapt_(?:cls|reg)\.conv_offset\..*)", "bbox_head.tasks.{1}.{2}"),
    Rename(
        r"pts_bbox_head\.task_heads\.(\d+)\.cls_head\.(0\.conv|0\.bn|1)\.(.*)",
        "bbox_head.tasks.{1}.hm.{2}.{3}",
        {2: {"0.conv": "0", "0.bn": "1", "1": "3"}},
    ),
    Rename(
        r"pts_bbox_head\.task_heads\.(\d+)\.(?:task_head\.)?(reg|height|dim|rot|vel|heatmap)\.(0\.conv|0\.bn|1)\.(.*)",
        "bbox_head.tasks.{1}.{2}.{3}.{4}",
        {2: {"heatmap": "hm"}, 3: {"0.conv": "0", "0.bn": "1", "1": "3"}},
    ),
)
_MMDET3D_SIGN = r"pts_bbox_head\.task_heads\.\d+\..*"
# Its convolutions before a normalisation have no bias.
_MMDET3D_ZEROS = (
    r"encoder\.stages\.\d\.blocks\.\d\.(first|second)\.conv\.bias",
    r"head\.shared\.conv\.bias",
    r"head\.tasks\.\d+\.\w+\.hidden\.conv\.bias",
)
# Its pillars keep their first points, and empty slots take part in the maxima; dynamic ones have other names.
_MMDET3D_NO_READERS = ("dynamic_pillar",)
MMDET3D = Layout(
    name="mmdet3d",
    sign=_MMDET3D_SIGN,
    renames=_MMDET3D_RENAMES,
    changes=((_ROT, heading_from_sin_cos), (_DIM, size_from_lwh)),
    zeros=_MMDET3D_ZEROS,
    convention="size l, w, h; rot sin yaw, cos yaw",
    no_readers=_MMDET3D_NO_READERS,
)
MMDET3D_OLD = Layout(
    name="mmdet3d-0",
    sign=_MMDET3D_SIGN,
    renames=_MMDET3D_RENAMES,
    changes=(),
    zeros=_MMDET3D_ZEROS,
    convention="before 1.0: size w, l, h; rot sin r, cos r with r = -yaw - pi/2",
    no_readers=_MMDET3D_NO_READERS,
)
LAYOUTS = {layout.name: layout for layout in (DET3D, OPENPCDET, MMDET3D, MMDET3D_OLD)}
# A counter of training; frozen networks and torch < 1.0 write none.
ALWAYS_ZERO = r".*\.num_batches_tracked"

# In a block of det3d's neck every third layer is a convolution, the next its normalisation; layer 0 is padding.
_NECK_LAYERS = {str(3 * i + 1): f"{i}.conv" for i in range(100)} | {str(3 * i + 2): f"{i}.norm" for i in range(100)}
_CONV_NORM = {"0": "conv", "1": "norm"}
_BRANCHES = {"reg": "offset", "dim": "log_size", "rot": "heading", "vel": "velocity", "hm": "heatmap"}
_ADAPTED = {"cls": "heatmap", "reg": "boxes"}
# Layers of the second stage: 0 linear, 1 normalisation, 2 ReLU, 3 dropout, 4 linear, 5 normalisation, 6 ReLU, 7 linear.
_DENSE = {"0": "0.linear", "1": "0.norm", "4": "1.linear", "5": "1.norm"}
_REFINED = {"cls": "score", "reg": "box"}
OURS = (
    Rename(r"reader\.pfn_layers\.(\d+)\.(.*)", "reader.net.layers.{1}.{2}"),
    Rename(r"backbone\.conv_input\.([01])\.(.*)", "encoder.stem.{1}.{2}", {1: _CONV_NORM}),
    Rename(r"backbone\.extra_conv\.([01])\.(.*)", "encoder.squeeze.{1}.{2}", {1: _CONV_NORM}),
    Rename(r"backbone\.conv([2-4])\.([01])\.(\w+)", "encoder.stages.{1-1}.down.{2}.{3}", {2: _CONV_NORM}),
    Rename(
        r"backbone\.conv1\.([01])\.(conv|bn)([12])\.(.*)",
        "encoder.stages.0.blocks.{1}.{3}.{2}.{4}",
        {2: {"bn": "norm"}, 3: {"1": "first", "2": "second"}},
    ),
    Rename(
        r"backbone\.conv([2-4])\.([34])\.(conv|bn)([12])\.(.*)",
        "encoder.stages.{1-1}.blocks.{2-3}.{4}.{3}.{5}",
        {3: {"bn": "norm"}, 4: {"1": "first", "2": "second"}},
    ),
    Rename(r"neck\.blocks\.(\d+)\.(\d+)\.(.*)", "neck.stages.{1}.{2}.{3}", {2: _NECK_LAYERS}),
    Rename(r"neck\.deblocks\.(\d+)\.([01])\.(.*)", "neck.ups.{1}.{2}.{3}", {2: _CONV_NORM}),
    Rename(r"bbox_head\.shared_conv\.([01])\.(.*)", "head.shared.{1}.{2}", {1: _CONV_NORM}),
    Rename(
        r"bbox_head\.tasks\.(\d+)\.(reg|height|dim|rot|vel|hm)\.([013])\.(.*)",
        "head.tasks.{1}.{2}.{3}.{4}",
        {2: _BRANCHES, 3: {"0": "hidden.conv", "1": "hidden.norm", "3": "out"}},
    ),
    Rename(r"bbox_head\.tasks\.(\d+)\.feature_adapt_(cls|reg)\.conv_offset\.(.*)", "head.adapt.{1}.{2}.offset.{3}", {2: _ADAPTED}),
    Rename(r"bbox_head\.tasks\.(\d+)\.feature_adapt_(cls|reg)\.conv_adaption\.weight", "head.adapt.{1}.{2}.weight", {2: _ADAPTED}),
    Rename(r"roi_head\.shared_fc_layer\.([0145])\.(.*)", "second_stage.shared.{1}.{2}", {1: _DENSE}),
    Rename(r"roi_head\.(cls|reg)_layers\.([0145])\.(.*)", "second_stage.{1}.hidden.{2}.{3}", {1: _REFINED, 2: _DENSE}),
    Rename(r"roi_head\.(cls|reg)_layers\.7\.(.*)", "second_stage.{1}.out.{2}", {1: _REFINED}),
)


def find_layout(names: Iterable[str], meta: dict[str, str], asked: str, *, where: str) -> tuple[Layout, str]:
    """The layout of a file and why it was taken, for people.

    names  of its state dict, without `module.`
    meta   what the file says beside the weights: the version of mmdetection3d stands there, and box conventions changed with 1.0
    asked  a layout's name, or auto
    Raises UsageError for an unknown name; CheckpointError where no layout, or another one than asked for, fits the names.
    """
    if asked != "auto" and asked not in LAYOUTS:
        known = ("auto", *LAYOUTS)
        raise UsageError(f"--layout: expected one of {', '.join(known)}, got {shown(asked)}{nearest_hint(asked, known)}")
    names = list(names)
    fitting = [layout for layout in (DET3D, OPENPCDET, MMDET3D) if any(re.fullmatch(layout.sign, name) for name in names)]
    if len(fitting) != 1:
        found = " and ".join(layout.name for layout in fitting) or "none of them"
        raise CheckpointError(
            f"{where}: expected the names of one of {', '.join(LAYOUTS)} (CenterPoint), got {found}; first names: {shown(names[:3])}"
        )
    layout = fitting[0]
    if asked != "auto" and asked.removesuffix("-0") != layout.name:
        raise CheckpointError(f"{where}: expected the names of {asked}, got those of {layout.name}; leave --layout out")
    if layout is not MMDET3D:
        return layout, "by its names"
    if asked == MMDET3D_OLD.name:
        return MMDET3D_OLD, "as asked"
    return _mmdet3d_by_version(meta)


def _mmdet3d_by_version(meta: dict[str, str]) -> tuple[Layout, str]:
    version = meta.get("meta.mmdet3d_version")
    if version is not None:
        is_old = version.split(".")[0] == "0"
        return (MMDET3D_OLD if is_old else MMDET3D), f"the file says mmdetection3d {version}"
    if "meta.mmengine_version" in meta:  # 1.1 and newer
        return MMDET3D, f"the file says mmengine {meta['meta.mmengine_version']}"
    return MMDET3D, "the file does not say its version, taken for 1.0 or newer (older ones: --layout mmdet3d-0)"
