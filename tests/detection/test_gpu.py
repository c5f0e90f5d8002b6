"""The whole network on a GPU against the CPU. Imports no settings: machines with a GPU may lack pydantic."""

import numpy as np
import pytest

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device, or a torch without CUDA", allow_module_level=True)

from perception.detection.center_point import CenterPoint  # noqa: E402  behind the check
from perception.detection.clock import StageClock  # noqa: E402
from perception.detection.decode import CircleNms, Decoder, RotatedNms  # noqa: E402
from perception.detection.encoders import PillarScatter, SparseEncoder  # noqa: E402
from perception.detection.grid import build_grid  # noqa: E402
from perception.detection.head import CenterHead  # noqa: E402
from perception.detection.inference import InferenceNetwork, exact  # noqa: E402
from perception.detection.neck import Neck  # noqa: E402
from perception.detection.pillar_readers import PillarReader  # noqa: E402
from perception.detection.pillar_summary import HeightBands, PillarSummaryReader  # noqa: E402
from perception.detection.pyramid import PyramidNeck  # noqa: E402
from perception.detection.readers import MeanReader, VoxelLimit  # noqa: E402
from perception.detection.sparse_pillars import SparsePillarEncoder  # noqa: E402

CANDIDATES = 100
STAGES = {"layers": (1, 1), "strides": (1, 2), "channels": (32, 64), "up_strides": (1, 2), "up_channels": (32, 32)}


def network(kind: str) -> CenterPoint:
    """25.6 m around in pillars of 0.4 m, or 12.8 m in voxels of 0.1 m, with statistics that are not those of a new layer.

    Of `cloud()` a hundred cells of each task are candidates, as of a trained network; of a new one they are all alike.
    """
    torch.manual_seed(0)
    reader: PillarReader | PillarSummaryReader | MeanReader
    encoder: PillarScatter | SparsePillarEncoder | SparseEncoder
    neck: Neck | PyramidNeck
    if kind == "pillar":
        grid = build_grid((-25.6, -25.6, -5), (25.6, 25.6, 3), (0.4, 0.4, 8), stride=1, divisor=2)
        reader = PillarReader(grid.voxels, VoxelLimit(20, 5000, 5000), (32, 32))
        encoder = PillarScatter(32, grid.voxels.shape[1:])
    elif kind == "summary":
        grid = build_grid((-25.6, -25.6, -5), (25.6, 25.6, 3), (0.4, 0.4, 8), stride=2, divisor=8)
        reader = PillarSummaryReader(grid.voxels, 32, bands=HeightBands(-2, 2, 8))
        encoder = SparsePillarEncoder(32, grid.voxels.shape[1:], (32, 48), (1, 2))
    else:
        grid = build_grid((-12.8, -12.8, -5), (12.8, 12.8, 3), (0.1, 0.1, 0.2), stride=8, divisor=16)
        reader, encoder = MeanReader(grid.voxels, VoxelLimit(10, 50_000, 50_000)), SparseEncoder(5, grid.voxels.shape)
    if kind == "summary":
        neck = PyramidNeck(encoder.out_channels, channels=(32, 64), layers=(1, 1), up_channels=(32, 32))
    else:
        neck = Neck(encoder.out_channels, **STAGES)
    found = CenterPoint(reader, encoder, neck, CenterHead(neck.out_channels, (1, 2), shared_channels=32, branch_channels=32))
    for name, buffer in found.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
        for task, maps in zip(found.head.tasks, found.eval()([cloud()]).tasks, strict=True):
            best = maps.heatmap.amax(dim=1).flatten().topk(CANDIDATES + 1).values[-1]
            task["heatmap"].out.bias += torch.logit(torch.tensor(0.1)) - best
            scale = 0.5 / maps.boxes.std()  # offsets of half a cell, sizes around a metre
            for name in found.head.branches:
                task[name].out.weight *= scale
    return found


