import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.core.classes import NUSCENES_DETECTION
from perception.core.errors import DataError, UsageError
from perception.core.pointcloud import PointCloud
from perception.core.transform import Transform
from perception.detection import Detector
from perception.detection.build import build_decoder, build_network
from perception.detection.config import load_detector_config
from perception.detection.decode import Boxes
from perception.detection.flip import merged_boxes, mirrored
from tests.conftest import ROOT, SHARED
from tests.detection.published import assert_boxes, settings_of, state_from
from tests.detection.small import LIDAR_TO_EGO, cloud, livened, small_config


def small_weights(kind: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return livened(build_network(small_config(kind).detector).state_dict())


@pytest.fixture(scope="module", params=["pillar", "summary", "voxel"])
def detector(request: pytest.FixtureRequest) -> Detector:
    return Detector.from_config(small_config(request.param), weights=small_weights(request.param))


def assert_same(first, second, tolerance: float = 0.0) -> None:
    assert first.label.tolist() == second.label.tolist()
    for ours, theirs in (
        (first.score, second.score),
        *((getattr(first.boxes, n), getattr(second.boxes, n)) for n in ("center", "size", "yaw")),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def assert_valid(detections) -> None:
    """Values check themselves; here what they do not."""
    assert detections.classes is NUSCENES_DETECTION
    assert set(detections.names) <= {"car", "truck", "construction_vehicle", "pedestrian"}
    assert ((detections.score > 0.1) & (detections.score <= 1)).all()
    assert len(detections) <= 3 * 10


def test_it_finds_something_and_the_same_again(detector):
    first, second = (detector.detect(PointCloud(cloud()), LIDAR_TO_EGO) for _ in range(2))
    assert len(first) > 3
    assert_valid(first)
    assert_same(first, second)


def test_boxes_are_those_of_the_network_in_the_ego_frame(detector):
    found, rows = detector.detect(cloud(), LIDAR_TO_EGO), detector.detect_rows(cloud())
    x, y, z = rows.rows[:, :3].numpy().T.astype(np.float64)
    np.testing.assert_allclose(found.boxes.center, np.column_stack([y + 0.94, -x, z + 1.84]), atol=1e-9)
    np.testing.assert_allclose(found.boxes.size, rows.rows[:, [4, 3, 5]].numpy())
    # r is clockwise from the lidar's -y for the front; the lidar's y is the ego's x
    heading = -rows.rows[:, 8].numpy().astype(np.float64) - np.pi / 2 - np.pi / 2
    np.testing.assert_allclose(np.cos(found.boxes.yaw - heading), 1, atol=1e-12)


@torch.no_grad()
def test_the_quick_way_is_the_plain_network():
    """Folded, lazy and laid out for speed against the network as it is trained."""
    for kind in ("pillar", "voxel"):
        settings = small_config(kind).detector
        network = build_network(settings)
        network.load_state_dict(small_weights(kind))
        plain = build_decoder(settings).from_maps(network.eval()([torch.from_numpy(cloud())]))[0]
        quick = Detector(network, settings).detect_rows(cloud())
        assert quick.labels.tolist() == plain.labels.tolist()
        torch.testing.assert_close(quick.rows, plain.rows, rtol=1e-4, atol=1e-4)


def test_several_clouds_at_once(detector):
    clouds = [cloud(seed=1), cloud(0), cloud(500, seed=2), cloud(1, seed=3)]
    many = detector.detect_many(clouds, [LIDAR_TO_EGO] * 4)
    for one, found in zip(clouds, many, strict=True):
        assert_same(detector.detect(one, LIDAR_TO_EGO), found, tolerance=1e-4)
    assert detector.detect_many([], []) == []
    with pytest.raises(DataError, match="got 1 clouds and 2 transforms"):
        detector.detect_many(clouds[:1], [LIDAR_TO_EGO] * 2)


def test_threads_do_not_change_a_bit(detector):
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(detector.detect(cloud(20_000), LIDAR_TO_EGO))
    finally:
        torch.set_num_threads(threads)
    assert_same(*found)


@pytest.fixture(scope="module")
def small() -> Detector:
    return Detector.from_config(small_config(), seed=0)


HUGE = np.float32(3e38)


@pytest.mark.parametrize(
    "points",
    [
        pytest.param(np.zeros((0, 5), np.float32), id="no point"),
        pytest.param(np.zeros((1, 5), np.float32), id="one point"),
        pytest.param(np.full((7, 5), 500, np.float32), id="all out of range"),
        pytest.param(np.full((7, 5), np.nan, np.float32), id="all NaN"),
        pytest.param(np.full((7, 5), HUGE), id="huge"),
        pytest.param(np.zeros((100_000, 5), np.float32), id="all in one voxel"),
        pytest.param(cloud(1_000_000), id="a million points"),
        pytest.param(cloud().astype(np.float64), id="float64"),
        pytest.param(np.asfortranarray(cloud()), id="columns in memory"),
    ],
)
def test_any_cloud_gives_a_valid_result(detector, points):
    assert_valid(detector.detect(points, LIDAR_TO_EGO))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(0, 40), value=st.sampled_from([np.nan, np.inf, -np.inf, 0.0, HUGE, -5.0, 3.0, 12.8]))
def test_points_with_special_numbers(small, seed, count, value):
    rng = np.random.default_rng(seed)
    points = cloud(count, seed=seed)
    points[rng.random(points.shape) < 0.2] = value
    found = small.detect(points, LIDAR_TO_EGO)
    assert_valid(found)
    assert_same(found, small.detect(points[np.isfinite(points).all(axis=1)], LIDAR_TO_EGO))


def test_the_input_is_left_alone(detector):
    points = cloud()
    before = points.copy()
    detector.detect(points, Transform.from_yaw(0.5, (0, 0, 1.0)))  # moved to the network's frame
    np.testing.assert_array_equal(points, before)


def test_a_lidar_mounted_otherwise_gives_the_same_objects():
    """The same points seen by a lidar whose x looks ahead: boxes stay where they are in the ego frame, up to rounding at cell borders."""
    from perception.detection.frames import NUSCENES_MOUNT

    detector = Detector.from_config(small_config(), weights=small_weights("pillar"))
    points, other = cloud(), Transform.from_yaw(0.0, (0.5, 0.1, 1.2))
    seen = points.copy()
    seen[:, :3] = other.inverse().apply(NUSCENES_MOUNT.apply(points[:, :3]))
    first, second = detector.detect(points, NUSCENES_MOUNT), detector.detect(seen, other)
    assert_same(first, second, tolerance=1e-2)


def test_boxes_that_are_none_are_left_out(detector):
    rows = torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0, 0.0]]).repeat(6, 1)
    rows[1, 3] = 0
    rows[2, 0] = torch.nan
    rows[3, 4] = torch.inf
    rows[4, 6] = torch.nan  # an unknown velocity is no fault
    found = detector._detections(Boxes(rows, torch.full((6,), 0.5), torch.zeros(6, dtype=torch.int64)), LIDAR_TO_EGO)
    assert len(found) == 3
    assert np.isnan(found.boxes.velocity[1]).any()


