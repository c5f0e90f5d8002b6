import math

import numpy as np
import pytest
import torch

from perception.core.errors import UsageError
from perception.training.log import NonFiniteLoss
from perception.training.loop import Loop
from tests.training.small import FixedFeed, sample, shaken, small_loop, square_loss


def trained(loop: Loop) -> list[float]:
    """Train to the end; the loss of each step."""
    losses = []
    while (progress := loop.progress) < 1:
        loop.advance(progress)
        losses.append(loop.look(loop.progress).losses["loss"])
    return losses


def test_the_loss_falls_and_every_weight_moves():
    loop = small_loop(steps=30, optimizer={"peak_rate": 0.01})
    before = {name: tensor.clone() for name, tensor in loop.network.state_dict().items()}
    losses = trained(loop)
    assert losses[-1] < 0.5 * losses[0]
    still = [name for name, tensor in loop.network.state_dict().items() if torch.equal(tensor, before[name])]
    assert still == []
    assert (loop.step, loop.samples) == (30, 60)


def test_the_rate_and_the_momentum_are_those_of_the_schedule():
    loop, seen = small_loop(steps=10), []
    group = loop._optimizer.param_groups[0]
    loop._optimizer.register_step_pre_hook(lambda *_: seen.append((group["lr"], group["betas"])))
    trained(loop)
    rates, betas = zip(*seen, strict=True)
    assert rates[0] == pytest.approx(1e-4)
    assert rates[4] == pytest.approx(1e-3)  # int(0.4 * 10)
    assert rates[7] == pytest.approx(5.00005e-4)
    assert betas[4] == pytest.approx((0.85, 0.99))


def test_a_step_is_adamw_by_hand():
    # The first step of AdamW moves each weight by rate * sign of its gradient, whatever its size, after decay by rate * 0.01.
    loop, gradients = small_loop(steps=10), []
    before = [p.detach().clone() for p in loop._parameters]
    loop._optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad.clone() for p in loop._parameters))
    loop.advance(0.0)
    for old, new, gradient in zip(before, loop._parameters, gradients, strict=True):
        is_clear = gradient.abs() > 1e-4
        expected = old * (1 - 1e-4 * 0.01) - 1e-4 * gradient.sign()
        assert torch.allclose(new.detach()[is_clear], expected[is_clear], atol=1e-6)


def test_gradients_above_the_limit_are_scaled_down_to_it():
    def steep(maps, targets, total_of):
        values = square_loss(maps, targets, total_of)
        values.total = values.total * 1e4
        return values

    loop, norms = small_loop(parts={"loss": steep}), []
    loop._optimizer.register_step_pre_hook(lambda *_: norms.append(torch.stack([p.grad.norm() for p in loop._parameters]).norm().item()))
    loop.advance(0.0)
    status = loop.look(loop.progress)
    assert status.gradient_norm > 1000  # what is told is the norm before
    assert norms == [pytest.approx(35, rel=1e-4)]


def test_two_accumulated_batches_give_the_mean_of_their_gradients():
    found = []
    for accumulate, numbers in ((2, [0]), (1, [0]), (1, [1])):
        loop = small_loop(accumulate=accumulate)
        loop.step = numbers[0]
        loop._gradients(0.0)
        found.append([p.grad.clone() for p in loop._parameters])
    for both, first, second in zip(*found, strict=True):
        assert torch.allclose(both, (first + second) / 2, rtol=1e-4, atol=1e-6)


def test_accumulation_walks_through_the_feed():
    feed = FixedFeed(2)
    trained(small_loop(feed=feed, accumulate=3, steps=2))
    assert feed.asked == [0, 1, 2, 3, 4, 5]


def test_epochs_are_whole_walks_through_the_samples():
    assert small_loop(steps=None, epochs=2).length.steps == 6  # 3 batches an epoch
    assert small_loop(steps=None, epochs=2, accumulate=3).length.steps == 2
    with pytest.raises(UsageError, match="expected steps or minutes with data that has no end"):
        small_loop(steps=None, epochs=2, feed=FixedFeed(2, steps_per_epoch=None))


def test_a_training_without_an_end_is_refused():
    with pytest.raises(UsageError, match="expected an end, got none"):
        small_loop(steps=None)


def test_samples_are_augmented_by_seed_batch_and_place():
    seen = []

    def augment(samples, rngs, progress):
        seen.extend((one.token, rng.integers(1 << 30), progress) for one, rng in zip(samples, rngs, strict=True))
        return samples

    loop = small_loop(parts={"augment": augment}, seed=5)
    loop.advance(0.0)
    loop.advance(0.25)
    expected = [np.random.default_rng([5, step, place]).integers(1 << 30) for step in (0, 1) for place in (0, 1)]
    assert [number for _, number, _ in seen] == expected
    assert [token for token, *_ in seen] == [f"sample {i}" for i in range(4)]
    assert [progress for *_, progress in seen] == [0.0, 0.0, 0.25, 0.25]


