"""What all operators share: arguments taken as they should be, results with memory of their own, no torch until it is needed."""

import gc
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import cuda_ops
from cuda_ops import arrays
from cuda_ops.arrays import NumpySpace, num_threads, space_of

torch = pytest.importorskip("torch")

NUMPY, CPU = NumpySpace(), arrays.TorchSpace(torch.device("cpu"))
both = pytest.mark.parametrize(
    ("space", "make"),
    [pytest.param(NUMPY, np.asarray, id="numpy"), pytest.param(CPU, lambda a: torch.from_numpy(np.asarray(a)), id="torch")],
)


def address(array) -> int:
    return array.data_ptr() if isinstance(array, torch.Tensor) else array.ctypes.data


# ---- take ----


@both
@pytest.mark.parametrize(
    ("given", "dtypes"),
    [
        pytest.param("float64", ("float64", "float32"), id="as it is"),
        pytest.param("float32", ("float64", "float32"), id="float32 to float64"),
        pytest.param("int64", ("int32", "int64"), id="int64 to int32"),
        pytest.param("int32", ("int64", "int32"), id="int32 to int64"),
    ],
)
def test_take_converts_to_the_first_dtype(space, make, given, dtypes):
    array = make(np.arange(-3, 9).reshape(4, 3).astype(given))
    taken = space.take("x", array, ("N", 3), *dtypes)
    assert type(taken) is type(array)
    assert str(taken.dtype).removeprefix("torch.") == dtypes[0]
    np.testing.assert_array_equal(taken, array)
    assert (address(taken) == address(array)) == (given == dtypes[0])  # what fits is not copied


@both
def test_take_clamps_an_int64_so_that_what_is_out_of_range_stays_so(space, make):
    index = make(np.array([5, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -1, -(2**31), -(2**32) - 5, -(2**63)]))
    low, high = -(2**31), 2**31 - 1
    assert space.take("x", index, ("N",), "int32", "int64").tolist() == [5, high, high, high, high, -1, low, low, low]
    assert space.take("x", index, ("N",), "int64", "int32").tolist() == index.tolist()


@both
def test_take_makes_contiguous(space, make):
    whole = make(np.arange(60, dtype=np.float32).reshape(10, 6))
    for view in (whole[::2], whole[:, 1:4], whole[:, ::3], whole.T, whole[3:3]):
        taken = space.take("x", view, ("N", "C"), "float32")
        np.testing.assert_array_equal(taken, view)
        assert taken.flags.c_contiguous if space is NUMPY else taken.is_contiguous()
    assert address(space.take("x", whole[2:5], ("N", "C"), "float32")) == address(whole[2:5])


def test_take_of_numpy_views_that_torch_does_not_have():
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    for view in (array[::-1], array[:, ::-1], np.asfortranarray(array), np.broadcast_to(array[:1], (5, 3))):
        taken = NUMPY.take("x", view, ("N", 3), "float32")
        np.testing.assert_array_equal(taken, view)
        assert taken.flags.c_contiguous
    array.flags.writeable = False
    assert address(NUMPY.take("x", array, ("N", 3), "float32")) == address(array)


@both
def test_take_aligns_rows_from_a_buffer_that_began_anywhere(space, make):
    array = make(np.frombuffer(bytearray(range(61)), np.uint8)[1:].view(np.float32).reshape(5, 3))
    assert address(array) % 4
    taken = space.take("x", array, ("N", 3), "float32")
    assert address(taken) % 4 == 0
    np.testing.assert_array_equal(taken, np.array(array))


def test_take_of_lists():
    assert NUMPY.take("x", [[1.0, 2.0]], ("N", 2), "float64").tolist() == [[1, 2]]
    assert NUMPY.take("x", [], ("N",), "int32", "int64").dtype == np.int32  # an empty list has no dtype of its own
    with pytest.raises(ValueError, match="x: expected dtype int32, got float64"):
        NUMPY.take("x", np.zeros(0), ("N",), "int32")  # an empty array has


def test_take_detaches():
    leaf = torch.ones(3, requires_grad=True)
    assert not CPU.take("x", leaf, ("N",), "float32").requires_grad
    assert not CPU.take("x", leaf * 2, ("N",), "float64", "float32").requires_grad


