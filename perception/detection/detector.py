"""A detector: a lidar cloud in, objects in the ego frame out."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from perception.core.borders import boxes_from_det3d
from perception.core.classes import NUSCENES_DETECTION, ClassSet
from perception.core.detections import Detections
from perception.core.device import expect_device
from perception.core.errors import DataError, UsageError
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform
from perception.detection.build import build_decoder, build_network
from perception.detection.center_point import CenterPoint
from perception.detection.clock import Profile, StageClock
from perception.detection.config import CenterPointSettings, DetectorConfig, load_detector_config, weights_beside
from perception.detection.decode import Boxes
from perception.detection.fixed_network import FixedNetwork
from perception.detection.frames import network_mounting
from perception.detection.graphed import GraphedNetwork
from perception.detection.inference import InferenceNetwork
from perception.detection.weights import load_state, read_weights

Dtype = Literal["float32", "float16", "bfloat16"]
_NO_WEIGHTS = "neither; a file .safetensors beside the settings, under their name, is taken without being named, and there is none"


class Detector:
    """A network that is ready to detect. Results are the same in every run and on any number of threads.

    classes  of its detections: nuScenes' ten where all of the network's are among them, else the network's own
    sweeps   how many sweeps of the lidar it expects in a cloud
    window   seconds that these may be old, None where their number alone tells; see the settings
    config   the network's settings
    """

    def __init__(
        self,
        network: CenterPoint,
        settings: CenterPointSettings,
        *,
        device: str = "cpu",
        dtype: Dtype = "float32",
        graph: bool | None = None,
    ) -> None:
        """network: trained, as `build_network` makes it; it is copied. See `from_config`."""
        self._device, self._settings, self.sweeps, self.config = _device(device, dtype), settings, settings.sweeps, settings
        self.window = settings.window
        names = tuple(name for task in settings.head.tasks for name in task)
        self.classes = NUSCENES_DETECTION if set(names) <= set(NUSCENES_DETECTION) else ClassSet(names)
        self._label = self.classes.labels_from(ClassSet(names))
        self._clock = StageClock((lambda: torch.cuda.synchronize(self._device)) if self._device.type == "cuda" else None)
        self._columns = network.reader.point_columns
        second = settings.second_stage
        plain = InferenceNetwork(
            network,
            build_decoder(settings),
            device=self._device,
            dtype=getattr(torch, dtype),
            double_flip=settings.decode.double_flip,
            second_reads="head" if second is None else second.features,
        )
        can_be_fixed = FixedNetwork.supports(plain)
        if graph and not can_be_fixed:
            raise UsageError(f"detector: graph: expected a network without {FixedNetwork.LACKS}, got one with; leave graph out")
        self._is_graphed = (self._device.type == "cuda" and can_be_fixed) if graph is None else graph
        self._network = GraphedNetwork(plain) if self._is_graphed else plain

    @classmethod
    def from_config(
        cls,
        config: DetectorConfig | Path | str,
        *,
        weights: Path | str | Mapping[str, Tensor] | None = None,
        seed: int | None = None,
        device: str = "cpu",
        dtype: Dtype = "float32",
        backend: str = "native",
        graph: bool | None = None,
    ) -> "Detector":
        """A detector from its settings.

        config   settings, their file, or the name of a file that comes with the package ("centerpoint_voxel0075")
        weights  a file of weights that was made for these settings, or tensors by name; every one must fit. Without it, and without a
                 seed, those that come with the settings: `compact.safetensors` beside `compact.yaml`
        seed     random weights in place of trained ones, for measurements and tests
        device   "cpu", "cuda", "cuda:1"
        dtype    of the network; float16 and bfloat16 on a GPU only
        backend  of sparse convolutions: see `perception.detection.sparse_backends`
        graph    run in one piece with fixed shapes, on a GPU as a CUDA graph: far quicker there, and `profile` then has one stage for the
                 whole network. None: on a GPU, where the network allows it
        Raises UsageError for settings, devices or numbers that do not fit, CheckpointError for weights that do not.
        """
        settings = (config if isinstance(config, DetectorConfig) else load_detector_config(config)).detector
        if weights is None and seed is None and not isinstance(config, DetectorConfig):
            weights = weights_beside(config)
        if (weights is None) == (seed is None):
            got = _NO_WEIGHTS if seed is None else "both"
            raise UsageError(f"detector: expected either weights or a seed for random ones, got {got}")
        _device(device, dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            network = build_network(settings, backend=backend)
        if weights is not None:
            is_file = isinstance(weights, Path | str)
            state = read_weights(Path(weights), settings) if is_file else weights
            load_state(network, state, where=str(weights) if is_file else "weights")
        return cls(network, settings, device=device, dtype=dtype, graph=graph)

    def detect(self, cloud: PointCloud | np.ndarray, lidar_to_ego: Transform) -> Detections:
        """Objects in the ego frame, task after task, in each the best first.

        cloud         in the lidar's own frame: a `PointCloud` of `sweeps` sweeps, or (N, C) float32 with the columns that the network reads
        lidar_to_ego  how the lidar is mounted
        Points with a number that is NaN or infinite are left out, and so are boxes with one or with a size that is not above zero. A
        cloud without points in range gives no error. Raises DataError for a wrong shape.
        """
        return self.detect_many([cloud], [lidar_to_ego])[0]

    def detect_many(self, clouds: Sequence[PointCloud | np.ndarray], lidar_to_ego: Sequence[Transform]) -> list[Detections]:
        """`detect` for several clouds in one pass; the same up to rounding."""
        if len(clouds) != len(lidar_to_ego):
            raise DataError(f"detect_many: expected a transform a cloud, got {len(clouds)} clouds and {len(lidar_to_ego)} transforms")
        if not clouds:
            return []
        with self._clock.stage("prepare"):
            mountings = [network_mounting(self._settings.frame, transform) for transform in lidar_to_ego]
            points = [self._points(cloud, move) for cloud, (move, _) in zip(clouds, mountings, strict=True)]
        boxes = self._network(points, self._clock)
        with self._clock.stage("results"):
            results = [self._detections(found, back) for found, (_, back) in zip(boxes, mountings, strict=True)]
        self._clock.count(len(clouds))
        return results

    def detect_rows(self, cloud: PointCloud | np.ndarray) -> Boxes:
        """What the network itself says of a cloud in the frame it was trained in: det3d rows, see `perception.detection.decode`."""
        return self._network([self._points(cloud, None)], StageClock())[0]

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Count the time of a block, reading the cloud say, with that of the frame."""
        return self._clock.stage(name)

    def profile(self, *, reset: bool = False) -> Profile:
        """Seconds by stage of all frames so far; `reset` begins anew."""
        profile = self._clock.profile()
        if reset:
            self._clock.reset()
        return profile

    def _points(self, recorded: PointCloud | np.ndarray, lidar_to_network: Transform | None) -> Tensor:
        if isinstance(recorded, PointCloud) and self._settings.points != "nuscenes":
            raise DataError(
                "cloud: expected rows of x, y, z, tanh of the intensity and elongation (settings points: waymo), got a PointCloud with ages"
            )
        points = recorded.points if isinstance(recorded, PointCloud) else np.asarray(recorded)
        if points.ndim != 2 or points.shape[1] != self._columns:
            raise DataError(f"cloud: expected shape (N, {self._columns}), the columns that this network reads, got {points.shape}")
        points = points.astype(np.float32, copy=False)
        is_finite = np.isfinite(points)
        if not is_finite.all():
            points = points[is_finite.all(axis=1)]
        cloud = torch.from_numpy(np.ascontiguousarray(points))
        if lidar_to_network is not None:  # as one product of float32: a quarter of the time, and off by 0.01 mm
            matrix, shift = torch.eye(self._columns), torch.zeros(self._columns)
            matrix[:3, :3], shift[:3] = torch.from_numpy(lidar_to_network.rotation.T), torch.from_numpy(lidar_to_network.translation)
            cloud = (cloud @ matrix).add_(shift)  # addmm would write the shift to every row first
        return cloud if self._is_graphed else cloud.to(self._device)  # a recording takes it through memory that it has at hand

    def _detections(self, boxes: Boxes, network_to_ego: Transform) -> Detections:
        rows, scores, labels = (column.cpu().numpy() for column in boxes)
        rows, scores = rows.astype(np.float64), scores.astype(np.float64)
        is_sound = np.isfinite(rows[:, [0, 1, 2, 3, 4, 5, 8]]).all(axis=1) & (rows[:, 3:6] > 0).all(axis=1) & np.isfinite(scores)
        rows, scores, labels = rows[is_sound], scores[is_sound], labels[is_sound]
        rows[:, 6:8] = np.where(np.isfinite(rows[:, 6:8]), rows[:, 6:8], np.nan) if self._settings.head.velocity else np.nan
        return Detections(boxes_from_det3d(rows).transformed(network_to_ego), self._label[labels], scores, self.classes)


def _device(device: str, dtype: str) -> torch.device:
    """The torch device. UsageError where there is none, or where it does not compute in `dtype`."""
    if dtype not in ("float32", "float16", "bfloat16"):
        raise UsageError(f"dtype: expected float32, float16 or bfloat16, got {dtype!r}")
    found = expect_device(device)
    if found.type == "cpu" and dtype != "float32":
        raise UsageError(f"dtype: expected float32 on the CPU, got {dtype}; {dtype} needs device='cuda'")
    return found
