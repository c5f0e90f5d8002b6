import numpy as np

from cuda_ops import Kind, Primitives, cast_rays
from perception.drives.simulated.foliage import NUM_CLUMPS, with_clumps
from perception.drives.simulated.matter import Matter

EYE = np.zeros(3)
CROWN = Matter.of(Primitives.volumes(np.array([[20.0, 3.0, 6.0, 4.0, 5.0, 6.0, 0.7]]), 1.5), 30.0, (70, 96, 52))


def test_a_crown_becomes_a_core_with_clumps_within_its_bounds():
    lumpy = with_clumps(CROWN, EYE)
    assert len(lumpy) == 1 + NUM_CLUMPS
    s = lumpy.shapes
    assert (s.kind == Kind.ELLIPSOID_VOLUME).all()
    assert (s.size[0] < CROWN.shapes.size[0]).all()
    cos, sin = np.cos(0.7), np.sin(0.7)
    moved = s.center - CROWN.shapes.center[0]
    own = np.stack([cos * moved[:, 0] + sin * moved[:, 1], cos * moved[:, 1] - sin * moved[:, 0], moved[:, 2]], axis=1)
    # in the crown's units a clump is a ball: its middle and its radius stay within the unit ball
    radius = (s.size / CROWN.shapes.size[0])[:, 0]
    assert (np.linalg.norm(2 * own / CROWN.shapes.size[0], axis=1) + radius < 1 + 1e-5).all()
    assert (lumpy.color == CROWN.color[0]).all()


def test_clumps_stop_about_as_many_rays():
    rng = np.random.default_rng(0)
    target = CROWN.shapes.center[0] + rng.uniform(-0.5, 0.5, (4000, 3)) * CROWN.shapes.size[0] * 0.7
    directions = target.astype(np.float32)
    shares = [
        np.isfinite(cast_rays(np.zeros_like(directions), directions, m.shapes).distance).mean() for m in (CROWN, with_clumps(CROWN, EYE))
    ]
    assert abs(shares[0] - shares[1]) < 0.1


def test_what_is_far_small_or_no_crown_stays():
    small = Matter.of(Primitives.volumes(np.array([[20.0, 3.0, 0.5, 0.8, 0.8, 0.8, 0.0]]), 1.5), 30.0)
    hedge = Matter.of(Primitives.volumes(np.array([[20.0, 3.0, 0.5, 8.0, 1.0, 2.0, 0.0]]), 9.0, shape="box"), 30.0)
    house = Matter.of(Primitives.boxes(np.array([[20.0, 3.0, 5.0, 8.0, 9.0, 10.0, 0.0]])), 30.0)
    for matter in (small, hedge, house):
        assert with_clumps(matter, EYE) is matter
    assert with_clumps(CROWN, np.array([200.0, 0.0, 0.0])) is CROWN
    both = Matter.concatenate(house, CROWN)
    assert with_clumps(both, EYE).shapes.kind[0] == Kind.BOX
    assert len(with_clumps(both, EYE)) == 2 + NUM_CLUMPS


def test_clumps_depend_on_the_place_alone():
    one = with_clumps(CROWN, EYE)
    other = with_clumps(Matter.concatenate(CROWN, CROWN), EYE + 1.0)
    np.testing.assert_array_equal(one.shapes.center[1:], other.shapes.center[2 : 2 + NUM_CLUMPS])