@both
@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        pytest.param(np.zeros((2, 3)), ("N", "C"), r"points: expected dtype float32 or int32, got float64", id="dtype"),
        pytest.param(np.zeros(2, bool), ("N",), r"points: expected dtype float32 or int32, got bool", id="bool"),
        pytest.param(np.zeros(2, np.float16), ("N",), r"points: expected dtype float32 or int32, got float16", id="half"),
        pytest.param(np.zeros((2, 3), np.float32), ("N",), r"points: expected shape \(N,\), got \(2, 3\)", id="too many axes"),
        pytest.param(np.zeros(2, np.float32), ("N", 3), r"points: expected shape \(N, 3\), got \(2,\)", id="too few axes"),
        pytest.param(np.zeros((2, 4), np.float32), (None, 3), r"points: expected shape \(any, 3\), got \(2, 4\)", id="length"),
        pytest.param(np.zeros((0, 4), np.float32), (0, 3), r"points: expected shape \(0, 3\), got \(0, 4\)", id="empty"),
        pytest.param(np.float32(1), ("N",), r"points: expected shape \(N,\), got \(\)", id="a number"),
    ],
)
def test_take_says_expected_and_got(space, make, array, shape, message):
    with pytest.raises(ValueError, match=message):
        space.take("points", make(array), shape, "float32", "int32")


def test_take_refuses_foreign_byte_order_and_things():
    for value, got in ((np.zeros(2, ">f4"), ">f4"), (["a"], "<U1"), (None, "object")):
        with pytest.raises(ValueError, match=f"x: expected dtype float32, got {got}"):
            NUMPY.take("x", value, ("N",), "float32")


# ---- space_of ----


def test_space_of_one_kind():
    array, tensor = np.zeros(3), torch.zeros(3)
    assert space_of("f", a=array, b=None, c=[1, 2]) == space_of("f", a=None) == NumpySpace()
    assert space_of("f", a=None, b=tensor, c=tensor) == CPU
    assert not space_of("f", a=array).on_gpu
    assert not space_of("f", a=tensor).on_gpu


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param((torch.zeros(1), np.zeros(1)), "f: b: expected a torch tensor on cpu like a, got ndarray", id="array"),
        pytest.param((np.zeros(1), torch.zeros(1)), "f: a: expected a torch tensor on cpu like b, got ndarray", id="array first"),
        pytest.param((torch.zeros(1), [0.0]), "f: b: expected a torch tensor on cpu like a, got list", id="list"),
        pytest.param(
            (torch.zeros(1), torch.zeros(1, device="meta")), "f: b: expected a tensor on cpu like a, got one on meta", id="devices"
        ),
        pytest.param(
            (torch.zeros(1, device="meta"), None), "f: a: expected a tensor on the CPU or a CUDA device, got one on meta", id="meta"
        ),
        pytest.param((torch.zeros(1), torch.zeros(1).to_sparse()), "f: b: expected a dense tensor, got .* torch.sparse_coo", id="sparse"),
        pytest.param((torch.zeros(2, 2).to_mkldnn(), None), "f: a: expected a dense tensor, got .* torch._mkldnn", id="mkldnn"),
    ],
)
def test_space_of_mixed_kinds_says_expected_and_got(given, message):
    with pytest.raises(ValueError, match=message):
        space_of("f", a=given[0], b=given[1])


@pytest.mark.gpu
def test_space_of_a_gpu(cuda_device):
    tensor = torch.zeros(2, 3, device=cuda_device)
    space = space_of("f", a=tensor)
    assert space.on_gpu
    assert space.take("a", tensor.T, ("N", "C"), "float64", "float32").device == tensor.device
    assert space.empty((3,), "int32").device == space.zeros((3,), "int32").device == tensor.device
    with pytest.raises(ValueError, match="f: b: expected a tensor on cuda:0 like a, got one on cpu"):
        space_of("f", a=tensor, b=tensor.cpu())


# ---- memory of results ----

LARGE = 1 << 18  # bytes: results of this size come from the pool
with_pool = pytest.mark.skipif(
    "libasan" in Path("/proc/self/maps").read_text(), reason="the address sanitizer has its own memory: every block is new"
)


