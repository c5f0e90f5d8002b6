"""The ground of a simulated street: hills, crowned roads, kerbs, sidewalks and rough verges around the roads of a plan."""

from dataclasses import dataclass

import numpy as np

from perception.core import Transform
from perception.drives.simulated import pavement
from perception.drives.simulated.matter import Matter
from perception.drives.simulated.plans import usual_plan
from perception.drives.simulated.roads import KERB_HEIGHT, CrossSection, Plan

CROWN = 0.016  # metres that a road falls per metre from its centre line to the kerb
RAMP = 0.15  # metres over which a kerb rises
MAX_SLOPE = 0.06  # of the hills, in any direction
LATTICE_STEP = 2.5  # metres between the knots of the verges' roughness


@dataclass(frozen=True, eq=False)
class Terrain:
    """Height of the ground over the street plane. Draw one with `Terrain.draw`; `Terrain.level()` is the flat street.

    plan          where the roads are
    waves         (W, 4)  hills: amplitude in metres, wave numbers along x and y in 1/m, phase
    crown         metres that the roads fall per metre towards the kerb; wider ones than the narrowest fall as far as that one
    kerb_height   metres
    rise          metres that the sidewalks rise per metre from the kerb, over their first 6 m
    bank          (4,)    metres that the verge rises (or falls) per metre over its first 8 m, by quadrant
    roughness     (4,)    metres, one standard deviation of the verges, by quadrant
    lattice       (L, L)  drawn numbers of the roughness, repeated over the plane
    surfaces      what they reflect
    Quadrants are numbered as arms: quadrant q lies counter-clockwise after arm q, so 0 is x < 0, y < 0. Where no arm parts two of them,
    their banks and roughnesses are alike.
    """

    plan: Plan
    waves: np.ndarray
    crown: float
    kerb_height: float
    rise: float
    bank: np.ndarray
    roughness: np.ndarray
    lattice: np.ndarray
    surfaces: pavement.Surfaces

    @staticmethod
    def draw(rng: np.random.Generator, plan: Plan) -> "Terrain":
        """The terrain of one scene."""
        heading, length = rng.uniform(-np.pi, np.pi, 5), np.exp(rng.uniform(np.log(60), np.log(400), 5))
        number = 2 * np.pi / length
        share = rng.dirichlet(np.ones(5))
        # the steepest slope of a wave is amplitude * number; they cannot add up to more than the drawn one
        amplitude = rng.uniform(0.35, 1.0) * MAX_SLOPE * share / number
        waves = np.stack([amplitude, number * np.cos(heading), number * np.sin(heading), rng.uniform(0, 2 * np.pi, 5)], axis=1)
        bank, roughness = np.where(rng.random(4) < 0.2, 0.0, rng.uniform(-0.3, 0.4, 4)), rng.uniform(0.03, 0.2, 4)
        source = _parted_quadrants(plan)
        for lot in plan.lots:  # where cars stand it is even
            q = source[lot.arm if lot.sign < 0 else (lot.arm - 1) % 4]
            bank[q], roughness[q] = 0.1 * bank[q], 0.01
        return Terrain(
            plan,
            waves,
            crown=CROWN,
            kerb_height=rng.uniform(0.08, 0.2),
            rise=rng.uniform(0.01, 0.06),
            bank=bank[source],
            roughness=roughness[source],
            lattice=np.clip(rng.normal(size=(64, 64)), -2.5, 2.5),
            surfaces=pavement.Surfaces.draw(rng, source),
        )

    @staticmethod
    def level(plan: Plan | None = None) -> "Terrain":
        """No hills, no crown: only the kerbs of the plan (without one, of `usual_plan`), `KERB_HEIGHT` high."""
        zero = np.zeros(4)
        plan = usual_plan() if plan is None else plan
        return Terrain(plan, np.zeros((0, 4)), 0.0, KERB_HEIGHT, 0.0, zero, zero, np.zeros((2, 2)), pavement.Surfaces.usual())

    def height(self, x: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
        """Metres at places (x, y) of the street frame, in their shape. Continuous; a kerb rises over `RAMP` metres."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        return self.ground(x, y, CrossSection.of(self.plan, x, y))

    def ground(self, x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray:
        """`height` of places whose cross section is known."""
        kerb = self.kerb_height * np.clip(places.from_kerb / RAMP, 0.0, 1.0) + self.rise * np.clip(places.from_kerb - RAMP, 0.0, 6.0)
        return self.road(x, y, places) + kerb + self._verge(x, y, places)

    def road(self, x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray:
        """The height that a road has or would have there: hills and crown."""
        hills = np.zeros(places.fall.shape)
        for amplitude, kx, ky, phase in self.waves.tolist():
            hills += amplitude * (np.sin(kx * x + ky * y + phase) - np.sin(phase))
        return hills - self._drop * places.fall

    @property
    def _drop(self) -> float:
        """Metres from the centre lines down to the kerbs; rounded over the last metre, so that the centre line is no edge."""
        narrowest = min(self.plan.section(arm, sign).kerb for arm in self.plan.arms for sign in (-1, 1))
        return self.crown * float(np.sqrt(narrowest**2 + 1.0) - 1.0)

    def _verge(self, x: np.ndarray, y: np.ndarray, places: CrossSection) -> np.ndarray:
        """What is added beyond the pavement: a bank, then bumps that grow over its first two metres."""
        quadrant, beyond = places.quadrant, places.beyond
        if not (beyond > 0).any():
            return np.zeros(beyond.shape)
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
        """The ground as height fields: verges, roads, kerbs with sidewalks, and the paint 4 mm above the roads."""
        return pavement.laid(self)


def _lean(ahead: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pitch and roll on a plane that rises by so much per metre ahead and to the left."""
    return np.arctan2(-ahead, 1.0), np.arctan2(left, np.sqrt(1.0 + ahead**2))


def _parted_quadrants(plan: Plan) -> list[int]:
    """For each quadrant the one that speaks for it: quadrants q - 1 and q are one where arm q is missing."""
    source = [0, 1, 2, 3]
    for arm in (1, 3):
        if arm not in plan.arms:
            source[arm] = source[arm - 1]
    return source
