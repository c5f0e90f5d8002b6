"""Names of parameters: those of det3d's CenterPoint (the published weights) and ours."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor

_BRANCH = {"reg": "offset", "height": "height", "dim": "log_size", "rot": "heading", "vel": "velocity", "hm": "heatmap"}
_BRANCH_PART = {"0": "hidden.conv", "1": "hidden.norm", "3": "out"}
_PAIR = {"0": "conv", "1": "norm"}
_DENSE = {"0": "0.linear", "1": "0.norm", "4": "1.linear", "5": "1.norm"}  # between them ReLU and dropout


def _block(stage: str, number: str, kind: str, which: str) -> str:
    block = int(number) - (3 if stage != "1" else 0)  # behind the strided convolution, its normalisation and ReLU
    return f"encoder.stages.{int(stage) - 1}.blocks.{block}.{'first' if which == '1' else 'second'}.{'conv' if kind == 'conv' else 'norm'}"


def _neck_layer(stage: str, number: str) -> str:
    return f"neck.stages.{stage}.{int(number) // 3}.{'conv' if int(number) % 3 == 1 else 'norm'}"  # padding or ReLU, convolution, norm


def _refinement(branch: str, part: str) -> str:
    return f"second_stage.{'score' if branch == 'cls' else 'box'}.{'out' if part == '7' else 'hidden.' + _DENSE[part]}"


# What stands before the last dot of a det3d name, and ours made from its groups.
_RULES: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"reader\.pfn_layers\.(\d+)\.(linear|norm)", lambda n, part: f"reader.net.layers.{n}.{part}"),
    (r"backbone\.conv_input\.([01])", lambda part: f"encoder.stem.{_PAIR[part]}"),
    (r"backbone\.extra_conv\.([01])", lambda part: f"encoder.squeeze.{_PAIR[part]}"),
    (r"backbone\.conv([1-4])\.(\d)\.(conv|bn)([12])", _block),
    (r"backbone\.conv([2-4])\.([01])", lambda stage, part: f"encoder.stages.{int(stage) - 1}.down.{_PAIR[part]}"),
    (r"neck\.blocks\.(\d+)\.(\d+)", _neck_layer),
    (r"neck\.deblocks\.(\d+)\.([01])", lambda n, part: f"neck.ups.{n}.{_PAIR[part]}"),
    (r"bbox_head\.shared_conv\.([01])", lambda part: f"head.shared.{_PAIR[part]}"),
    (r"roi_head\.shared_fc_layer\.([0145])", lambda part: f"second_stage.shared.{_DENSE[part]}"),
    (r"roi_head\.(cls|reg)_layers\.([01457])", _refinement),
    (r"bbox_head\.tasks\.(\d+)\.(\w+)\.([013])", lambda task, name, part: f"head.tasks.{task}.{_BRANCH[name]}.{_BRANCH_PART[part]}"),
)


def our_name(det3d_name: str) -> str | None:
    """Our name of a parameter or buffer of det3d's, None where we have none of this kind."""
    module, _, leaf = det3d_name.removeprefix("single_det.").rpartition(".")
    for pattern, name in _RULES:
        if found := re.fullmatch(pattern, module):
            return f"{name(*found.groups())}.{leaf}"
    return None


def our_state(det3d_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A det3d state under our names and with our shapes; names that we do not know stay as they are.

    Two-stage files call the first stage `single_det` and repeat its head; the copy is left out.
    """
    has_copy = any(name.startswith("single_det.bbox_head.") for name in det3d_state)
    state = {}
    for name, tensor in det3d_state.items():
        if has_copy and name.startswith("bbox_head."):
            continue
        is_row_layer = name.startswith("roi_head.") and tensor.ndim == 3  # a convolution of size 1 over rows
        state[our_name(name) or name] = tensor[..., 0] if is_row_layer else tensor
    return state
