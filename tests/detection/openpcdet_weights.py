"""OpenPCDet's weights as det3d's: names by rule, then the values whose meaning differs. Source: the oracle's reference page of peers."""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch

from tests.detection.published import our_state

BRANCHES = {"center": "reg", "center_z": "height", "dim": "dim", "rot": "rot", "vel": "vel", "hm": "hm"}


def det3d_name(name: str) -> str:
    name = re.sub(r"^vfe\.", "reader.", name)
    name = re.sub(r"^backbone_2d\.", "neck.", name)
    name = re.sub(r"^backbone_3d\.conv_out\.", "backbone.extra_conv.", name)
    name = re.sub(r"^backbone_3d\.conv([234])\.0\.", r"backbone.conv\1.", name)
    name = re.sub(r"^backbone_3d\.conv([234])\.([12])\.", lambda m: f"backbone.conv{m[1]}.{int(m[2]) + 2}.", name)
    name = re.sub(r"^backbone_3d\.", "backbone.", name)
    name = re.sub(r"^dense_head\.shared_conv\.", "bbox_head.shared_conv.", name)
    place = {"0.0": "0", "0.1": "1", "1": "3"}
    pattern = r"^dense_head\.heads_list\.(\d)\.(\w+)\.(0\.0|0\.1|1)\."
    return re.sub(pattern, lambda m: f"bbox_head.tasks.{m[1]}.{BRANCHES[m[2]]}.{place[m[3]]}.", name)


def det3d_values(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` of det3d's name: cos yaw, sin yaw to sin r, cos r; length, width to width, length; 1 x 1 transposed to plain."""
    if re.search(r"\.rot\.3\.", name):
        return -tensor
    if re.search(r"\.dim\.3\.", name):
        return tensor[[1, 0, 2]]
    if re.fullmatch(r"neck\.deblocks\.\d\.0\.weight", name) and tensor.shape[-1] == 1:
        return tensor.transpose(0, 1)
    return tensor


def recipe_state(keys: dict[str, list[int]], seed: int, multipliers: dict[str, float]) -> dict[str, torch.Tensor]:
    """The weights that the oracle's meta.json describes."""
    state = {}
    for key, shape in keys.items():
        rng = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32)
        if key.endswith("running_mean"):
            value = 0.1 * rng.standard_normal(shape)
        elif key.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif key.endswith(("num_batches_tracked", "global_step")):
            value = np.zeros(shape)
        elif len(shape) == 1 and key.endswith("weight"):
            value = rng.uniform(0.6, 1.4, shape)
        elif len(shape) == 1:
            value = 0.1 * rng.standard_normal(shape) - (3.6 if ".hm.1." in key else 0) + (0.5 if ".dim.1." in key else 0)
        else:
            is_transposed = re.search(r"deblocks\.\d\.0\.weight", key) and (
                shape[-1] == 1 or ".deblocks.0." not in key or shape[1] > shape[0]
            )
            fan = shape[0] if is_transposed else int(np.prod(shape[1:]))
            value = rng.standard_normal(shape) * np.sqrt(2 / fan)
        state[key] = torch.from_numpy(np.asarray(value * multipliers.get(key, 1.0), np.float32))
    return state


def openpcdet_state(shared: Path, model: str) -> dict[str, torch.Tensor]:
    """The weights of an oracle under our names; checked against its probes."""
    meta = json.loads((shared / "fixtures" / "openpcdet" / "meta.json").read_text())
    keys = json.loads((shared / "fixtures" / "checkpoints" / f"openpcdet-{model}.json").read_text())["keys"]
    shapes = {name: info if isinstance(info, list) else info["shape"] for name, info in keys.items()}
    state = recipe_state(shapes, meta["weights_recipe"]["seed"], meta[model]["weight_multipliers"])
    for key, probe in meta[model]["weight_probe_first4"].items():
        np.testing.assert_allclose(state[key].numpy().ravel()[:4], probe, rtol=1e-6)
    del state["global_step"]
    return our_state({det3d_name(key): det3d_values(det3d_name(key), value) for key, value in state.items()})
