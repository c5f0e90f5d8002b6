import pytest
import torch

from perception.detection.fold import folded
from perception.detection.head import CenterHead
from perception.detection.lazy_head import LazyHead
from tests.detection.small import livened

DET3D = {"offset_groups": 4, "offset_kernel": 1, "relu": True}
MMDET3D = {"groups": 4}


@pytest.fixture(
    scope="module",
    params=[
        (True, None, False),
        (False, None, False),
        (True, DET3D, False),
        (False, MMDET3D, False),
        (True, None, True),
        (False, DET3D, True),
    ],
    ids=["velocity", "no velocity", "deformable", "deformable, 3 x 3", "IoU", "IoU, deformable, no velocity"],
)
def heads(request: pytest.FixtureRequest) -> tuple[CenterHead, LazyHead]:
    velocity, deformable, iou = request.param
    head = CenterHead(12, (1, 2, 2), shared_channels=8, branch_channels=6, velocity=velocity, iou=iou, deformable=deformable)
    head.load_state_dict(livened(head.state_dict()))
    for name, value in head.named_parameters():
        if ".offset." in name:
            torch.nn.init.normal_(value, 0, 0.5)  # a new one moves nothing
    return head.eval(), LazyHead(folded(head))


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_the_dense_head(heads, layout):
    dense, lazy = heads
    features = torch.randn((2, 12, 9, 7)).to(memory_format=layout)
    maps = dense(features)
    shared, logits = lazy.heatmaps(features)
    torch.testing.assert_close(shared, maps.shared, rtol=1e-4, atol=1e-5)
    for task, (found, expected) in enumerate(zip(logits, maps.tasks, strict=True)):
        torch.testing.assert_close(found, expected.heatmap, rtol=1e-4, atol=1e-5)
        for cells in (torch.arange(63), torch.tensor([62, 0, 30]), torch.zeros(0, dtype=torch.int64)):  # corners, order, none
            for sample in range(2):
                branches = lazy.branches(shared, task, sample, cells)
                torch.testing.assert_close(branches, expected.stacked[sample].flatten(1)[:, cells].t(), rtol=1e-4, atol=1e-5)
