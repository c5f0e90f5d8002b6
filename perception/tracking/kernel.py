"""The inner loops of the greedy tracker, compiled by numba: association and the life of tracks on plain arrays.

A track is one row of two matrices. Numbers (float64): x y z, length width height, yaw, vx vy, score of the last detection. Whole numbers
(int64): id, label, time last seen and time of birth in microseconds, hits, row of this frame's detection (-1 where coasted).
A detection is a row of numbers in the same columns. A velocity that is not finite, or absurd, counts as unknown.
"""

import numba
import numpy as np

X, Y, SIZE, YAW, VX, VY, SCORE, NUM_FLOATS = 0, 1, 3, 6, 7, 8, 9, 10
ID, LABEL, SEEN_US, BORN_US, HITS, DETECTION, NUM_INTS = 0, 1, 2, 3, 4, 5, 6
MAX_SPEED = 1e6  # m/s; NaN, infinity and what would overflow when it is multiplied by a time
MIN_STEP = 0.01  # seconds; over a shorter time a displacement is noise and says nothing of the velocity


@numba.njit(cache=True)
def is_known(vx, vy):  # pragma: no cover  compiled
    return abs(vx) + abs(vy) < MAX_SPEED  # false for NaN


@numba.njit(cache=True)
def associate(order, found, label, numbers, whole, count, timestamp_us, gate, gate_growth, gate_horizon):  # pragma: no cover  compiled
    """(N,) track row of each detection, -1 for none: detections choose in the given order, each the closest free track of its class.

    order   (N,) rows of `found`, most confident first; ties in distance go to the lower track row
    found   (N, NUM_FLOATS) detections, global
    label   (N,) class of each, -1 for one that is not tracked
    gate    (C,) metres, largest distance after 0.5 s
    A track and a detection are compared half way: the detection moved back, the track moved on, each by its own velocity over half of the
    elapsed time. That is exact under constant acceleration, and averages the error of both velocities. An unknown velocity borrows the
    other one's.
    """
    match = np.full(len(found), -1, np.int64)
    # Tracks by class, in the order of their rows: a detection then looks at its own class only.
    start = np.zeros(len(gate) + 1, np.int64)
    for j in range(count):
        start[whole[j, LABEL] + 1] += 1
    for c in range(len(gate)):
        start[c + 1] += start[c]
    end = start[:-1].copy()
    row = np.empty(count, np.int64)
    is_free = np.ones(count, np.bool_)
    known = np.empty(count, np.bool_)
    x, y, vx, vy = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    half, limit = np.empty(count), np.empty(count)
    for j in range(count):
        c = whole[j, LABEL]
        k = end[c]
        end[c] += 1
        row[k] = j
        x[k], y[k] = numbers[j, X], numbers[j, Y]
        known[k] = is_known(numbers[j, VX], numbers[j, VY])
        vx[k], vy[k] = (numbers[j, VX], numbers[j, VY]) if known[k] else (0.0, 0.0)
        elapsed = (timestamp_us - whole[j, SEEN_US]) * 1e-6
        half[k] = 0.5 * elapsed
        limit[k] = gate[c] * (1.0 - gate_growth + gate_growth * min(elapsed, gate_horizon) / 0.5)
    for i in order:
        c = label[i]
        if c < 0:
            continue
        best, best_distance = -1, np.inf
        own_known = is_known(found[i, VX], found[i, VY])
        own_x, own_y, own_vx, own_vy = found[i, X], found[i, Y], found[i, VX], found[i, VY]
        for k in range(start[c], end[c]):
            if own_known:
                sum_vx = own_vx + (vx[k] if known[k] else own_vx)
            else:
                sum_vx = vx[k] + vx[k]
            dx = own_x - x[k] - half[k] * sum_vx
            if abs(dx) > limit[k] or not is_free[k]:  # most pairs end here; the distance is never below |dx|
                continue
            if own_known:
                sum_vy = own_vy + (vy[k] if known[k] else own_vy)
            else:
                sum_vy = vy[k] + vy[k]
            dy = own_y - y[k] - half[k] * sum_vy
            distance = np.sqrt(dx * dx + dy * dy)
            if distance <= limit[k] and distance < best_distance:
                best, best_distance = k, distance
        if best >= 0:
            is_free[best] = False
            match[i] = row[best]
    return match