def filled(number: int, size: int, kind: str):
    """A result of the given size in bytes, every byte of which is `number`."""
    result = (CPU if kind == "torch" else NUMPY).empty((size // 4,), "int32")
    result[:] = number * 0x01010101
    return result


@pytest.mark.parametrize("size", [0, 4, (1 << 16) - 4, 1 << 16, LARGE + 4, (2 << 20) + 4])
def test_results_have_the_shape_and_dtype_asked_for(size):
    for dtype in ("float32", "int64", "int32"):
        count = size // np.dtype(dtype).itemsize
        for space in (NUMPY, CPU):
            result = space.empty((count, 1), dtype)
            assert tuple(result.shape) == (count, 1)
            assert str(result.dtype).removeprefix("torch.") == dtype
            assert address(result) % 16 == 0 or count == 0
            result[:] = 7  # writable to its end
    assert NUMPY.zeros((3, 2), "int64").tolist() == CPU.zeros((3, 2), "int64").tolist() == [[0, 0]] * 3


@with_pool
def test_memory_that_is_gone_is_used_again():
    size = 50 << 20  # none of the other tests leaves a block of about this size
    first = NUMPY.empty((size,), "uint8")
    at = address(first)
    second = NUMPY.empty((size,), "uint8")
    assert address(second) != at
    del first
    gc.collect()
    assert address(NUMPY.empty((size,), "uint8")) == at


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda a: a[5:9], id="slice"),
        pytest.param(lambda a: a[::-7], id="strides"),
        pytest.param(lambda a: a.reshape(2, -1)[1].view(np.uint8), id="reshaped, other dtype"),
        pytest.param(lambda a: np.asarray(memoryview(a)[3:]), id="memoryview"),
        pytest.param(lambda a: torch.from_numpy(a)[3:], id="torch.from_numpy"),
        pytest.param(lambda a: np.from_dlpack(torch.from_numpy(a)), id="DLPack"),
        pytest.param(lambda a: torch.from_numpy(a).reshape(-1, 2).numpy()[:, 1], id="there and back"),
    ],
)
def test_a_view_keeps_its_memory(view):
    kept = view(filled(1, LARGE, "numpy"))
    gc.collect()
    others = [filled(2, LARGE, "numpy") for _ in range(20)]
    assert (np.asarray(kept).view(np.uint8) == 1).all() if np.asarray(kept).flags.c_contiguous else (np.asarray(kept) == 0x01010101).all()
    assert all((other == 0x02020202).all() for other in others)


def churn(seed: int, steps: int, box: queue.Queue | None = None) -> int:
    """Make, view and drop results at random, and look at all that live; the number that were not what was written into them."""
    rng = np.random.default_rng(seed)
    alive, num_wrong = [], 0
    for step in range(steps):
        number = (seed * 31 + step) % 127
        size = int(rng.choice([1 << 10, 1 << 16, LARGE, LARGE + 4096, 3 << 20], p=[0.2, 0.4, 0.2, 0.18, 0.02]))
        result = filled(number, size, rng.choice(["numpy", "torch"]))
        alive.append((number, result[int(rng.integers(0, 100)) :] if rng.random() < 0.5 else result))
        del result
        while len(alive) > 12:
            number, old = alive.pop(int(rng.integers(0, len(alive))))
            num_wrong += bool((old != number * 0x01010101).any())
            if box is not None and rng.random() < 0.3:
                box.put((number, old))  # somebody else looks at it and lets it go
            if box is not None and rng.random() < 0.3 and not box.empty():
                number, theirs = box.get()
                num_wrong += bool((theirs != number * 0x01010101).any())
                del theirs
            del old
    return num_wrong + sum(bool((result != number * 0x01010101).any()) for number, result in alive)


@pytest.mark.parametrize("seed", range(3))
def test_results_do_not_disturb_each_other(seed):
    assert churn(seed, 150) == 0


def test_results_of_several_threads_do_not_disturb_each_other():
    box: queue.Queue = queue.Queue()
    wrong: list[int] = []
    threads = [threading.Thread(target=lambda seed=seed: wrong.append(churn(seed, 80, box))) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0] * 8