def test_profile_names_the_stages(detector):
    detector.profile(reset=True)
    with detector.stage("read"):
        points = cloud()
    detector.detect_many([points, points], [LIDAR_TO_EGO] * 2)
    profile = detector.profile(reset=True)
    assert profile.frames == 2
    assert list(profile.seconds) == ["read", "prepare", "voxelize", "reader", "encoder", "neck", "head", "boxes", "results"]
    assert all(seconds >= 0 for seconds in profile.seconds.values())
    assert profile.per_frame["total"] == pytest.approx(sum(profile.seconds.values()) / 2)
    assert "mean of 2 frames" in str(profile)
    assert detector.profile().frames == 0


@pytest.mark.parametrize("columns", [(5,), (10, 4), (3, 16)])
def test_a_cloud_of_another_shape(detector, columns):
    with pytest.raises(DataError, match=r"cloud: expected shape \(N, 5\), the columns that this network reads, got"):
        detector.detect(np.zeros(columns, np.float32), LIDAR_TO_EGO)


def test_ages_are_no_elongations():
    values = small_config().model_dump()
    values["detector"]["points"] = "waymo"
    detector = Detector.from_config(type(small_config()).model_validate(values), seed=0)
    detector.detect(cloud(), LIDAR_TO_EGO)
    with pytest.raises(DataError, match=r"expected rows of x, y, z, tanh of the intensity and elongation .* got a PointCloud"):
        detector.detect(PointCloud(cloud()), LIDAR_TO_EGO)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected either weights or a seed for random ones, got neither"),
        ({"seed": 0, "weights": {}}, "got both"),
        ({"seed": 0, "device": "cuda:99"}, "device: expected cpu.* got 'cuda:99'"),
        ({"seed": 0, "device": "tpu"}, "device: expected cpu.* got 'tpu'"),
        ({"seed": 0, "dtype": "float16"}, "dtype: expected float32 on the CPU, got float16"),
        ({"seed": 0, "dtype": "int8"}, "dtype: expected float32, float16 or bfloat16, got 'int8'"),
    ],
)
def test_wrong_use(options, message):
    with pytest.raises(UsageError, match=message):
        Detector.from_config(small_config(), **options)


