"""What a weight file holds, for people: ours or a published one."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from perception.detection.checkpoints.convert import count_parameters
from perception.detection.checkpoints.layouts import OURS
from perception.detection.checkpoints.renames import LEFT_OUT, renamed
from perception.detection.checkpoints.source import read_source
from perception.detection.checkpoints.state import identify
from perception.detection.checkpoints.store import load, read_own

_PARTS = {"reader": "reader", "encoder": "encoder", "neck": "neck", "head": "head", "second_stage": "second stage"}


@dataclass(frozen=True)
class Part:
    """One part of a network. shapes: name in the file and shape of each tensor, in the file's order."""

    name: str
    num_parameters: int
    shapes: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Description:
    """layout: code base that wrote the file, `perception` for ours; model: kind and widths in words; facts: name and text, in order."""

    path: Path
    layout: str
    model: str
    parts: tuple[Part, ...]
    facts: tuple[tuple[str, str], ...]

    @property
    def num_parameters(self) -> int:
        return sum(part.num_parameters for part in self.parts)

    @property
    def num_tensors(self) -> int:
        return sum(len(part.shapes) for part in self.parts)


def describe(path: Path) -> Description:
    """Layout, model, shapes and metadata of a weight file. Raises CheckpointError as `load` and `read_source`, and for unknown names."""
    path = Path(path)
    if path.suffix == ".safetensors" and read_own(path)[1] is not None:
        tensors, metadata = load(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        told = [("trainer " + key, value) for key, value in metadata.source_says.items()]
        facts = [
            ("configuration", metadata.config_name),
            ("converted from", f"{metadata.source_name}, {metadata.layout}, sha256 {metadata.source_sha256}"),
            ("convention there", metadata.convention),
            ("sparse weights there", metadata.sparse),
            *(("note", note) for note in metadata.notes),
            *told,
            ("converter", f"perception {metadata.converter}"),
            ("sha256", sha256),
        ]
        return Description(path, "perception", model_in_words(tensors), _parts(tensors, {name: name for name in tensors}), tuple(facts))
    source = read_source(path)
    state, layout, notes = identify(source)
    state = {name: tensor for name, tensor in state.items() if renamed(name, layout.renames) != LEFT_OUT}
    ours = {name: renamed(renamed(name, layout.renames) or "", OURS) or name for name in state}
    facts = [
        ("convention", layout.convention),
        *(("note", note) for note in notes),
        *(("not opened", name) for name in source.skipped),
        *source.meta.items(),
        ("sha256", source.sha256),
    ]
    words = model_in_words({ours[name]: tensor for name, tensor in state.items()})
    return Description(path, layout.name, words, _parts(state, ours), tuple(facts))


def model_in_words(tensors: Mapping[str, Tensor]) -> str:
    """Kind, widths and tasks of a network, from the shapes of its tensors in our names."""

    def sizes(pattern: str) -> list[int]:
        found = [name for name in tensors if re.fullmatch(pattern, name)]
        return [tensors[name].shape[0] for name in sorted(found, key=lambda n: [int(d) for d in re.findall(r"\d+", n)])]

    words = []
    if "encoder.stem.norm.weight" in tensors:
        stages = [*sizes(r"encoder\.stem\.norm\.weight"), *sizes(r"encoder\.stages\.\d\.down\.norm\.weight")]
        words.append(f"voxels, sparse encoder {' '.join(map(str, stages))}")
    elif layers := sizes(r"reader\.net\.layers\.\d\.norm\.weight"):
        words.append(f"pillars of {tensors['reader.net.layers.0.linear.weight'].shape[1]} features, layers {' '.join(map(str, layers))}")
    words.append(f"neck {' '.join(map(str, sizes(r'neck.ups.[0-9]+.norm.weight')))}")
    tasks = sizes(r"head\.tasks\.\d+\.heatmap\.out\.bias")
    words.append(f"{len(tasks)} tasks of {' '.join(map(str, tasks))} classes")
    if any(name.startswith("second_stage.") for name in tensors):
        words.append("second stage")
    return ", ".join(words)


def _parts(tensors: Mapping[str, Tensor], ours: Mapping[str, str]) -> tuple[Part, ...]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(_PARTS.get(ours[name].split(".")[0], "other"), {})[name] = tensor
    order = [*_PARTS.values(), "other"]
    return tuple(
        Part(name, count_parameters(groups[name]), tuple((key, tuple(tensor.shape)) for key, tensor in groups[name].items()))
        for name in order
        if name in groups
    )
