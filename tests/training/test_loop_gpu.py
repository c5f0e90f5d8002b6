import pytest
import torch

from perception.detection.config import DetectorConfig
from perception.detection.detector import Detector
from perception.training.loop import Loop
from perception.training.processes import Processes
from tests.detection.small import LIDAR_TO_EGO, cloud
from tests.training.small import FixedFeed, small_detector, small_loop, unchanged

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class OnDevice(FixedFeed):
    def batch(self, step):
        return [sample.to("cuda") for sample in super().batch(step)]


def gpu_loop(**settings) -> Loop:
    values = {"steps": 30, "batch_size": 4, "log_every": 10, "optimizer": {"peak_rate": 0.003}, **settings}
    return small_loop(Processes("cuda"), feed=OnDevice(4), published=True, parts={"augment": unchanged}, **values)


def trained(loop: Loop, until: float = 1.0) -> list[float]:
    losses = []
    while (progress := loop.progress) < until:
        loop.advance(progress)
        losses.append(loop.look(loop.progress).losses["loss"])
    return losses


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_learns_as_a_cpu_does(precision):
    on_cpu = small_loop(
        feed=FixedFeed(4),
        published=True,
        parts={"augment": unchanged},
        steps=30,
        batch_size=4,
        optimizer={"peak_rate": 0.003},
    )
    ours, theirs = trained(gpu_loop(precision=precision)), trained(on_cpu)
    assert ours[0] == pytest.approx(theirs[0], rel=2e-2)
    assert ours[-1] == pytest.approx(theirs[-1], rel=0.3)
    assert ours[-1] < 0.3 * ours[0]


def test_auto_is_bfloat16_where_the_gpu_has_it():
    expected = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    assert gpu_loop(precision="auto").precision == expected


def test_a_resumed_training_goes_on(tmp_path):
    whole = trained(gpu_loop(precision="bfloat16"))
    first = gpu_loop(precision="bfloat16")
    begun = trained(first, until=0.5)
    torch.save(first.state(), tmp_path / "state.pt")
    again = gpu_loop(precision="bfloat16")
    again.load(torch.load(tmp_path / "state.pt", map_location="cpu", weights_only=True), where="state.pt")
    assert begun + trained(again) == pytest.approx(whole, rel=0.1)


def test_the_weights_detect_on_both_devices():
    loop = gpu_loop()
    trained(loop)
    state = {name: tensor.cpu() for name, tensor in loop.ema.state().items()}
    config = DetectorConfig(detector=small_detector())
    found = [Detector.from_config(config, weights=state, device=device).detect(cloud(900), LIDAR_TO_EGO) for device in ("cpu", "cuda")]
    assert len(found[0]) == len(found[1])


def test_nothing_but_voxels_waits_for_the_device():
    """Of a step's own work: losses, clipping, optimizer, mean of the weights."""
    loop = gpu_loop()
    loop.advance(0.0)
    loss = sum(parameter.square().sum() for parameter in loop._parameters)
    loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop._scaler.unscale_(loop._optimizer)
        torch.nn.utils.clip_grad_norm_(loop._parameters, 35.0)
        loop._scaler.step(loop._optimizer)
        loop._scaler.update()
        loop._optimizer.zero_grad(set_to_none=True)
        loop.ema.update(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