@numba.njit(cache=True)
def retire(numbers, whole, count, timestamp_us, max_age_us):  # pragma: no cover  compiled
    """Drop tracks last seen longer ago than their class allows, keeping the order of the others. Returns the new count."""
    kept = 0
    for j in range(count):
        if timestamp_us - whole[j, SEEN_US] <= max_age_us[whole[j, LABEL]]:
            if kept != j:
                numbers[kept] = numbers[j]
                whole[kept] = whole[j]
            whole[kept, DETECTION] = -1
            kept += 1
    return kept


@numba.njit(cache=True)
def absorb(order, match, found, label, numbers, whole, count, timestamp_us, birth_score, next_id):  # pragma: no cover  compiled
    """Write matched detections into their tracks and start tracks from the others, most confident first. Returns (count, next id)."""
    for i in order:
        if label[i] < 0:
            continue
        j = match[i]
        vx, vy = found[i, VX], found[i, VY]
        if j < 0:
            if found[i, SCORE] < birth_score:
                continue
            j = count
            count += 1
            whole[j, ID] = next_id
            next_id += 1
            whole[j, LABEL] = label[i]
            whole[j, BORN_US] = timestamp_us
            whole[j, HITS] = 0
            if not is_known(vx, vy):
                vx, vy = np.nan, np.nan
        elif not is_known(vx, vy):  # what the track did since it was last seen, else what it did before
            elapsed = (timestamp_us - whole[j, SEEN_US]) * 1e-6
            if elapsed >= MIN_STEP:
                vx = (found[i, X] - numbers[j, X]) / elapsed
                vy = (found[i, Y] - numbers[j, Y]) / elapsed
            else:
                vx, vy = numbers[j, VX], numbers[j, VY]
        numbers[j] = found[i]
        numbers[j, VX], numbers[j, VY] = vx, vy
        whole[j, SEEN_US] = timestamp_us
        whole[j, HITS] += 1
        whole[j, DETECTION] = i
    return count, next_id


@numba.njit(cache=True)
def report(numbers, whole, count, timestamp_us, min_hits, first_confidence, coast_decay):  # pragma: no cover  compiled
    """The columns of `Tracks` for tracks with at least `min_hits` detections, in new arrays, coasted ones moved on to now.

    Returns center, size, yaw, velocity, label, score, track_id, age, hits, coasted, detection_index.
    """
    shown = 0
    for j in range(count):
        shown += whole[j, HITS] >= min_hits
    center, size, yaw, velocity = np.empty((shown, 3)), np.empty((shown, 3)), np.empty(shown), np.empty((shown, 2))
    label, track_id, hits, source = np.empty(shown, np.int64), np.empty(shown, np.int64), np.empty(shown, np.int64), np.empty(shown, np.int64)
    score, age, coasted = np.empty(shown), np.empty(shown), np.empty(shown, np.bool_)
    k = 0
    for j in range(count):
        if whole[j, HITS] < min_hits:
            continue
        vx, vy = numbers[j, VX], numbers[j, VY]
        center[k] = numbers[j, :SIZE]
        size[k] = numbers[j, SIZE:YAW]
        yaw[k] = numbers[j, YAW]
        velocity[k, 0], velocity[k, 1] = vx, vy
        score[k] = numbers[j, SCORE] * (1.0 - (1.0 - first_confidence) ** whole[j, HITS])
        coasted[k] = whole[j, DETECTION] < 0
        if coasted[k]:
            unseen = (timestamp_us - whole[j, SEEN_US]) * 1e-6
            if is_known(vx, vy):
                center[k, 0] += vx * unseen
                center[k, 1] += vy * unseen
            score[k] *= coast_decay**unseen
        label[k] = whole[j, LABEL]
        track_id[k] = whole[j, ID]
        age[k] = (timestamp_us - whole[j, BORN_US]) * 1e-6
        hits[k] = whole[j, HITS]
        source[k] = whole[j, DETECTION]
        k += 1
    return center, size, yaw, velocity, label, score, track_id, age, hits, coasted, source
