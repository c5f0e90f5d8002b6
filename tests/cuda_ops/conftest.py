"""What the tests of the operators share."""

import pytest


@pytest.fixture
def cuda_device():
    """A CUDA device that the operators can use; skips, with the reason, where there is none."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or a torch without CUDA")
    from cuda_ops import arrays

    arrays.cuda_module()  # a GPU without the compiled part is an error, not a reason to skip
    return torch.device("cuda")
