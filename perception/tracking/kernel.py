"""The inner loops of the greedy tracker, compiled by numba: association and the life of tracks on plain arrays.

A track is one row of two matrices. Numbers (float64): x y z, length width height, yaw, vx vy, score of the last detection. Whole numbers (int64): id, label,
time last seen and time of birth in microseconds, hits, row of this frame's detection (-1 where coasted).
"""

import numba
import numpy as np

X, Y, SIZE, YAW, VX, VY, SCORE, NUM_FLOATS = 0, 1, 3, 6, 7, 8, 9, 10
ID, LABEL, SEEN_US, BORN_US, HITS, DETECTION, NUM_INTS = 0, 1, 2, 3, 4, 5, 6


@numba.njit(cache=True)
def associate(order, boxes, label, numbers, whole, count, timestamp_us, gate, gate_growth, gate_horizon):  # pragma: no cover  compiled
    """(N,) track row of each detection, -1 for none: detections choose in the given order, each the closest free track of its class.

    order   (N,) rows of `boxes`, most confident first; ties in distance go to the lower track row
    boxes   (N, 9) float64  x y z l w h yaw vx vy, global
    gate    (C,) metres, largest distance after 0.5 s
    A track and a detection are compared half way: the detection moved back, the track moved on, each by its own velocity over half of the
    elapsed time. That is exact under constant acceleration, and averages the error of both velocities. An unknown velocity borrows the
    other one's.
    """
    match = np.full(len(boxes), -1, np.int64)
    is_free = np.ones(count, np.bool_)
    for i in order:
        best, best_distance = -1, np.inf
        vx, vy = boxes[i, VX], boxes[i, VY]
        known = not (np.isnan(vx) or np.isnan(vy))
        for j in range(count):
            if not is_free[j] or whole[j, LABEL] != label[i]:
                continue
            elapsed = (timestamp_us - whole[j, SEEN_US]) * 1e-6
            track_vx, track_vy = numbers[j, VX], numbers[j, VY]
            if np.isnan(track_vx) or np.isnan(track_vy):
                track_vx, track_vy = (vx, vy) if known else (0.0, 0.0)
            own_vx, own_vy = (vx, vy) if known else (track_vx, track_vy)
            dx = boxes[i, X] - numbers[j, X] - 0.5 * elapsed * (own_vx + track_vx)
            dy = boxes[i, Y] - numbers[j, Y] - 0.5 * elapsed * (own_vy + track_vy)
            distance = np.sqrt(dx * dx + dy * dy)
            limit = gate[label[i]] * (1.0 - gate_growth + gate_growth * min(elapsed, gate_horizon) / 0.5)
            if distance <= limit and distance < best_distance:
                best, best_distance = j, distance
        if best >= 0:
            is_free[best] = False
            match[i] = best
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
            kept += 1
    for j in range(kept):
        whole[j, DETECTION] = -1
    return kept


@numba.njit(cache=True)
def absorb(order, match, boxes, label, score, numbers, whole, count, timestamp_us, birth_score, next_id):  # pragma: no cover  compiled
    """Write matched detections into their tracks and start tracks from the others, most confident first. Returns (count, next id)."""
    for i in order:
        j = match[i]
        if j < 0:
            if score[i] < birth_score:
                continue
            j = count
            count += 1
            whole[j, ID] = next_id
            next_id += 1
            whole[j, LABEL] = label[i]
            whole[j, BORN_US] = timestamp_us
            whole[j, HITS] = 0
            numbers[j, VX] = np.nan
            numbers[j, VY] = np.nan
        vx, vy = boxes[i, VX], boxes[i, VY]
        if np.isnan(vx) or np.isnan(vy):  # unknown: what the track did since it was last seen, else what it did before
            elapsed = (timestamp_us - whole[j, SEEN_US]) * 1e-6
            if whole[j, HITS] > 0 and elapsed > 0:
                vx = (boxes[i, X] - numbers[j, X]) / elapsed
                vy = (boxes[i, Y] - numbers[j, Y]) / elapsed
            else:
                vx, vy = numbers[j, VX], numbers[j, VY]
        for k in range(7):
            numbers[j, k] = boxes[i, k]
        numbers[j, VX], numbers[j, VY] = vx, vy
        numbers[j, SCORE] = score[i]
        whole[j, SEEN_US] = timestamp_us
        whole[j, HITS] += 1
        whole[j, DETECTION] = i
    return count, next_id
