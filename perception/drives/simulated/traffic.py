"""What moves on the street: vehicles, cyclists and people on their routes, each in one dimension along its path.

Following and stopping is the intelligent driver model (Treiber, Hennecke and Helbing 2000); a red light or an occupied zebra
crossing is a standing leader. A group of routes gets green only when nobody of another group is left on the crossing, so that
boxes of crossing vehicles never meet. Where there are no lights, those who give way wait for a gap.
"""

from dataclasses import dataclass

import numpy as np

from perception.drives.simulated.routes import Route

STEP = 0.1  # seconds
# (group of routes that may enter, seconds); group 4 are people, who need longer to leave than they have to enter
LIGHTS = ((0, 10.0), (-1, 1.5), (1, 6.0), (-1, 1.5), (2, 9.0), (-1, 1.5), (3, 6.0), (-1, 1.5), (4, 4.0), (-1, 11.0))
CYCLE = sum(seconds for _, seconds in LIGHTS)
HARD_BRAKING = 3.0  # m/s2; who would need more to stop before a line drives on
GAP_SECONDS, GAP_ROOM = 5.0, 6.0  # who has to give way lets pass whoever will be at the line in that time, or stands so near to it
ZEBRA_LENGTH = 5.5  # metres from the stop line to the far edge of a zebra crossing


@dataclass(frozen=True, eq=False)
class Movers:
    """N road users; vehicles first, then people. s is the middle of the road user, trailer included.

    routes   N routes
    length   (N,) metres along the path
    s        (N,) at the start
    speed    (N,) m/s at the start
    desired  (N,) m/s on a free road
    is_person (N,) bool
    has_lights  whether lights open the groups of routes; without them the lower group goes first
    """

    routes: list[Route]
    length: np.ndarray
    s: np.ndarray
    speed: np.ndarray
    desired: np.ndarray
    is_person: np.ndarray
    has_lights: bool = True