def test_random_weights_come_from_the_seed_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = Detector.from_config(small_config(), seed=1).detect(cloud(), LIDAR_TO_EGO)
    assert torch.equal(torch.rand(3), expected)  # the caller's random state is left alone
    assert_same(first, Detector.from_config(small_config(), seed=1).detect(cloud(), LIDAR_TO_EGO))


def test_double_flip_runs():
    flipped = Detector.from_config(small_config(double_flip=True), seed=0)
    assert len(flipped.detect_many([cloud(), cloud(0)], [LIDAR_TO_EGO] * 2)) == 2


@torch.no_grad()
@pytest.mark.parametrize("flip", [False, True])
def test_predicted_iou_is_in_the_scores(flip):
    """The quick way, in which the branch is read at candidates only, against the plain network."""
    values = small_config("voxel", double_flip=flip).model_dump()
    values["detector"]["head"]["iou"], values["detector"]["decode"]["iou_alpha"] = True, {"car": 1.0}
    values["detector"]["reader"]["limit"] |= {"max_voxels": 3000, "max_voxels_training": 3000}  # mirrored views have the latter
    settings = type(small_config()).model_validate(values).detector
    torch.manual_seed(0)
    network = build_network(settings)
    network.load_state_dict(livened(network.state_dict()))
    detector, decoder = Detector(network, settings), build_decoder(settings)
    views = mirrored([torch.from_numpy(cloud())]) if flip else [torch.from_numpy(cloud())]
    maps = network.eval()(views)
    plain = merged_boxes(decoder, maps) if flip else decoder.from_maps(maps)
    quick = detector.detect_rows(cloud())
    assert quick.labels.tolist() == plain[0].labels.tolist()
    torch.testing.assert_close(quick.rows, plain[0].rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(quick.scores, plain[0].scores, rtol=1e-4, atol=1e-5)
    names = ("car", "truck", "construction_vehicle", "pedestrian")
    heat_only = settings.decode.model_copy(update={"iou_alpha": dict.fromkeys(names, 0.0)})
    without = Detector(network, settings.model_copy(update={"decode": heat_only})).detect_rows(cloud())
    assert without.scores.tolist() != quick.scores.tolist()


@pytest.mark.parametrize("features", ["head", "neck"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_second_stage_reads_the_map_of_its_own_sample(features, flip):
    values = small_config("voxel", double_flip=flip).model_dump()
    values["detector"]["second_stage"] = {"shared": [8, 8], "score": [8, 8], "box": [8, 8], "features": features}
    config = type(small_config()).model_validate(values)
    torch.manual_seed(0)
    state = livened(build_network(config.detector).state_dict())
    detector = Detector.from_config(config, weights=state)
    clouds = [cloud(0), cloud(seed=1), cloud(seed=2)]
    many = detector.detect_many(clouds, [LIDAR_TO_EGO] * 3)
    assert len(many[0]) + len(many[1]) + len(many[2]) > 3
    for one, found in zip(clouds, many, strict=True):
        assert_same(detector.detect(one, LIDAR_TO_EGO), found, tolerance=1e-4)


def test_settings_load_without_torch_and_layers_without_pydantic():
    code = "import sys; {}; print('{}' in sys.modules)"
    for statement, module in (
        ("from perception.detection import load_detector_config", "torch"),
        ("from perception.detection import CenterPoint", "pydantic"),
    ):
        done = subprocess.run([sys.executable, "-c", code.format(statement, module)], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == "False"


@pytest.mark.shared
@pytest.mark.parametrize("name", ["pillars", "voxelnet"])
def test_boxes_of_the_published_models(name):
    """The whole detector, quick ways included, against the published code."""
    folder = SHARED / "fixtures" / name
    meta, arrays = json.loads((folder / "meta.json").read_text()), np.load(folder / f"{name}.npz")
    for test in ("rotate", "circle"):
        settings = settings_of(meta, test)
        network = build_network(settings)
        network.load_state_dict(state_from(folder / "weights.npz"))
        detector = Detector(network, settings)
        for sample in range(2):
            assert_boxes(detector.detect_rows(arrays[f"points/{sample}"]), arrays, f"dec/{test}/{sample}", 2e-3)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["centerpoint_pillar02", "centerpoint_voxel0075", "centerpoint_voxel0075_dcn", "centerpoint_voxel0100", "compact"]
)
def test_full_size_on_a_real_cloud(name):
    rows = np.fromfile(SHARED / "data" / "nuscenes-cloud" / "points.f16.bin", np.float16).reshape(-1, 5).astype(np.float32)
    detector = Detector.from_config(load_detector_config(name), seed=0)
    found = detector.detect(rows, LIDAR_TO_EGO)
    assert 0 < len(found) <= 498
