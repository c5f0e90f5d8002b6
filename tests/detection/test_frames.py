import numpy as np
import pytest

from perception.core.errors import UsageError
from perception.core.transform import Transform
from perception.detection.frames import NUSCENES_MOUNT, network_mounting


def test_a_lidar_mounted_like_nuscenes_stays_in_its_frame():
    mounted = NUSCENES_MOUNT @ Transform.from_yaw(0.03, (0.1, -0.1, 0.05))
    points_move, boxes_move = network_mounting("nuscenes_lidar", mounted)
    assert points_move is None
    assert boxes_move is mounted


@pytest.mark.parametrize("lidar_to_ego", [Transform.from_yaw(0.0, (0.8, 0.0, 1.73)), NUSCENES_MOUNT @ Transform.from_yaw(0, (0, 0, 1.0))])
def test_another_one_is_moved_to_where_nuscenes_has_its_own(lidar_to_ego):
    lidar_to_network, network_to_ego = network_mounting("nuscenes_lidar", lidar_to_ego)
    points = np.array([[3.0, 1.0, -1.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(network_to_ego.apply(lidar_to_network.apply(points)), lidar_to_ego.apply(points), atol=1e-12)
    ahead = lidar_to_network.apply(lidar_to_ego.inverse().apply(np.array([[11.0, 0.0, 0.0]])))  # on the ground, ahead of the car
    np.testing.assert_allclose(ahead, [[0.0, 10.05, -1.84]], atol=1e-12)


def test_a_network_of_the_ego_frame():
    lidar_to_ego = Transform.from_yaw(0.3, (1, 2, 3))
    lidar_to_network, network_to_ego = network_mounting("ego", lidar_to_ego)
    assert lidar_to_network is lidar_to_ego
    np.testing.assert_array_equal(network_to_ego.matrix, np.eye(4))


def test_an_unknown_frame():
    with pytest.raises(UsageError, match="expected one of nuscenes_lidar, ego, got 'camera'"):
        network_mounting("camera", NUSCENES_MOUNT)