@dataclass(frozen=True, eq=False)
class Motion:
    """s and speed (T, N) of all road users every `STEP` seconds."""

    s: np.ndarray
    speed: np.ndarray

    def at(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """s and speed (F, N) at times (F,); speed is exactly the derivative of s (constant acceleration inside of a step)."""
        step = np.clip((seconds / STEP).astype(int), 0, len(self.s) - 2)
        rest = (seconds - step * STEP)[:, None]
        acceleration = (self.speed[step + 1] - self.speed[step]) / STEP
        return self.s[step] + self.speed[step] * rest + acceleration * rest**2 / 2, self.speed[step] + acceleration * rest

    def of(self, mover: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """s (K,) of road users `mover` (K,), each at its own time (K,)."""
        step = np.clip((seconds / STEP).astype(int), 0, len(self.s) - 2)
        rest, speed = seconds - step * STEP, self.speed[step, mover]
        return self.s[step, mover] + speed * rest + (self.speed[step + 1, mover] - speed) / STEP * rest**2 / 2


class Traffic:
    """The road users and the lights; `step` moves all of them by `STEP` seconds."""

    def __init__(self, movers: Movers, clock: float) -> None:
        """clock  seconds into the cycle of the lights at the start"""
        self.s, self.speed, self.clock = movers.s.copy(), movers.speed.copy(), clock
        self.length, self.desired, self.is_person = movers.length, movers.desired, movers.is_person
        self.has_lights = movers.has_lights
        routes = movers.routes
        self.group = np.array([r.group for r in routes])
        self.crossing = np.array([r.crossing for r in routes])
        self.slow = np.array([r.slow for r in routes])
        self.zebra = np.array([r.zebra for r in routes])  # (N, 2)
        self.zebra_s = np.array([r.zebra_s for r in routes])  # (N, 2)
        self.num_vehicles = int((~movers.is_person).sum())
        entry, leave = (np.array([getattr(r, name) for r in routes[: self.num_vehicles]]) for name in ("entry", "leave"))
        self._entry = np.array([r.entry for r in routes])
        self._same_entry, self._same_leave = entry[:, None] == entry, leave[:, None] == leave
        person = self.is_person
        self._accelerate, self._brake = np.where(person, 1.0, 1.8), np.where(person, 1.2, 2.0)
        self._headway, self._room = np.where(person, 0.2, 1.2), np.where(person, 0.1, 2.0)

    def step(self) -> None:
        pressure = np.maximum(self._following(), self._approaching(self._gap_to_lines()))
        wanted = np.minimum(self.desired, self._allowed_speed())
        acceleration = self._accelerate * (1 - (self.speed / wanted) ** 4 - pressure)
        acceleration = np.clip(acceleration, np.where(self.is_person, -2.5, -6.0), None)
        speed = np.maximum(self.speed + acceleration * STEP, 0.0)
        self.s = self.s + (self.speed + speed) / 2 * STEP
        self.speed, self.clock = speed, self.clock + STEP

    @property
    def front(self) -> np.ndarray:
        return self.s + self.length / 2

    @property
    def open_group(self) -> int:
        """The group with green light, -1 between two greens."""
        time = self.clock % CYCLE
        for group, seconds in LIGHTS:
            if time < seconds:
                return group
            time -= seconds
        return -1

    def _allowed_speed(self) -> np.ndarray:
        """Vehicles slow down before a turn (1.5 m/s2, done 6 m before the line) and speed up after it."""
        before = np.sqrt(self.slow**2 + 3.0 * np.maximum(-self.front - 6.0, 0.0))
        return np.where(self.s > self.crossing, np.inf, before)

    def _following(self) -> np.ndarray:
        """(N,) the interaction term of the model towards the closest vehicle ahead; people do not follow."""
        n = self.num_vehicles
        s, half, speed = self.s[:n], self.length[:n] / 2, self.speed[:n]
        ahead = s[None] - s[:, None]  # [i, j]: how far j is in front of i, seen from the common entry
        ahead_leave = ahead - (self.crossing[None, :n] - self.crossing[:n, None])  # the same, seen from the common exit
        has_entered, rear = s + half > 0, s - half
        by_entry = self._same_entry & (ahead > 0) & (rear < 12.0)  # further on, routes from one lane have parted
        by_leave = self._same_leave & (ahead_leave > 0) & (self._same_entry | has_entered)
        lengths = half[None] + half[:, None]
        gap = np.minimum(np.where(by_entry, ahead - lengths, np.inf), np.where(by_leave, ahead_leave - lengths, np.inf))
        gap = np.maximum(gap, 0.05)
        a, b = self._accelerate[:n], self._brake[:n]
        approach = speed[:, None] * (speed[:, None] - speed) / (2 * np.sqrt(a * b))[:, None]
        desired_gap = self._room[:n, None] + np.maximum(speed * self._headway[:n], 0)[:, None] + approach
        term = np.zeros(len(self.s))
        term[:n] = ((np.maximum(desired_gap, 0) / gap) ** 2).max(axis=1, initial=0)
        return term

    def _approaching(self, gap: np.ndarray) -> np.ndarray:
        """(N,) the interaction term towards a line `gap` metres ahead (inf: none)."""
        desired_gap = np.where(self.is_person, 0.1, 0.8) + self.speed * 0.3 + self.speed**2 / (2 * np.sqrt(self._accelerate * self._brake))
        return (desired_gap / np.maximum(gap, 0.05)) ** 2

    def _gap_to_lines(self) -> np.ndarray:
        """(N,) metres to the closest line at which the road user has to stop now, inf where there is none."""
        stopping = self.speed**2 / (2 * HARD_BRAKING)
        front, rear = self.front, self.s - self.length / 2
        is_inside = (self.group >= 0) & (front > 0) & (rear < self.crossing)
        may_enter = self._may_enter(is_inside) if self.has_lights else self._has_right_of_way(is_inside, front)
        to_light = np.where((self.group >= 0) & ~may_enter & (front < 0) & (-front >= stopping), -front, np.inf)
        gap = to_light
        for zebra in range(int(self.zebra.max(initial=-1)) + 1):
            gap = np.minimum(gap, self._gap_to_zebra(zebra, stopping, front, rear))
        return gap

    def _may_enter(self, is_inside: np.ndarray) -> np.ndarray:
        """(N,) whether the light is green and the crossing free of the other groups."""
        opened = self.open_group
        is_free = not (is_inside & (self.group != opened)).any()
        return (self.group == opened) & is_free

    def _has_right_of_way(self, is_inside: np.ndarray, front: np.ndarray) -> np.ndarray:
        """(N,) whether nobody of another group is on the crossing, and nobody of a lower one about to reach it."""
        before = np.where(front <= 0, front, -np.inf)
        first = np.full(self._entry.max(initial=0) + 1, -np.inf)
        np.maximum.at(first, self._entry, before)
        # who waits behind somebody else is not awaited
        is_near = (self.group >= 0) & (-before < GAP_ROOM + GAP_SECONDS * self.speed) & (before == first[self._entry])
        may_enter = np.zeros(len(front), bool)
        is_awaited = False
        for group in range(4):
            mine = self.group == group
            if not is_awaited and not (is_inside & ~mine).any():
                may_enter |= mine
            is_awaited = is_awaited or bool((is_near & mine).any())
        return may_enter

    def _gap_to_zebra(self, zebra: int, stopping: np.ndarray, front: np.ndarray, rear: np.ndarray) -> np.ndarray:
        """(N,) metres to a zebra crossing for those who have to stop: vehicles for people, people for vehicles that cannot stop."""
        gap = np.full(len(front), np.inf)
        walks = self.is_person & (self.zebra[:, 0] == zebra)
        is_claimed = (walks & (self.s > -3.0) & (self.s < self.crossing)).any()
        is_blocked = False
        for side in (0, 1):
            to_line = self.zebra_s[:, side] - front
            drives = ~self.is_person & (self.zebra[:, side] == zebra)
            cannot_stop = to_line < stopping + 0.5
            is_blocked |= (drives & cannot_stop & (rear < self.zebra_s[:, side] + ZEBRA_LENGTH)).any()
            if is_claimed:
                gap = np.where(drives & ~cannot_stop, np.minimum(gap, to_line), gap)
        if is_blocked:
            gap = np.where(walks & (front < 0), -front, gap)
        return gap


def green_begins(group: int) -> float:
    """Seconds into the cycle at which a group gets green."""
    return sum(seconds for _, seconds in LIGHTS[: [opened for opened, _ in LIGHTS].index(group)])


def simulate_traffic(movers: Movers, *, clock: float, warm_up: float, duration: float) -> Motion:
    """Move everybody for `warm_up` seconds, which are forgotten, then record `duration` seconds. No randomness."""
    traffic = Traffic(movers, clock)
    s, speed = [], []
    for step in range(round((warm_up + duration) / STEP) + 2):
        if step * STEP >= warm_up - 1e-9:
            s.append(traffic.s)
            speed.append(traffic.speed)
        traffic.step()
    return Motion(np.array(s), np.array(speed))