@pytest.mark.skipif("NVIDIA" in (arrays._cpu.__doc__ or ""), reason="the emulation of CUDA runs one kernel at a time")
def test_operators_called_from_several_threads_give_what_one_gives():
    grid = cuda_ops.Grid((-2, -2, -1), (2, 2, 1), (0.1, 0.1, 0.1))
    clouds = [np.random.default_rng(seed).uniform(-2, 2, (20_000, 4)).astype(np.float32) for seed in range(6)]
    expected = [cuda_ops.voxelize_mean(cloud, grid).features.copy() for cloud in clouds]
    kept: dict[int, list] = {}

    def work(number: int) -> None:
        kept[number] = [cuda_ops.voxelize_mean(clouds[number], grid).features for _ in range(10)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, results in kept.items():
        assert len({address(result) for result in results}) == 10
        for result in results:
            np.testing.assert_array_equal(result, expected[number])


@with_pool
def test_more_memory_than_there_is_raises():
    for space in (NUMPY, CPU):
        with pytest.raises(MemoryError):
            space.empty((2**58,), "float32")


# ---- threads, and torch ----


def test_num_threads_follows_torch():
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert num_threads() == count
    finally:
        torch.set_num_threads(before)


def run(code: str, **environment: str) -> str:
    """What a fresh Python prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    root = Path(cuda_ops.__file__).parents[1]
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, env={**kept, **environment}, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("count", [None, 1, 3])
def test_without_torch_num_threads_follows_the_environment(count):
    code = "import sys; from cuda_ops.arrays import num_threads; print(num_threads(), 'torch' in sys.modules)"
    assert run(code, **({} if count is None else {"OMP_NUM_THREADS": str(count)})) == f"{count or len(os.sched_getaffinity(0))} False"


def test_numpy_arrays_need_no_torch():
    code = """
import sys
import numpy as np
import cuda_ops
boxes, points = np.ones((2, 7)), np.zeros((3, 4), np.float32)
print(len(cuda_ops.nms_bev(boxes, np.ones(2), 0.5)), cuda_ops.points_in_boxes(points, boxes).index.tolist())
print(cuda_ops.voxelize_mean(points, cuda_ops.Grid((-1, -1, -1), (1, 1, 1), (1, 1, 1))).num_voxels)
print(sorted({"torch", "scipy", "pandas", "numba", "matplotlib", "perception"} & set(sys.modules)))
"""
    assert run(code).splitlines() == ["1 [-1, -1, -1]", "1", "[]"]


def test_import_is_quick():
    code = "import time, numpy; start = time.perf_counter(); import cuda_ops; print(time.perf_counter() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.3  # beside NumPy; some 0.05 s


FORKED = """if True:
    import os, signal, sys
    import numpy as np
    from cuda_ops import Grid, voxelize_mean
    points = np.random.default_rng(0).uniform(-40, 40, (40_000, 4)).astype(np.float32)
    grid = Grid((-40, -40, -5), (40, 40, 3), (0.5, 0.5, 8))
    first = voxelize_mean(points, grid)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends a child that waits for threads which are not there
        os._exit(int(not all((a == b).all() for a, b in zip(first[:3], voxelize_mean(points, grid)[:3]))))
    print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_works_on():
    """multiprocessing forks by default on Linux up to Python 3.13; OpenMP's threads stay with the parent."""
    assert run(FORKED, OMP_NUM_THREADS="2") == "0"


def test_numbers_of_numpy_are_numbers():
    boxes, scores = np.array([[0, 0, 4, 2, 0], [0.5, 0, 4, 2, 0.0]]), np.array([0.9, 0.8])
    assert cuda_ops.nms_bev(boxes, scores, np.float32(0.2), np.int64(5)).tolist() == [0]
    assert cuda_ops.nms_circle(boxes, scores, np.float64(1.0)).tolist() == [0]
    grid = cuda_ops.Grid((0, 0, 0), (4, 4, 4), (1, 1, 1))
    points = np.ones((3, 3), np.float32)
    assert cuda_ops.voxelize_hard(points, grid, np.int64(2), np.int32(9), batch_size=np.int64(1)).num_points.tolist() == [2]
    coords = np.zeros((1, 4), np.int32)
    plain = cuda_ops.sparse_indices(coords, (4, 4, 4), 3, 1, 1)
    numpys = cuda_ops.sparse_indices(
        coords, np.array([4, 4, 4]), np.int64(3), np.int64(1), np.int64(1), batch_size=np.int64(1), capacity=np.int64(27)
    )
    assert numpys.table[: len(plain.table)].tolist() == plain.table.tolist()
    assert cuda_ops.transpose_table(plain.table, np.int64(1)).shape == (1, 27)


@pytest.mark.parametrize("kernel_size", [3.0, np.float32(3), True, None])
def test_a_size_that_is_no_integer_is_refused(kernel_size):
    with pytest.raises(ValueError, match="kernel_size: expected integers from 1 along z, y, x"):
        cuda_ops.sparse_indices(np.zeros((1, 4), np.int32), (4, 4, 4), kernel_size)
