"""The ground of a simulated street: hills, crowned roads, kerbs, sidewalks and rough verges around the crossing of `roads`."""

from dataclasses import dataclass

import numpy as np

from perception.core import Transform
from perception.drives.simulated import pavement, roads
from perception.drives.simulated.matter import Matter

CROWN = 0.02  # metres that a road falls per metre from its centre line to the kerb
RAMP = 0.15  # metres over which a kerb rises
MAX_SLOPE = 0.03  # of the hills, in any direction
LATTICE_STEP = 2.5  # metres between the knots of the verges' roughness


@dataclass(frozen=True, eq=False)
class Terrain:
    """Height of the ground over the street plane. Draw one with `Terrain.draw`; `Terrain.level()` is the flat street.

    waves         (W, 4)  hills: amplitude in metres, wave numbers along x and y in 1/m, phase
    crown         metres that the roads fall per metre towards the kerb
    kerb_height   metres
    bank          (4,)    metres that the verge rises (or falls) per metre over its first 8 m, by quadrant
    roughness     (4,)    metres, one standard deviation of the verges, by quadrant
    lattice       (L, L)  drawn numbers of the roughness, repeated over the plane
    surfaces      what they reflect
    Quadrants are numbered as arms: quadrant q lies counter-clockwise after arm q, so 0 is x < 0, y < 0.
    """

    waves: np.ndarray
    crown: float
    kerb_height: float
    bank: np.ndarray
    roughness: np.ndarray
    lattice: np.ndarray
    surfaces: pavement.Surfaces

    @staticmethod
    def draw(rng: np.random.Generator) -> "Terrain":
        """The terrain of one scene."""
        heading, length = rng.uniform(-np.pi, np.pi, 5), rng.uniform(120, 400, 5)
        number = 2 * np.pi / length
        share = rng.dirichlet(np.ones(5))
        # the steepest slope of a wave is amplitude * number; they cannot add up to more than the drawn one
        amplitude = rng.uniform(0.3, 1.0) * MAX_SLOPE * share / number
        waves = np.stack([amplitude, number * np.cos(heading), number * np.sin(heading), rng.uniform(0, 2 * np.pi, 5)], axis=1)
        return Terrain(
            waves,
            crown=CROWN,
            kerb_height=rng.uniform(0.05, 0.2),
            bank=np.where(rng.random(4) < 0.4, 0.0, rng.uniform(-0.25, 0.35, 4)),
            roughness=rng.uniform(0.03, 0.2, 4),
            lattice=np.clip(rng.normal(size=(64, 64)), -2.5, 2.5),
            surfaces=pavement.Surfaces.draw(rng),
        )

    @staticmethod
    def level() -> "Terrain":
        """No hills, no crown: only the kerbs of `roads`, with `roads.KERB_HEIGHT`."""
        zero = np.zeros(4)
        return Terrain(np.zeros((0, 4)), 0.0, roads.KERB_HEIGHT, zero, zero, np.zeros((2, 2)), pavement.Surfaces.usual())

    def height(self, x: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
        """Metres at places (x, y) of the street frame, in their shape. Continuous; a kerb rises over `RAMP` metres."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        off_axis = np.minimum(np.abs(x), np.abs(y))  # from the centre line of the nearer road
        hills = np.zeros(off_axis.shape)
        for amplitude, kx, ky, phase in self.waves.tolist():
            hills += amplitude * (np.sin(kx * x + ky * y + phase) - np.sin(phase))
        # rounded over the last metre, so that the centre line is no edge
        crown = -self.crown * (np.sqrt(np.minimum(off_axis, roads.KERB) ** 2 + 1.0) - 1.0)
        return (
            hills
            + crown
            + roads.ground_height(x, y, kerb_height=self.kerb_height, ramp=RAMP)
            + self._verge(x, y, off_axis - pavement.SIDEWALK_END)
        )

    def _verge(self, x: np.ndarray, y: np.ndarray, beyond: np.ndarray) -> np.ndarray:
        """What is added `beyond` the sidewalk: a bank, then bumps that grow over its first two metres."""
        quadrant = np.where(x < 0, np.where(y < 0, 0, 3), np.where(y < 0, 1, 2))
        t = np.clip(beyond / 8.0, 0.0, 1.0)
        bank = self.bank[quadrant] * 8.0 * t * t * (3 - 2 * t)
        return bank + self.roughness[quadrant] * np.clip(beyond / 2.0, 0.0, 1.0) * self._bumps(x, y)

    def _bumps(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Smoothly interpolated numbers of the lattice."""
        u, v = x / LATTICE_STEP, y / LATTICE_STEP
        column, row = np.floor(u).astype(int), np.floor(v).astype(int)
        u, v = u - column, v - row
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        n = len(self.lattice)
        corner = [[self.lattice[(row + i) % n, (column + j) % n] for j in (0, 1)] for i in (0, 1)]
        return (1 - v) * ((1 - u) * corner[0][0] + u * corner[0][1]) + v * ((1 - u) * corner[1][0] + u * corner[1][1])

    def attitude(
        self, x: float | np.ndarray, y: float | np.ndarray, yaw: float | np.ndarray, wheelbase: float = 2.7, track: float = 1.6
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pitch and roll, radians, of a vehicle whose four wheels stand around (x, y), the middle between them, in the shape of x.

        The plane is the one nearest to the four contacts (least squares). Right-handed (ISO 8855): pitch is positive nose down, roll is
        positive left side up; the vehicle is turned by Rz(yaw) Ry(pitch) Rx(roll).
        """
        ahead, left, _ = self._fit(x, y, yaw, wheelbase, track)
        return _lean(ahead, left)

    def poses(self, x: np.ndarray, y: np.ndarray, yaw: np.ndarray, *, wheelbase: float = 2.7, track: float = 1.6) -> list[Transform]:
        """Vehicle to street, of vehicles with their rear axles' middles over (x, y), all (T,), which become their origins."""
        ahead, left, z = self._fit(x + wheelbase / 2 * np.cos(yaw), y + wheelbase / 2 * np.sin(yaw), yaw, wheelbase, track)
        pitch, roll = _lean(ahead, left)
        (cp, sp), (cr, sr) = (np.cos(pitch), np.sin(pitch)), (np.cos(roll), np.sin(roll))
        zero = 0.0 * cp
        leaning = np.array([[cp, sp * sr, sp * cr], [zero, cr, -sr], [-sp, cp * sr, cp * cr]])
        places = np.stack([x, y, z - ahead * wheelbase / 2], axis=1)
        turns = np.asarray(yaw).tolist()
        return [Transform(Transform.from_yaw(turns[i]).rotation @ leaning[:, :, i], places[i]) for i in range(len(places))]

    def pose(self, x: float, y: float, yaw: float, *, wheelbase: float = 2.7, track: float = 1.6) -> Transform:
        """`poses` of one vehicle."""
        return self.poses(*np.array([[x], [y], [yaw]]), wheelbase=wheelbase, track=track)[0]

    def _fit(
        self, x: float | np.ndarray, y: float | np.ndarray, yaw: float | np.ndarray, wheelbase: float, track: float
    ) -> tuple[np.ndarray, ...]:
        """Metres of rise per metre ahead and to the left, and the height in the middle of the four wheels."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        a, b = (np.array(corner) for corner in ((1, 1, -1, -1), (1, -1, 1, -1)))
        a, b = a * wheelbase / 2, b * track / 2
        x, y, cos, sin = (np.asarray(value, np.float64)[..., None] for value in (x, y, cos, sin))
        contact = self.height(x + cos * a - sin * b, y + sin * a + cos * b)  # (..., 4) front left, front right, rear left, rear right
        front, rear = contact[..., 0] + contact[..., 1], contact[..., 2] + contact[..., 3]
        left, right = contact[..., 0] + contact[..., 2], contact[..., 1] + contact[..., 3]
        return (front - rear) / (2 * wheelbase), (left - right) / (2 * track), (front + rear) / 4

    def matter(self) -> Matter:
        """The ground as height fields: roads, kerbs with sidewalks, verges, and the paint 4 mm above the roads."""
        return Matter.concatenate(*pavement.grounds(self.height, self.surfaces), *pavement.markings(self.height, self.surfaces))


def _lean(ahead: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and roll on a plane that rises by so much per metre ahead and to the left."""
    return np.arctan2(-ahead, 1.0), np.arctan2(left, np.sqrt(1.0 + ahead**2))
