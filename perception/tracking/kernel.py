"""The inner loops of the greedy tracker, compiled by numba: association and the life of tracks on plain arrays.

A track is one row of two matrices. Numbers (float64): x y z, length width height, yaw, vx vy, score of the last detection. Whole numbers
(int64): id, label, time last seen and time of birth in microseconds, hits, row of this frame's detection (-1 where coasted).
A detection is a row of numbers in the same columns. A velocity that is not finite, or absurd, counts as unknown.
"""

import numpy as np

from perception.core.compiled import compiled

X, Y, SIZE, YAW, VX, VY, SCORE, NUM_FLOATS = 0, 1, 3, 6, 7, 8, 9, 10
ID, LABEL, SEEN_US, BORN_US, HITS, DETECTION, NUM_INTS = 0, 1, 2, 3, 4, 5, 6
MAX_SPEED = 1e6  # m/s; NaN, infinity and what would overflow when it is multiplied by a time
BUCKETS = 32  # along x, for each class
MIN_STEP = 0.01  # seconds; over a shorter time a displacement is noise and says nothing of the velocity


@compiled()
def is_known(vx, vy):
    return abs(vx) + abs(vy) < MAX_SPEED  # false for NaN


@compiled()
def associate(order, found, label, numbers, whole, count, timestamp_us, gate, gate_growth, gate_horizon):
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
    if count == 0:
        return match
    half, middle, limit, is_free = np.empty(count), np.empty(count), np.empty(count), np.ones(count, np.bool_)
    # What bounds the search, for each class: middles from `low` to `high`, the largest limit, the largest number in a sum (for rounding).
    low, high = np.full(len(gate), np.inf), np.full(len(gate), -np.inf)
    reach, largest, all_known = np.zeros(len(gate)), np.zeros(len(gate)), np.ones(len(gate), np.bool_)
    least, most = np.inf, 0.0  # of half the elapsed time
    for j in range(count):
        c, x, vx, vy = whole[j, LABEL], numbers[j, X], numbers[j, VX], numbers[j, VY]
        elapsed = (timestamp_us - whole[j, SEEN_US]) * 1e-6
        half[j] = 0.5 * elapsed
        limit[j] = gate[c] * (1.0 - gate_growth + gate_growth * min(elapsed, gate_horizon) / 0.5)
        least, most = min(least, half[j]), max(most, half[j])
        if not is_known(vx, vy):
            all_known[c] = False
            vx = 0.0
        middle[j] = x + half[j] * vx
        low[c], high[c] = min(low[c], middle[j]), max(high[c], middle[j])
        reach[c], largest[c] = max(reach[c], limit[j]), max(largest[c], abs(x) + half[j] * abs(vx))
    row, start = _sorted_into_buckets(middle, whole, count, low, high)
    for i in order:
        c = label[i]
        if c < 0:
            continue
        x, y, vx, vy = found[i, X], found[i, Y], found[i, VX], found[i, VY]
        known = is_known(vx, vy)
        first, last = start[c * BUCKETS], start[(c + 1) * BUCKETS]
        if known and all_known[c]:  # only buckets that may hold a middle within reach
            margin = reach[c] + 1e-9 * (largest[c] + abs(x) + most * abs(vx))
            one, other = x - least * vx, x - most * vx
            first = start[c * BUCKETS + _bucket(min(one, other) - margin, low[c], high[c], 0)]
            last = start[c * BUCKETS + _bucket(max(one, other) + margin, low[c], high[c], BUCKETS - 1) + 1]
        best, best_distance = -1, np.inf
        for k in range(first, last):
            j = row[k]
            if not is_free[j]:
                continue
            track_vx, track_vy = numbers[j, VX], numbers[j, VY]
            own_vx, own_vy = vx, vy
            if not is_known(track_vx, track_vy):
                track_vx, track_vy = (vx, vy) if known else (0.0, 0.0)
            if not known:
                own_vx, own_vy = track_vx, track_vy
            dx = x - numbers[j, X] - half[j] * (own_vx + track_vx)
            if abs(dx) > limit[j]:  # most pairs end here: the distance is never below |dx|
                continue
            dy = y - numbers[j, Y] - half[j] * (own_vy + track_vy)
            distance = np.sqrt(dx * dx + dy * dy)
            if distance <= limit[j] and (distance < best_distance or (distance == best_distance and j < best)):
                best, best_distance = j, distance
        if best >= 0:
            is_free[best] = False
            match[i] = best
    return match


@compiled()
def _bucket(middle, low, high, unsure):
    """Bucket of a place along x, never falling with it; those outside of low..high belong to the ends. `unsure` for NaN."""
    place = (middle - low) * (BUCKETS / (high - low) if high > low else 0.0)
    if place < 0.0:
        return 0
    if place >= BUCKETS:
        return BUCKETS - 1
    return int(place) if place >= 0.0 else unsure


@compiled()
def _sorted_into_buckets(middle, whole, count, low, high):
    """Track rows by class and bucket, and (C * BUCKETS + 1,) where each bucket starts among them."""
    start = np.zeros(len(low) * BUCKETS + 1, np.int64)
    key = np.empty(count, np.int64)
    for j in range(count):
        c = whole[j, LABEL]
        key[j] = c * BUCKETS + _bucket(middle[j], low[c], high[c], 0)
        start[key[j] + 1] += 1
    for b in range(len(start) - 1):
        start[b + 1] += start[b]
    place, row = start.copy(), np.empty(count, np.int64)
    for j in range(count):
        row[place[key[j]]] = j
        place[key[j]] += 1
    return row, start


@compiled()
def retire(numbers, whole, count, timestamp_us, max_age_us):
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


@compiled()
def absorb(order, match, found, label, numbers, whole, count, timestamp_us, birth_score, next_id):
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
        for k in range(NUM_FLOATS):
            numbers[j, k] = found[i, k]
        numbers[j, VX], numbers[j, VY] = vx, vy
        whole[j, SEEN_US] = timestamp_us
        whole[j, HITS] += 1
        whole[j, DETECTION] = i
    return count, next_id


@compiled()
def report(
    numbers, whole, count, timestamp_us, min_hits, first_confidence, coast_decay,
    center, size, yaw, velocity, label, score, track_id, age, hits, coasted, source,
):  # fmt: skip
    """Fill the columns of `Tracks` with the tracks of at least `min_hits` detections, coasted ones moved on to now. Returns their number.

    center ... source   arrays with room for `count` rows
    """
    k = 0
    for j in range(count):
        if whole[j, HITS] < min_hits:
            continue
        vx, vy = numbers[j, VX], numbers[j, VY]
        for d in range(3):
            center[k, d] = numbers[j, d]
            size[k, d] = numbers[j, SIZE + d]
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
    return k
