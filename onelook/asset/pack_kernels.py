"""Place chart bitmaps on a grid: the kernel behind `pack`.

One item packs all charts at one scale. A chart's bitmap has every cell that its outline touches or
encloses, grown by the gap to the right and downwards, which keeps any two charts that far apart.
Each grid row knows, for every column, the next taken and the next free column, and its longest free
run; so a chart that does not fit jumps past what is in its way, and a crowded row costs one step. A
chart about as large as an earlier one is not tried above where that one went.
"""

from __future__ import annotations

import warp as wp

SIZE_STEPS = wp.constant(64)  # classes of widths, and of heights
_ROWS_PER_STRIDE = wp.constant(10)  # of a chart: large ones are tried at fewer rows, then settled


@wp.func
def _draw(
    t: int, e0: int, e1: int, edges: wp.array(dtype=wp.vec4), scale: float, w: int, h: int,
    bitmap: wp.array(dtype=wp.uint8, ndim=2),
):  # fmt: skip
    """Bit 0 of w x h cells: touched by the outline or within it. Bit 1 is scratch."""
    for i in range(w * h):
        bitmap[t, i] = wp.uint8(0)
    for e in range(e0, e1):
        edge = edges[e] * scale
        x0 = edge[0]
        y0 = edge[1]
        x1 = edge[2]
        y1 = edge[3]
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        slope = wp.float32(0.0)
        if y1 > y0:
            slope = (x1 - x0) / (y1 - y0)
        for row in range(int(y0), wp.min(int(y1), h - 1) + 1):
            xa = x0
            xb = x1
            if y1 > y0:
                xa = x0 + slope * (wp.max(float(row), y0) - y0)
                xb = x0 + slope * (wp.min(float(row + 1), y1) - y0)
            left = wp.max(int(wp.min(xa, xb) - 1.0e-3), 0)
            right = wp.min(int(wp.max(xa, xb) + 1.0e-3), w - 1)
            for column in range(left, right + 1):
                bitmap[t, row * w + column] = bitmap[t, row * w + column] | wp.uint8(1)
            middle = float(row) + 0.5
            if y0 <= middle and middle < y1:  # the outline crosses the row's middle line here
                column = wp.clamp(int(x0 + slope * (middle - y0)), 0, w - 1)
                bitmap[t, row * w + column] = bitmap[t, row * w + column] ^ wp.uint8(2)
    for row in range(h):
        within = wp.uint8(0)
        for column in range(w):
            cell = bitmap[t, row * w + column]
            within = within ^ (cell >> wp.uint8(1))
            bitmap[t, row * w + column] = (cell | within) & wp.uint8(1)


@wp.func
def _list_plain_runs(
    t: int, turns: int, w: int, h: int, bitmap: wp.array(dtype=wp.uint8, ndim=2),
    plain: wp.array(dtype=wp.vec2i, ndim=2), row_starts: wp.array(dtype=wp.int32, ndim=2),
):  # fmt: skip
    """Runs (column, column after) of the turned bitmap, row by row; returns the rows."""
    columns = w
    rows = h
    if turns % 2 == 1:
        columns = h
        rows = w
    # cell (column, row) of the turned bitmap is cell origin + column * right + row * down
    origin = wp.int32(0)
    right = wp.int32(1)
    down = w
    if turns == 1:
        origin = (h - 1) * w
        right = -w
        down = 1
    elif turns == 2:
        origin = w * h - 1
        right = -1
        down = -w
    elif turns == 3:
        origin = w - 1
        right = w
        down = -1
    count = wp.int32(0)
    for row in range(rows):
        row_starts[t, row] = count
        start = wp.int32(-1)
        for column in range(columns):
            if bitmap[t, origin + column * right + row * down] != wp.uint8(0):
                if start < 0:
                    start = column
            elif start >= 0:
                plain[t, count] = wp.vec2i(start, column)
                count += 1
                start = wp.int32(-1)
        if start >= 0:
            plain[t, count] = wp.vec2i(start, columns)
            count += 1
    row_starts[t, rows] = count
    return rows