def cloud(count: int = 20_000, seed: int = 0) -> torch.Tensor:
    """Points (count, 5) around the lidar, fewer farther away."""
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.normal(0, [8, 8, 1], (count, 3)), rng.integers(0, 256, count), rng.integers(0, 10, count) * 0.05])
    return torch.from_numpy(points.astype(np.float32))


def maps(kind: str, device: str) -> list:
    """The head's maps of `cloud()`, of the network as it is trained."""
    with torch.inference_mode(), exact(torch.device(device)):
        found = network(kind).to(device)([cloud().to(device)])
    return [part.cpu() for task in found.tasks for part in (task.heatmap, task.boxes)]


def boxes(kind: str, device: str, dtype: torch.dtype, nms: RotatedNms | CircleNms, count: int = 20_000) -> list:
    net = network(kind)
    voxels, stride = net.reader.grid, {"pillar": 1, "summary": 2, "voxel": 8}[kind]
    grid = build_grid(voxels.lower, voxels.upper, voxels.voxel_size, stride=stride, divisor=1)
    decoder = Decoder(grid, (1, 2), nms, 0.1, (-30, -30, -10), (30, 30, 10))
    ready = InferenceNetwork(net, decoder, device=torch.device(device), dtype=dtype)
    clouds = [cloud(count).to(device), torch.zeros((0, 5), device=device)]
    return [[column.cpu() for column in sample] for sample in ready(clouds, StageClock())]


@pytest.mark.parametrize("kind", ["pillar", "summary", "voxel"])
@pytest.mark.parametrize("nms", [RotatedNms(0.2, 200, 40), CircleNms((4.0, 1.0), 40)], ids=["rotated", "circle"])
def test_float32_is_the_cpu(kind, nms):
    """Without tf32. Boxes are matched by place: scores nearly equal may come in another order."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for ours, theirs in zip(maps(kind, "cuda"), maps(kind, "cpu"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    (ours, without), (expected, _) = boxes(kind, "cuda", torch.float32, nms), boxes(kind, "cpu", torch.float32, nms)
    assert all(column.isfinite().all() for column in without)  # of a cloud without points: all cells are alike, any may be the best
    best, match = torch.cdist(ours[0][:, :2].double(), expected[0][:, :2].double()).min(dim=1)
    is_same = best < 1e-3
    assert is_same.float().mean() > 0.9
    torch.testing.assert_close(ours[0][is_same], expected[0][match[is_same]], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours[1][is_same], expected[1][match[is_same]], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["pillar", "summary", "voxel"])
def test_float16_is_near_and_both_repeat_bit_for_bit(kind):
    nms = RotatedNms(0.2, 200, 40)
    for dtype in (torch.float32, torch.float16):
        first, second = (boxes(kind, "cuda", dtype, nms) for _ in range(2))
        assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    half, full = boxes(kind, "cuda", torch.float16, nms)[0], boxes(kind, "cuda", torch.float32, nms)[0]
    best = torch.cdist(half[0][:, :2].double(), full[0][:, :2].double()).min(dim=1).values
    assert (best < 0.02).float().mean() > 0.8


def gradients(device: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Of a smooth loss of all maps, two samples and one without points, in training mode."""
    net = network("summary").to(device).train()
    points = cloud().to(device)
    with torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32):
        maps = net([points, points[:0], points[::2].flip(0)])
    loss = sum(part.float().square().mean() for task in maps.tasks for part in task)
    loss.backward()
    return {name: parameter.grad.cpu() for name, parameter in net.named_parameters()}


def test_training_gradients_are_those_of_the_cpu_and_near_in_half_precision():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    expected = gradients("cpu", torch.float32)
    for dtype, tolerance in ((torch.float32, 0.01), (torch.bfloat16, 0.3), (torch.float16, 0.1)):
        found = gradients("cuda", dtype)
        # Behind a normalisation a bias has no gradient but rounding: compare the network's weights as one vector, and each for its size.
        ours, theirs = (torch.cat([g.flatten() for name, g in grads.items() if g.ndim > 1]) for grads in (found, expected))
        assert (ours - theirs).norm() < tolerance * theirs.norm()
        assert all(gradient.isfinite().all() for gradient in found.values())
