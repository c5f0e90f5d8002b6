"""Targets and losses on a GPU against the CPU; and, on any machine, that they ask a device for no value while it works."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pydantic")

from perception.detection.head import HeadMaps, TaskMaps  # noqa: E402  behind the check
from perception.training.losses import center_loss  # noqa: E402
from perception.training.sample import Sample  # noqa: E402
from perception.training.targets import make_targets  # noqa: E402
from tests.training.makers import small_settings  # noqa: E402

SETTINGS = small_settings(iou=True)
COUNTS = (7, 0, 40)


def samples_of(device: str) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for count in COUNTS:
        boxes = torch.rand(count, 9, generator=generator) * 28 - 14
        boxes[:, 3:6] = boxes[:, 3:6].abs() / 3 + 0.1
        boxes[:2, 3:5] = 20.0  # heat beyond that of any vehicle
        boxes[::4, 6:8] = torch.nan
        labels = torch.randint(0, 4, (count,), generator=generator)
        samples.append(Sample("a", torch.zeros(0, 5), boxes, labels, torch.ones_like(labels), torch.zeros(3)).to(device))
    return samples


def maps_of(device: str, dtype: torch.dtype = torch.float32) -> HeadMaps:
    generator = torch.Generator().manual_seed(1)

    def random(channels: int) -> torch.Tensor:
        return torch.randn(len(COUNTS), channels, 32, 32, generator=generator).to(device, dtype).requires_grad_()

    return HeadMaps(
        torch.zeros(len(COUNTS), 1, 32, 32, device=device), tuple(TaskMaps(random(c), random(10), random(1)) for c in (1, 2, 1))
    )


def test_no_value_is_asked_of_the_device():
    """On torch's `meta` device tensors have shapes and no values: asking for one is an error, and so is a tensor left on the CPU."""
    maps = maps_of("meta", torch.bfloat16)
    center_loss(maps, make_targets(samples_of("meta"), SETTINGS)).total.backward()
    assert all(part.grad is not None for task in maps.tasks for part in task)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or a torch without CUDA")
def test_a_gpu_gives_what_the_cpu_gives_and_never_waits():
    here, there, maps, gpu_maps, again = samples_of("cpu"), samples_of("cuda"), maps_of("cpu"), maps_of("cuda"), maps_of("cuda")
    center_loss(again, make_targets(there, SETTINGS)).total.backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        targets = make_targets(there, SETTINGS)
        losses = center_loss(gpu_maps, targets)
        losses.total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = make_targets(here, SETTINGS)
    for found, wanted in zip(targets, expected, strict=True):
        for name in ("index", "mask", "cat"):
            assert torch.equal(getattr(found, name).cpu(), getattr(wanted, name))
        torch.testing.assert_close(found.heatmap.cpu(), wanted.heatmap, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.values.cpu(), wanted.values, rtol=0, atol=1e-5, equal_nan=True)
    loss = center_loss(maps, expected)
    loss.total.backward()
    assert losses.total.item() == pytest.approx(loss.total.item(), rel=1e-4)
    for task, wanted, same in zip(gpu_maps.tasks, maps.tasks, again.tasks, strict=True):
        for a, b, c in zip(task, wanted, same, strict=True):
            torch.testing.assert_close(a.grad.cpu(), b.grad, rtol=1e-3, atol=1e-6)
            assert torch.equal(a.grad, c.grad)
