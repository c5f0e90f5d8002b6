"""Every operator as torch sees it: schema and fake kernel, compiled, and beside NumPy. A new operator is one entry of SAMPLES."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

import cuda_ops
from cuda_ops import Grid, Primitives, gather, scatter
from cuda_ops.dispatch import dispatch

torch = pytest.importorskip("torch")
from cuda_ops import torch_ops  # noqa: E402  # needs torch

RNG = np.random.default_rng(0)
GRID = Grid((-2, -2, -1), (2, 2, 1), (0.5, 0.5, 0.5))
POINTS = RNG.uniform(-2.5, 2.5, (300, 5)).astype(np.float32)
SAMPLE_OF_POINT = np.arange(300) % 3 - 1  # -1 is none
BOXES = np.column_stack([RNG.uniform(-4, 4, (30, 3)), RNG.uniform(0.5, 4, (30, 3)), RNG.uniform(-7, 7, 30)])
SCORES, GROUP = np.round(RNG.uniform(0, 1, 30), 1), np.arange(30) % 3
RAYS = POINTS[:, :3].copy(), RNG.normal(size=(300, 3)).astype(np.float32)
SHAPES = Primitives.concatenate(
    Primitives.planes([[0, 0, -3]], [[0.1, 0, 2]]),
    Primitives.boxes(BOXES[:5], pass_chance=0.5),
    Primitives.height_field(RNG.normal(0, 0.4, (9, 12)), (-9, -5, -2), 1.5),
)
TREE = cuda_ops.ray_tree(SHAPES)


VALUES, VOXELS = RNG.normal(size=(60, 3)).astype(np.float32), RNG.integers(-1, 8, 60)
PIXELS, INSTANCES = RNG.integers(0, 50, (40, 2)).astype(np.float32), RNG.integers(0, 4, 40)
MAP, PLACES = RNG.normal(size=(1, 4, 6, 7)).astype(np.float32), RNG.uniform(0, 5, (20, 2)).astype(np.float32)
SITES = np.unique(np.column_stack([RNG.integers(0, n, 60) for n in (2, 4, 6, 6)]).astype(np.int32), axis=0)
TABLE = cuda_ops.sparse_indices(SITES, (4, 6, 6), 3, 2, 1, batch_size=2).table
FEATURES, WEIGHT = RNG.normal(size=(len(SITES), 5)).astype(np.float32), RNG.normal(size=(6, 3, 3, 3, 5)).astype(np.float32)
OUTPUT_ROWS = RNG.normal(size=(len(TABLE), 6)).astype(np.float32)


class Grad(NamedTuple):
    """An array whose gradient is asked for where it is a tensor."""

    array: np.ndarray


def operator(name: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """An operator that has no public function of its own: a step of a backward pass."""

    def call(*arguments: Any) -> Any:
        return dispatch(name, body, *arguments)

    return call


# For each operator, calls of its public function with NumPy arrays. Every row of a result must be defined: with fixed_capacity, as many
# rows as are filled. Where an operator has a gradient, wrap what it is taken by: partial(cuda_ops.some_sum, Grad(VALUES), INDEX).
SAMPLES: dict[str, list[partial]] = {
    "voxelize_hard": [
        partial(cuda_ops.voxelize_hard, POINTS, GRID, 3, 1000),
        partial(cuda_ops.voxelize_hard, POINTS, GRID, 2, 20, batch_index=SAMPLE_OF_POINT, batch_size=2, with_index=True),
        partial(cuda_ops.voxelize_hard, POINTS, GRID, 2, 20, fixed_capacity=True),
    ],
    "voxelize_mean": [
        partial(cuda_ops.voxelize_mean, POINTS, GRID),
        partial(cuda_ops.voxelize_mean, POINTS, GRID, batch_index=SAMPLE_OF_POINT, batch_size=2, with_index=True),
        partial(cuda_ops.voxelize_mean, POINTS, GRID, max_voxels=20, fixed_capacity=True),
    ],
    "iou_bev": [
        partial(cuda_ops.iou_bev, BOXES, BOXES[:7]),
        partial(cuda_ops.iou_bev, BOXES[:, [0, 1, 3, 4, 6]], BOXES.astype(np.float32)),
    ],
    "iou_3d": [partial(cuda_ops.iou_3d, BOXES, BOXES[:7])],
    "nms_bev": [
        partial(cuda_ops.nms_bev, BOXES, SCORES, 0.2),
        partial(cuda_ops.nms_bev, BOXES, SCORES, 0.2, 3, group=GROUP),
        partial(cuda_ops.nms_bev, BOXES, SCORES, 0.2, 3, group=GROUP, fixed_capacity=True),
    ],
    "nms_circle": [
        partial(cuda_ops.nms_circle, BOXES, SCORES, 1.5),
        partial(cuda_ops.nms_circle, BOXES[:, :2], SCORES, None, 3, squared_radius=2.0, group=GROUP),
        partial(cuda_ops.nms_circle, BOXES, SCORES, 1.5, fixed_capacity=True),
    ],
    "points_in_boxes": [
        partial(cuda_ops.points_in_boxes, POINTS, BOXES),
        partial(cuda_ops.points_in_boxes, POINTS, BOXES, point_group=SAMPLE_OF_POINT, box_group=GROUP),
    ],
    "cast_rays": [
        partial(cuda_ops.cast_rays, *RAYS, SHAPES),
        partial(cuda_ops.cast_rays, *RAYS, SHAPES, seed=3, min_range=1, max_range=9),
        partial(cuda_ops.cast_rays, *RAYS, SHAPES, max_range=np.abs(POINTS[:, 3]), tree=TREE),
    ],
    "ray_tree": [partial(cuda_ops.ray_tree, SHAPES)],
    "scatter_max": [partial(cuda_ops.scatter_max, Grad(VALUES), VOXELS, 8)],
    "scatter_mean": [partial(cuda_ops.scatter_mean, Grad(VALUES), VOXELS, 8)],
    "scatter_max_grad": [
        partial(
            operator("scatter_max_grad", scatter._scatter_max_grad),
            Grad(VALUES[:8]),
            VOXELS,
            cuda_ops.scatter_max(VALUES, VOXELS, 8).argmax,
        )
    ],
    "scatter_mean_grad": [
        partial(
            operator("scatter_mean_grad", scatter._scatter_mean_grad),
            Grad(VALUES[:8]),
            VOXELS,
            cuda_ops.scatter_mean(VALUES, VOXELS, 8).count,
        )
    ],
    "nearest_in_group": [partial(cuda_ops.nearest_in_group, PIXELS[:9], INSTANCES[:9], PIXELS, INSTANCES)],
    "gather_bilinear": [
        partial(cuda_ops.gather_bilinear, Grad(MAP), Grad(PLACES)),
        partial(cuda_ops.gather_bilinear, Grad(np.concatenate([MAP, -MAP])), Grad(PLACES), np.arange(20) % 3),
    ],
    "gather_bilinear_gradient": [
        partial(
            operator("gather_bilinear_gradient", gather._gather_bilinear_gradient),
            RNG.normal(size=(20, 4)).astype(np.float32),
            MAP,
            PLACES,
            None,
            True,
            True,
        )
    ],
    "sparse_indices": [
        partial(cuda_ops.sparse_indices, SITES, (4, 6, 6), 3, submanifold=True, batch_size=2),
        partial(cuda_ops.sparse_indices, SITES, (4, 6, 6), 3, 2, 1, batch_size=2),
        partial(cuda_ops.sparse_indices, SITES, (4, 6, 6), 3, 2, 1, batch_size=2, capacity=100),
    ],
    "transpose_table": [partial(cuda_ops.transpose_table, TABLE, len(SITES))],
    "sparse_conv": [
        partial(cuda_ops.sparse_conv, Grad(FEATURES), Grad(WEIGHT), TABLE),
        partial(
            cuda_ops.sparse_conv,
            Grad(FEATURES),
            Grad(WEIGHT),
            TABLE,
            bias=Grad(WEIGHT[:, 0, 0, 0, 0]),
            residual=Grad(OUTPUT_ROWS),
            relu=True,
        ),
    ],
    "sparse_conv_weight_gradient": [partial(cuda_ops.sparse_conv_weight_gradient, Grad(FEATURES), Grad(OUTPUT_ROWS), TABLE)],
}

ALL_SAMPLES = [pytest.param(name, sample, id=f"{name}-{i}") for name, samples in SAMPLES.items() for i, sample in enumerate(samples)]
TORCH_ONLY = {"gather_bilinear_gradient"}  # steps of a backward pass that have no use for NumPy
each_sample = pytest.mark.parametrize(("name", "sample"), ALL_SAMPLES)


def plain(value: Any) -> Any:
    """The NumPy array that `Grad` holds; anything else as it is."""
    return value.array if isinstance(value, Grad) else value


def tensors(value: Any, device: Any = "cpu") -> Any:
    """An argument, or what is in it, as torch tensors."""
    if isinstance(value, Grad):
        return torch.from_numpy(value.array).to(device).requires_grad_()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value).to(device)
    if isinstance(value, Primitives):
        return value.to(device)
    if isinstance(value, tuple):
        parts = [tensors(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def filled(sample: partial, convert: Callable[[Any], Any]) -> partial:
    """The same call with other arguments."""
    return partial(sample.func, *[convert(a) for a in sample.args], **{name: convert(a) for name, a in sample.keywords.items()})


def flat(result: Any) -> list[np.ndarray]:
    """The arrays of a result, in order, as NumPy."""
    if isinstance(result, tuple):
        return [array for part in result for array in flat(part)]
    return [] if result is None else [result.detach().cpu().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)]


def assert_same(ours: Any, theirs: Any) -> None:
    """The same type of result, and the same bits in arrays of the same dtypes and shapes."""
    assert type(ours).__name__ == type(theirs).__name__ or not isinstance(ours, tuple)
    for one, other in zip(flat(ours), flat(theirs), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)


def test_every_operator_and_every_public_function_has_samples():
    assert {name for name in torch_ops.OPERATORS if not SAMPLES.get(name)} == set()
    public = {name for name in cuda_ops.__all__ if inspect.isfunction(getattr(cuda_ops, name))}
    assert public - {sample.func.__name__ for samples in SAMPLES.values() for sample in samples} == set()


@pytest.mark.parametrize("name", torch_ops.OPERATORS)
def test_an_operator_with_a_gradient_has_a_sample_that_asks_for_it(name):
    has_gradient = torch._C._dispatch_has_kernel_for_dispatch_key(f"cuda_ops::{name}", "Autograd")
    asks = any(isinstance(a, Grad) for sample in SAMPLES[name] for a in (*sample.args, *sample.keywords.values()))
    gradient = torch_ops.OPERATORS[name].gradient
    is_refused = gradient is not None and gradient.setup_context is None  # a second derivative, which raises
    assert has_gradient == (asks or is_refused)


@each_sample
def test_opcheck(name, sample, monkeypatch):
    calls, registered = [], torch_ops.registered
    monkeypatch.setattr(torch_ops, "registered", lambda called: lambda *a: calls.append((called, a)) or registered(called)(*a))
    filled(sample, tensors)()
    arguments = [a for called, a in calls if called == name]
    assert arguments, f"the sample of {name} called {[called for called, _ in calls]}"
    for one_call in arguments:
        torch.library.opcheck(registered(name), one_call)


@each_sample
def test_compiled_is_eager(name, sample):
    """Without a break of the graph, also where the data tell how many rows come out."""
    call, operators = filled(sample, tensors), []

    def backend(graph, inputs):
        operators.extend(node.target for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    torch._dynamo.reset()
    compiled = torch.compile(sample.func, fullgraph=True, backend=backend)
    assert_same(compiled(*call.args, **call.keywords), call())
    assert torch_ops.registered(name) in operators


@pytest.mark.parametrize(("name", "sample"), [p for p in ALL_SAMPLES if p.values[0] not in TORCH_ONLY])
def test_numpy_and_tensors_give_the_same_bits(name, sample):
    on_numpy, on_torch = filled(sample, plain)(), filled(sample, tensors)()
    assert_same(on_torch, on_numpy)
    assert_same(filled(sample, plain)(), on_numpy)  # and the same again
    parts = on_torch if isinstance(on_torch, tuple) else (on_torch,)
    assert all(part is None or isinstance(part, torch.Tensor) or set(map(type, part)) == {int} for part in parts)


@each_sample
def test_numpy_and_tensors_are_not_mixed(name, sample):
    given = {**dict(enumerate(sample.args)), **sample.keywords}
    places = [place for place, value in given.items() if isinstance(value, np.ndarray | Grad | Primitives)]
    for place in places if len(places) > 1 else []:
        for is_odd in (lambda at, place=place: at == place, lambda at, place=place: at != place):
            mixed = {at: tensors(value) if is_odd(at) else plain(value) for at, value in given.items()}
            with pytest.raises(ValueError, match=r"expected .* got"):
                sample.func(*[mixed[i] for i in range(len(sample.args))], **{k: mixed[k] for k in sample.keywords})


def test_compiled_once_for_clouds_of_any_size():
    compiled = torch.compile(cuda_ops.voxelize_mean, fullgraph=True, dynamic=True, backend="aot_eager")
    compiled(torch.from_numpy(POINTS), GRID)
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows in (17, 120):
            points = torch.from_numpy(POINTS[:rows])
            assert_same(compiled(points, GRID), cuda_ops.voxelize_mean(points, GRID))


def test_a_compiled_function_works_on_with_rows_that_only_the_data_count():
    def farthest_kept(boxes, scores):
        kept = boxes[cuda_ops.nms_bev(boxes, scores, 0.2)]
        return (kept[:, :2] ** 2).sum(1).max()

    boxes, scores = torch.from_numpy(BOXES), torch.from_numpy(SCORES)
    assert torch.compile(farthest_kept, fullgraph=True, backend="aot_eager")(boxes, scores) == farthest_kept(boxes, scores)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(lambda t: torch.view_as_complex(torch.stack([t, -t], -1)).conj().imag, id="negated when read"),
        pytest.param(lambda t: t.T.contiguous().T, id="transposed"),
        pytest.param(lambda t: t.clone().requires_grad_(), id="with a gradient"),
        pytest.param(torch.nn.Parameter, id="parameter"),
    ],
)
def test_tensors_of_any_layout(layout):
    points = torch.from_numpy(POINTS)
    assert_same(cuda_ops.voxelize_mean(layout(points), GRID), cuda_ops.voxelize_mean(points, GRID))


@pytest.mark.parametrize(
    "name", [name for name, samples in SAMPLES.items() if hasattr(cuda_ops, name) and not isinstance(samples[0].args[0], Primitives)]
)
def test_sparse_tensors_are_refused(name):
    call = filled(SAMPLES[name][0], tensors)
    with pytest.raises(ValueError, match=r"expected a dense tensor, got one of layout torch.sparse_coo; call .to_dense\(\) first"):
        call.func(call.args[0].detach().to_sparse(), *call.args[1:], **call.keywords)


# ---- on a GPU ----


@pytest.mark.gpu
@each_sample
def test_compiled_on_the_gpu_is_the_cpu(cuda_device, name, sample):
    try:
        on_gpu = filled(sample, partial(tensors, device=cuda_device))()
    except ValueError as error:
        assert "no CUDA body yet" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    torch._dynamo.reset()
    call = filled(sample, partial(tensors, device=cuda_device))
    compiled = torch.compile(sample.func, fullgraph=True, backend="aot_eager")(*call.args, **call.keywords)
    assert_same(compiled, on_gpu)
    if name == "ray_tree":  # a GPU looks at its primitives in another way
        return
    on_cpu = filled(sample, tensors)()
    if name.startswith("sparse_conv"):  # sums are of other blocks there
        for one, other in zip(flat(on_gpu), flat(on_cpu), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
        return
    assert_same(on_gpu, on_cpu)