@wp.func
def _list_runs(
    t: int, turns: int, w: int, h: int, gap: int, first: int,
    bitmap: wp.array(dtype=wp.uint8, ndim=2), plain: wp.array(dtype=wp.vec2i, ndim=2),
    row_starts: wp.array(dtype=wp.int32, ndim=2), runs: wp.array(dtype=wp.vec3i, ndim=2),
):  # fmt: skip
    """Runs (row, column, column after) of the turned bitmap, grown, from runs[t, first] on."""
    rows = _list_plain_runs(t, turns, w, h, bitmap, plain, row_starts)
    count = wp.int32(0)
    for row in range(rows + gap):
        row_first = count
        for source in range(wp.max(row - gap, 0), wp.min(row, rows - 1) + 1):
            for i in range(row_starts[t, source], row_starts[t, source + 1]):
                start = plain[t, i][0]
                stop = plain[t, i][1] + gap
                merged = wp.int32(0)
                if count > row_first:
                    last = runs[t, first + count - 1]
                    if start <= last[2] and stop >= last[1]:
                        joined = wp.vec3i(row, wp.min(start, last[1]), wp.max(stop, last[2]))
                        runs[t, first + count - 1] = joined
                        merged = wp.int32(1)
                if merged == 0:
                    runs[t, first + count] = wp.vec3i(row, start, stop)
                    count += 1
    return count


@wp.func
def _first_column(
    t: int, y: int, columns: int, side: int, first: int, count: int,
    runs: wp.array(dtype=wp.vec3i, ndim=2), longest_free: wp.array(dtype=wp.int16, ndim=2),
    next_taken: wp.array(dtype=wp.int16, ndim=2), next_free: wp.array(dtype=wp.int16, ndim=2),
):  # fmt: skip
    """The leftmost column where runs fit at row y, -1 where they do not."""
    for i in range(count):
        run = runs[t, first + i]
        if run[2] - run[1] > int(longest_free[t, y + run[0]]):
            return -1
    x = wp.int32(0)
    passed = wp.int32(0)  # runs in a row that fit at x
    i = wp.int32(0)
    while x + columns <= side and passed < count:
        run = runs[t, first + i]
        row = (y + run[0]) * (side + 1)
        taken = int(next_taken[t, row + x + run[1]])
        if taken < x + run[2]:
            x = int(next_free[t, row + taken]) - run[1]
            passed = 0
        else:
            passed += 1
            i += 1
            if i == count:
                i = 0
    if passed < count:
        return -1
    return x


@wp.func
def _occupy(
    t: int, x: int, y: int, side: int, first: int, count: int,
    runs: wp.array(dtype=wp.vec3i, ndim=2), longest_free: wp.array(dtype=wp.int16, ndim=2),
    next_taken: wp.array(dtype=wp.int16, ndim=2), next_free: wp.array(dtype=wp.int16, ndim=2),
):  # fmt: skip
    stop = wp.int32(0)  # after the rightmost taken column of the row so far
    for i in range(count):
        run = runs[t, first + i]
        row = (y + run[0]) * (side + 1)
        stop = wp.max(stop, x + run[2])
        for column in range(x + run[1], x + run[2]):
            next_taken[t, row + column] = wp.int16(column)
        last = wp.bool(i == count - 1)
        if not last:
            last = runs[t, first + i + 1][0] != run[0]
        if last:  # of its row
            taken = int(next_taken[t, row + stop])
            free = int(next_free[t, row + stop])
            for j in range(stop):
                column = stop - 1 - j
                if int(next_taken[t, row + column]) == column:
                    taken = column
                else:
                    free = column
                next_taken[t, row + column] = wp.int16(taken)
                next_free[t, row + column] = wp.int16(free)
            longest = wp.int32(0)
            free = int(next_free[t, row])
            while free < side:
                taken = int(next_taken[t, row + free])
                longest = wp.max(longest, taken - free)
                free = int(next_free[t, row + taken])
            longest_free[t, y + run[0]] = wp.int16(longest)
            stop = wp.int32(0)


