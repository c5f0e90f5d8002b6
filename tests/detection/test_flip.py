import torch

from perception.detection.flip import merged_maps, mirrored
from perception.detection.head import TaskMaps


def test_four_views():
    cloud = torch.tensor([[1.0, 2.0, 3.0, 7.0, 0.1]])
    views = mirrored([cloud, cloud + 10])
    assert [view[0, :2].tolist() for view in views[:4]] == [[1, 2], [1, -2], [-1, 2], [-1, -2]]
    assert all(torch.equal(view[:, 2:], cloud[:, 2:]) for view in views[:4])
    assert views[7][0, :2].tolist() == [-11, -12]


def test_a_network_that_sees_the_mirror_image_merges_to_what_it_saw_first():
    """Maps of a perfectly symmetric network: every view is the mirror image of the first, so the mean is the first."""
    generator = torch.Generator().manual_seed(0)
    heat, boxes = torch.randn((1, 2, 4, 6), generator=generator), torch.randn((1, 10, 4, 6), generator=generator) * 0.3

    def seen(flip_y: bool, flip_x: bool) -> tuple[torch.Tensor, torch.Tensor]:
        axes, b = [2] * flip_y + [3] * flip_x, boxes.clone()
        if flip_y:  # det3d's yaw becomes pi - r: the sine (channel 6) stays, the cosine (7) changes its sign
            b[:, 1], b[:, 7], b[:, 9] = 1 - b[:, 1], -b[:, 7], -b[:, 9]
        if flip_x:
            b[:, 0], b[:, 6], b[:, 8] = 1 - b[:, 0], -b[:, 6], -b[:, 8]
        return heat.flip(axes), b.flip(axes)

    views = [seen(*flips) for flips in ((False, False), (True, False), (False, True), (True, True))]
    merged = merged_maps(TaskMaps(torch.cat([h for h, _ in views]), torch.cat([b for _, b in views])))
    torch.testing.assert_close(merged.heatmap, heat.sigmoid())
    torch.testing.assert_close(merged.boxes, torch.cat([boxes[:, :3], boxes[:, 3:6].exp(), boxes[:, 6:]], dim=1))


def test_predicted_iou_is_the_mean_of_the_views():
    iou = torch.zeros(4, 1, 2, 3)
    for view, (row, column) in enumerate([(0, 0), (1, 0), (0, 2), (1, 2)]):  # the first cell as each view sees it
        iou[view, 0, row, column] = view
    merged = merged_maps(TaskMaps(torch.randn(4, 1, 2, 3), torch.randn(4, 10, 2, 3), iou))
    assert merged.iou is not None
    assert merged.iou.tolist() == [[[[1.5, 0, 0], [0, 0, 0]]]]


def test_without_velocity():
    maps = TaskMaps(torch.randn(4, 1, 2, 2), torch.randn(4, 8, 2, 2))
    assert merged_maps(maps).boxes.shape == (1, 8, 2, 2)