@pytest.mark.parametrize(("able", "expected"), [({"amx_bf16": True}, "bfloat16"), ({"amx_bf16": False}, "float32"), ({}, "float32")])
def test_auto_is_bfloat16_where_the_cpu_multiplies_it(monkeypatch, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    assert small_loop(precision="auto").precision == getattr(torch, expected)


def test_bfloat16_learns_nearly_the_same():
    exact, rough = (trained(small_loop(steps=20, precision=name)) for name in ("float32", "bfloat16"))
    assert rough == pytest.approx(exact, rel=0.05)
    assert rough != exact


def _nan_from(step: int):
    """A loss that is no number in this step and later."""
    calls = []

    def loss(maps, targets, total_of):
        calls.append(0)
        values = square_loss(maps, targets, total_of)
        if len(calls) > step:
            values.parts["box"] = values.parts["box"] * math.nan
            values.total = values.total * math.nan
        return values

    return loss


def test_the_scaler_changes_nothing_but_rounding():
    plain, scaled = (trained(small_loop(scaled=on)) for on in (False, True))
    assert scaled == pytest.approx(plain, rel=1e-4)
    assert small_loop(precision="float16")._scaler.is_enabled()
    assert not small_loop(precision="bfloat16")._scaler.is_enabled()


@pytest.mark.parametrize("scaled", [False, True])
def test_a_loss_that_is_no_number_stops_with_the_samples_of_its_step(scaled):
    loop = small_loop(parts={"loss": _nan_from(step=1)}, scaled=scaled)
    for _ in range(4):  # nobody looks before the window is full
        loop.advance(loop.progress)
    with pytest.raises(
        NonFiniteLoss, match=r"step 2: expected finite losses, got loss nan, box nan.*samples were sample 2, sample 3;"
    ) as error:
        loop.look(loop.progress)
    assert "\n" not in str(error.value)


def _endless_gradient(step: int):
    """A finite loss whose gradient is infinite in one step."""
    calls = []

    def loss(maps, targets, total_of):
        calls.append(0)
        values = square_loss(maps, targets, total_of)
        if len(calls) == step:
            values.total = values.total + (maps.tasks[0].heatmap * 0).sum().sqrt()  # the slope of a root at 0
        return values

    return loss


def test_an_infinite_gradient_stops_where_no_scaler_skips_it():
    loop = small_loop(parts={"loss": _endless_gradient(step=2)})
    loop.advance(loop.progress)
    loop.advance(loop.progress)
    with pytest.raises(NonFiniteLoss, match=r"step 2: .*gradient norm nan"):
        loop.look(loop.progress)


def test_a_step_that_float16_skips_is_no_fault():
    loop = small_loop(parts={"loss": _endless_gradient(step=2)}, scaled=True, optimizer={"weight_decay": 0.1})
    loop.advance(loop.progress)
    before = [p.detach().clone() for p in loop._parameters]
    loop.advance(loop.progress)
    assert all(torch.equal(a, b) for a, b in zip(before, loop._parameters, strict=True))
    assert math.isfinite(loop.look(loop.progress).losses["loss"])


def test_the_clock_drives_the_schedule_where_it_is_ahead(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("perception.training.loop.time.monotonic", lambda: now[0])
    loop = small_loop(steps=None, minutes=1)
    loop.start_clock()
    rates = []
    while (progress := loop.progress) < 1:
        loop.advance(progress)
        rates.append(loop.look(loop.progress).rate)
        now[0] += 6  # ten steps a minute
    assert len(rates) == 10
    assert rates[4] == pytest.approx(1e-3)
    assert rates[7] == pytest.approx(5.00005e-4)


def test_steps_end_a_training_before_its_budget():
    loop = small_loop(steps=3, minutes=1000)
    assert len(trained(loop)) == 3


def test_what_a_look_tells_of_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("perception.training.loop.time.monotonic", lambda: now[0])
    feed = FixedFeed(2)
    loop = small_loop(feed=feed)
    loop.start_clock(seconds=50.0)
    loop.advance(0.0)
    loop.advance(0.1)
    now[0], feed.wait_seconds = 4.0, 1.0
    status = loop.look(0.2)
    assert (status.seconds, status.samples_per_second, status.waiting) == (54.0, 1.0, 0.25)  # 4 samples in 4 s, 1 of them waiting
    assert (status.step, status.total_steps, status.samples) == (2, 6, 4)


def test_the_batch_must_be_shared_evenly():
    class Three:
        count, rank, device = 3, 0, torch.device("cpu")

    with pytest.raises(UsageError, match="multiple of the 3 processes, got 2"):
        small_loop(Three(), feed=FixedFeed(2))  # type: ignore[arg-type]


def test_stand_ins_do_what_they_say():
    assert len(sample(0).boxes) == 2
    assert not torch.equal(shaken([sample(1)], [np.random.default_rng(0)], 0.0)[0].points, sample(1).points)