@wp.func
def _size_class(columns: int, rows: int) -> int:
    """The same number for shapes whose sides differ by less than a fifth."""
    across = int(4.0 * wp.log2(float(columns)))
    return across * SIZE_STEPS + int(4.0 * wp.log2(float(rows)))


@wp.kernel
def pack_at_scale(
    first: int,
    count: int,
    order: wp.array(dtype=wp.int32),
    edges: wp.array(dtype=wp.vec4),
    starts: wp.array(dtype=wp.int32),
    cells: wp.array(dtype=wp.int32, ndim=2),
    scales: wp.array(dtype=wp.float32),
    gap: int,
    side: int,
    orientations: int,
    next_taken: wp.array(dtype=wp.int16, ndim=2),
    next_free: wp.array(dtype=wp.int16, ndim=2),
    longest_free: wp.array(dtype=wp.int16, ndim=2),
    reached: wp.array(dtype=wp.int32, ndim=2),
    bitmap: wp.array(dtype=wp.uint8, ndim=2),
    plain: wp.array(dtype=wp.vec2i, ndim=2),
    row_starts: wp.array(dtype=wp.int32, ndim=2),
    runs: wp.array(dtype=wp.vec3i, ndim=2),
    places: wp.array(dtype=wp.int32, ndim=2),
    fits: wp.array(dtype=wp.int32),
):
    t = first + wp.tid()
    box = runs.shape[1] / 4
    for row in range(side):
        longest_free[t, row] = wp.int16(side)
        for column in range(side + 1):
            next_taken[t, row * (side + 1) + column] = wp.int16(side)
            next_free[t, row * (side + 1) + column] = wp.int16(column)
    for i in range(SIZE_STEPS * SIZE_STEPS):
        reached[t, i] = 0
    for rank in range(count):
        c = order[rank]
        w = cells[t, 2 * c]
        h = cells[t, 2 * c + 1]
        _draw(t, starts[c], starts[c + 1], edges, scales[t], w, h, bitmap)
        best_bottom = side + 1
        best_x = wp.int32(0)
        best_y = wp.int32(0)
        best_turns = wp.int32(-1)
        best_runs = wp.int32(0)
        for attempt in range(2):  # the second one without skipping, where the first found nothing
            for turns in range(orientations * wp.int32(best_turns < 0)):
                columns = w + gap
                rows = h + gap
                if turns % 2 == 1:
                    columns = h + gap
                    rows = w + gap
                size = _size_class(columns, rows)
                top = wp.int32(0)
                if attempt == 0:
                    top = wp.max(reached[t, size] - rows / 2, 0)
                if columns <= side and top + rows < best_bottom:
                    run_count = _list_runs(
                        t, turns, w, h, gap, turns * box, bitmap, plain, row_starts, runs
                    )
                    y = top
                    stride = 1 + rows / _ROWS_PER_STRIDE
                    while y + rows < best_bottom and y >= top:
                        x = _first_column(
                            t, y, columns, side, turns * box, run_count, runs, longest_free,
                            next_taken, next_free,
                        )  # fmt: skip
                        if x >= 0:
                            best_bottom = y + rows
                            best_x = x
                            best_y = y
                            best_turns = turns
                            best_runs = run_count
                            stride = -1  # and up again, to the end of what was skipped
                        elif stride < 0:
                            y = side
                        y += stride
                    reached[t, size] = wp.max(best_bottom - rows, top)
        if best_turns < 0:
            fits[t] = 0
            return
        _occupy(
            t, best_x, best_y, side, best_turns * box, best_runs, runs, longest_free,
            next_taken, next_free,
        )  # fmt: skip
        places[t, 3 * c] = best_x
        places[t, 3 * c + 1] = best_y
        places[t, 3 * c + 2] = best_turns
    fits[t] = 1
