"""CUDA graphs of whole networks. Imports no settings: machines with a GPU may lack pydantic."""

import pytest

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device, or a torch without CUDA", allow_module_level=True)

from perception.detection.clock import StageClock  # noqa: E402  behind the check
from perception.detection.decode import CircleNms, Decoder, RotatedNms  # noqa: E402
from perception.detection.fixed_network import FixedNetwork  # noqa: E402
from perception.detection.graphed import GraphedNetwork  # noqa: E402
from perception.detection.grid import build_grid  # noqa: E402
from perception.detection.inference import InferenceNetwork  # noqa: E402
from perception.detection.row_limits import RowLimits  # noqa: E402
from perception.detection.second_stage import SecondStage  # noqa: E402
from tests.detection.test_gpu import cloud, network  # noqa: E402

ROTATED, CIRCLE = RotatedNms(0.2, 200, 40), CircleNms((4.0, 1.0), 40)
DEVICE = torch.device("cuda")
KINDS = ("pillar", "voxel")
DTYPES = (torch.float32, torch.float16)


def plain_network(kind: str, dtype: torch.dtype, nms: RotatedNms | CircleNms = ROTATED, *, second: bool = False) -> InferenceNetwork:
    net = network(kind)
    if second:
        net.second_stage = SecondStage(32, shared=(64, 64), score=(32, 32), box=(32, 32)).eval()
    voxels = net.reader.grid
    grid = build_grid(voxels.lower, voxels.upper, voxels.voxel_size, stride=1 if kind == "pillar" else 8, divisor=1)
    decoder = Decoder(grid, (1, 2), nms, 0.1, (-30, -30, -10), (30, 30, 10))
    return InferenceNetwork(net, decoder, device=DEVICE, dtype=dtype)


def run(net: InferenceNetwork | GraphedNetwork, *clouds: torch.Tensor) -> list[list[torch.Tensor]]:
    return [[column.cpu() for column in sample] for sample in net(list(clouds), StageClock())]


def assert_recorded(graphed: GraphedNetwork, size: int = 1) -> None:
    assert not graphed._plain
    assert graphed._recordings[size]._graph is not None


def assert_equal(first: list[list[torch.Tensor]], second: list[list[torch.Tensor]]) -> None:
    for x, y in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(x, y, strict=True))


def assert_near(ours: list[list[torch.Tensor]], theirs: list[list[torch.Tensor]], metres: float, share: float) -> None:
    """Boxes are matched by place: scores nearly equal may come in another order."""
    for (rows, scores, _), (other_rows, other_scores, _) in zip(ours, theirs, strict=True):
        assert rows.isfinite().all()
        assert abs(len(rows) - len(other_rows)) <= (1 - share) * len(other_rows) + 1
        if len(rows) == 0 or len(other_rows) == 0:
            continue
        best, match = torch.cdist(rows[:, :3].double(), other_rows[:, :3].double()).min(dim=1)  # in float32 it is off by millimetres
        is_same = best < metres
        assert is_same.float().mean() >= share
        torch.testing.assert_close(scores[is_same], other_scores[match[is_same]], rtol=0, atol=metres)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nms", [ROTATED, CIRCLE], ids=["rotated", "circle"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_finds_what_the_network_finds(kind, nms, dtype):
    plain = plain_network(kind, dtype, nms)
    graphed = GraphedNetwork(plain)
    metres, share = (1e-3, 0.9) if dtype == torch.float32 else (0.02, 0.8)
    # In turn through one graph; the last one has more points than there is room for.
    for points in (cloud(20_000), cloud(5000, 1), cloud(20_000, 2), cloud(60_000, 3)):
        found, expected = run(graphed, points), run(plain, points.to(DEVICE))
        assert len(expected[0][0]) > 3
        assert_near(found, expected, metres, share)
    assert_recorded(graphed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_replay_and_every_recording_gives_the_same_bits(kind, dtype):
    graphed, again = (GraphedNetwork(plain_network(kind, dtype)) for _ in range(2))
    first = run(graphed, cloud(20_000))
    run(graphed, cloud(9000, 1))
    assert_equal(run(graphed, cloud(20_000)), first)
    assert_equal(run(graphed, cloud(20_000).to(DEVICE)), first)  # from wherever it lies
    assert_equal(run(again, cloud(20_000)), first)
    assert_recorded(graphed)
    assert_recorded(again)


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_clouds(kind, count):
    graphed = GraphedNetwork(plain_network(kind, torch.float16))
    assert all(column.isfinite().all() for column in run(graphed, cloud(count))[0])
    points = cloud(20_000)
    found = run(graphed, points)  # there is no room for it yet
    assert_near(found, run(graphed.network, points.to(DEVICE)), 0.02, 0.8)
    run(graphed, points)
    assert all(column.isfinite().all() for column in run(graphed, torch.full((9, 5), 500.0))[0])
    assert_recorded(graphed)


@pytest.mark.parametrize("kind", KINDS)
def test_several_clouds_at_once(kind):
    graphed = GraphedNetwork(plain_network(kind, torch.float16))
    clouds = [cloud(20_000), cloud(0), cloud(7000, 1)]
    assert_near(run(graphed, *clouds), run(graphed.network, *(points.to(DEVICE) for points in clouds)), 0.02, 0.8)
    assert_recorded(graphed, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_two_stages(kind):
    graphed = GraphedNetwork(plain_network(kind, torch.float32, second=True))
    points = cloud(20_000)
    assert_near(run(graphed, points), run(graphed.network, points.to(DEVICE)), 1e-3, 0.9)
    assert_recorded(graphed)


@pytest.mark.parametrize("kind", KINDS)
def test_where_there_is_no_room_the_network_itself_answers_and_room_is_made(monkeypatch, kind):
    graphed, points = GraphedNetwork(plain_network(kind, torch.float32)), cloud(20_000)
    expected = run(graphed, points)
    limits = graphed._recordings[1].limits
    for name in list(limits.capacity):
        limits.capacity[name] = 1 + int(limits.noted[name]) // 2
        graphed._recordings[1].is_stale = True
        with monkeypatch.context() as patch:  # recorded with too little room
            patch.setattr(limits, "fit", lambda _: None)
            patch.setattr(limits, "grow", lambda _: False)
            graphed._recording([points])
        assert_near(run(graphed, points), expected, 1e-3, 0.9)
        assert graphed._recordings[1].is_stale
        assert_near(run(graphed, points), expected, 1e-3, 0.9)
        assert not graphed._recordings[1].is_stale
        assert_recorded(graphed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("nms", [ROTATED, CIRCLE], ids=["rotated", "circle"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_waits_for_the_device(kind, nms, dtype):
    fixed, limits = FixedNetwork(plain_network(kind, dtype, nms, second=True)), RowLimits()
    points = torch.stack([cloud(20_000), cloud(20_000, 1)]).to(DEVICE)
    with torch.inference_mode():
        fixed(points, limits)  # what is compiled and loaded on first use
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            fixed(points, limits)
        finally:
            torch.cuda.set_sync_debug_mode("default")
