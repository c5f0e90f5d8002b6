"""The network with fixed shapes against the network itself: the same boxes in the same order, whatever the clouds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from perception.core.errors import UsageError
from perception.detection import Detector
from perception.detection.build import build_decoder, build_network
from perception.detection.clock import StageClock
from perception.detection.config import CenterPointSettings, load_detector_config
from perception.detection.fixed_network import FixedNetwork
from perception.detection.graphed import GraphedNetwork
from perception.detection.inference import InferenceNetwork
from perception.detection.row_limits import RowLimits
from tests.detection.small import LIDAR_TO_EGO, cloud, livened, small_config

CIRCLE = {"nms": {"name": "circle", "squared_radius": [4.0, 12.0, 1.0], "max_out": 10}}
NARROW = {"center_lower": [-3, -20, -0.05], "center_upper": [20, 4, 0.1]}  # many of the best are outside
CALM = {"score_threshold": 0.107}  # fewer candidates than there is room for
DCN = {"offset_groups": 4, "offset_kernel": 1, "relu": True}
SECOND = {"shared": [16, 16], "score": [16, 16], "box": [16, 16]}


def variant(kind: str, **parts) -> CenterPointSettings:
    """`small_config` with other parts: `decode` changes its settings, the rest replaces."""
    values = small_config(kind, **parts.pop("decode", {})).detector.model_dump()
    for name, value in parts.items():
        values[name] = values[name] | value if isinstance(values.get(name), dict) and "name" not in value else value
    return CenterPointSettings.model_validate(values)


VARIANTS = {
    "pillars": variant("pillar"),
    "voxels": variant("voxel"),
    "pillars, circles": variant("pillar", decode=CIRCLE),
    "voxels, circles, few": variant("voxel", decode=CIRCLE | CALM),
    "pillars, narrow limits": variant("pillar", decode=NARROW),
    "pillars, narrow limits, few go in": variant("pillar", decode=NARROW | {"nms": {"name": "rotated", "max_in": 12, "max_out": 60}}),
    "voxels, few candidates": variant("voxel", decode=CALM),
    "dynamic pillars": variant("pillar", reader={"name": "dynamic_pillar", "channels": [8, 8]}),
    "one layer of pillars": variant(
        "pillar", reader={"name": "pillar", "channels": [8], "limit": {"max_points": 5, "max_voxels": 800, "max_voxels_training": 500}}
    ),
    "three layers of pillars": variant(
        "pillar",
        reader={
            "name": "pillar",
            "channels": [8, 8, 8],
            "limit": {"max_points": 3, "max_voxels": 99, "max_voxels_training": 9},
            "z_offset": True,
        },
    ),
    "dynamic voxels": variant("voxel", reader={"name": "dynamic_mean"}),
    "no velocity": variant("pillar", head={"velocity": False}),
    "deformable": variant("voxel", head={"deformable": DCN}),
    "deformable, 3 x 3": variant("pillar", head={"deformable": {"groups": 4, "offset_groups": 1, "offset_kernel": 3, "relu": False}}),
    "two stages": variant("voxel", second_stage=SECOND),
    "two stages, neck": variant("pillar", second_stage=SECOND | {"features": "neck", "with_box": False}),
}


def plain_network(settings: CenterPointSettings, device: str = "cpu", dtype: torch.dtype = torch.float32) -> InferenceNetwork:
    torch.manual_seed(0)
    network = build_network(settings)
    network.load_state_dict(livened(network.state_dict()))
    for name, value in network.named_parameters():
        if ".offset." in name:
            torch.nn.init.normal_(value, 0, 0.5)  # a new deformable convolution moves nothing
    second = settings.second_stage
    reads = "head" if second is None else second.features
    return InferenceNetwork(network.eval(), build_decoder(settings), device=torch.device(device), dtype=dtype, second_reads=reads)


def clouds_of(*clouds: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(points) for points in clouds]


def assert_same(ours, theirs, *, tolerance: float = 1e-4) -> None:
    """The same boxes, in the same order."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.labels.tolist() == other.labels.cpu().tolist()
        torch.testing.assert_close(one.scores, other.scores.cpu(), rtol=0, atol=1e-5)
        torch.testing.assert_close(one.rows, other.rows.cpu(), rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module", params=list(VARIANTS))
def both(request: pytest.FixtureRequest) -> tuple[InferenceNetwork, GraphedNetwork]:
    plain = plain_network(VARIANTS[request.param])
    return plain, GraphedNetwork(plain)


@pytest.mark.parametrize(
    "clouds",
    [
        pytest.param([cloud()], id="a cloud"),
        pytest.param([cloud(0)], id="no point"),
        pytest.param([cloud(1)], id="one point"),
        pytest.param([np.full((9, 5), 500, np.float32)], id="all out of range"),
        pytest.param([np.zeros((5000, 5), np.float32)], id="all in one place"),
        pytest.param([cloud(6000, seed=3)], id="another cloud, more points"),
        pytest.param([cloud(seed=1), cloud(0), cloud(700, seed=2)], id="three clouds, one empty"),
    ],
)
def test_boxes_are_those_of_the_network(both, clouds):
    plain, graphed = both
    clouds = clouds_of(*clouds)
    assert_same(graphed(clouds, StageClock()), plain(clouds, StageClock()))


def test_it_found_something_and_was_not_the_network_itself(both):
    plain, graphed = both
    assert len(plain(clouds_of(cloud()), StageClock())[0].rows) > 3
    graphed._step_by_step = None
    try:
        graphed(clouds_of(cloud()), StageClock())
        graphed(clouds_of(cloud()), StageClock())
    finally:
        del graphed._step_by_step


# On a GPU these wait for a count, or copy from memory that is not pinned: neither can be recorded.
WAITING = ("nonzero", "_unique", "_local_scalar_dense", "masked_select", "repeat_interleave.Tensor", "lift_fresh", "_is_all_true")
FIXED_WHEN = {"voxelize_hard": -1, "voxelize_mean": -1, "nms_bev": -1, "nms_circle": -1}  # the argument that says so


class Watch(TorchDispatchMode):
    """Notes the operations that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        room, name = str(func).split(".")[:2]
        is_waiting = any(str(func).startswith(f"aten.{op}") for op in WAITING)
        if name in ("index", "index_put_", "index_put"):
            is_waiting = any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in tree_flatten(args[1])[0])
        elif room == "cuda_ops" and name in FIXED_WHEN:
            is_waiting = not args[FIXED_WHEN[name]]
        elif name == "sparse_indices":
            is_waiting = args[-1] is None and not args[-2]
        if is_waiting:
            self.waiting.append(str(func))
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_nothing_between_points_and_boxes_waits_for_the_device(both):
    plain, _ = both
    points = torch.from_numpy(np.stack([cloud(), cloud(seed=1)]))
    with Watch() as watch:
        FixedNetwork(plain)(points, RowLimits())
    assert watch.waiting == []
    with Watch() as watch:
        plain(list(points), StageClock())
    assert len(watch.waiting) > 5


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 1000), st.floats(0.5, 30)), min_size=1, max_size=3))
@pytest.mark.parametrize("kind", ["pillars", "voxels"])
def test_any_clouds_one_after_another(kind, clouds):
    plain = plain_network(VARIANTS[kind])
    graphed = GraphedNetwork(plain)
    for count, seed, spread in clouds:
        batch = clouds_of(cloud(count, seed=seed, spread=spread))
        assert_same(graphed(batch, StageClock()), plain(batch, StageClock()))


@pytest.mark.parametrize("kind", ["pillars", "voxels", "dynamic voxels", "pillars, narrow limits", "voxels, circles, few"])
def test_where_there_is_too_little_room_it_is_made(kind):
    plain = plain_network(VARIANTS[kind])
    graphed, batch = GraphedNetwork(plain), clouds_of(cloud())
    expected = plain(batch, StageClock())
    graphed(batch, StageClock())
    limits = graphed._recordings[1].limits
    for name in list(limits.capacity):
        needed = min(int(limits.noted[name]), limits._most[name])
        limits.capacity[name] = max(1, needed // 2)
        before = graphed._recordings[1]
        assert_same(graphed(batch, StageClock()), expected)
        assert graphed._recordings[1] is not before
        assert limits.capacity[name] >= needed


def test_where_no_room_can_be_made_the_network_itself_answers(monkeypatch):
    plain = plain_network(VARIANTS["voxels"])
    graphed, batch = GraphedNetwork(plain), clouds_of(cloud())
    monkeypatch.setattr(RowLimits, "grow", lambda *_: True)
    assert_same(graphed(batch, StageClock()), plain(batch, StageClock()), tolerance=0)
    assert graphed._recordings[1].is_stale


def test_limits_grow_by_half_and_more_and_fit_what_is_needed():
    limits = RowLimits()
    assert [limits.rows(name, guess=10_000, most=20_000) for name in ("a", "a", "b")] == [10_000] * 3
    assert limits.rows("c", guess=10_000, most=7000) == 7000
    assert not limits.grow({"a": 10_000, "b": 0, "c": 9000})  # c has all there can be
    assert limits.grow({"a": 10_001, "b": 0})
    assert limits.capacity == {"a": 20_000, "b": 10_000, "c": 7000}
    assert not limits.grow({"a": 8000, "b": 0, "c": 6000})
    limits.fit()  # 1.5 times the most that was needed, in steps of 1024
    assert limits.capacity == {"a": 15_360, "b": 1024, "c": 7000}


def test_large_clouds_and_small_ones_in_turn_settle():
    plain = plain_network(VARIANTS["dynamic voxels"])
    graphed, large, small = GraphedNetwork(plain), clouds_of(cloud(12_000, spread=4)), clouds_of(cloud(10))
    for batch in (small, large, small):
        assert_same(graphed(batch, StageClock()), plain(batch, StageClock()))
    assert graphed._recordings[1].limits.capacity["voxels"] > 2048
    settled = graphed._recordings[1]
    for batch in (small, large, small, large):
        graphed(batch, StageClock())
    assert graphed._recordings[1] is settled


def test_more_points_than_before_and_a_few_batch_sizes():
    plain = plain_network(VARIANTS["pillars"])
    graphed = GraphedNetwork(plain)
    for count in (100, 30_000, 200):
        batch = clouds_of(cloud(count))
        assert_same(graphed(batch, StageClock()), plain(batch, StageClock()))
    assert graphed._recordings[1].num_points > 30_000
    for size in (1, 2, 3, 4, 5, 1):
        graphed(clouds_of(*[cloud(300)] * size), StageClock())
    assert list(graphed._recordings) == [3, 4, 5, 1]


def test_a_detector_takes_it_when_asked():
    config = small_config("pillar")
    usual, fixed = (Detector.from_config(config, seed=0, graph=graph) for graph in (None, True))
    for points in (cloud(), cloud(0), cloud(500_000)):
        ours, theirs = fixed.detect(points, LIDAR_TO_EGO), usual.detect(points, LIDAR_TO_EGO)
        np.testing.assert_allclose(ours.boxes.center, theirs.boxes.center, atol=1e-4)
        assert ours.label.tolist() == theirs.label.tolist()
    assert list(fixed.profile().seconds) == ["prepare", "network", "results"]
    with pytest.raises(UsageError, match="graph: expected a network without double_flip"):
        Detector.from_config(small_config("pillar", double_flip=True), seed=0, graph=True)
    with pytest.raises(UsageError, match="and spconv's convolutions"):
        Detector.from_config(small_config("voxel"), seed=0, graph=True, backend="dense")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["centerpoint_pillar02", "centerpoint_voxel0100", "centerpoint_pillar02_virtual", "centerpoint_voxel0075_virtual"]
)
def test_published_sizes(name):
    settings = load_detector_config(name).detector
    plain = plain_network(settings)
    points = cloud(50_000, spread=20)
    if plain.reader.point_columns == 16:
        rng = np.random.default_rng(0)
        points = np.column_stack([points[:, :4], rng.uniform(0, 1, (len(points), 10)), rng.integers(-1, 2, len(points)), points[:, 4]])
    batch = clouds_of(points.astype(np.float32))
    assert_same(GraphedNetwork(plain)(batch, StageClock()), plain(batch, StageClock()), tolerance=1e-3)
