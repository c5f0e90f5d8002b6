"""Arrays in one copy, and what each thing gets of its sample."""

import numpy as np
import torch

from perception.training.upload import of_each, uploaded


def test_arrays_come_as_they_were():
    rng = np.random.default_rng(0)
    arrays = [
        rng.random(3) < 0.5,
        rng.integers(-9, 9, (2, 3), dtype=np.int32),
        np.zeros((0, 9), np.float32),
        rng.normal(size=(5, 7)).astype(np.float32)[:, ::2],
        rng.integers(-(2**62), 2**62, (4,)),
        rng.random((3, 5)) < 0.5,
        np.zeros(0, np.int64),
    ]
    for array, tensor in zip(arrays, uploaded(arrays, torch.device("cpu")), strict=True):
        assert tensor.is_contiguous()
        assert tensor.numpy().dtype == array.dtype
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_each_thing_has_the_column_of_its_sample():
    table, sample = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([2, 0, 0, 1], dtype=torch.int32)
    assert of_each(table, sample).tolist() == [[3, 1, 1, 2], [6, 4, 4, 5]]
    assert of_each(table[:, :1], torch.zeros(4, dtype=torch.int32)).shape == (2, 1)
