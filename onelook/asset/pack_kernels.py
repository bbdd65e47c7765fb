"""Place chart bitmaps on a grid: the kernel behind `pack`.

One item packs all charts at one scale. A chart's bitmap has every cell that its outline touches or
encloses, grown by the gap to the right and downwards, which keeps any two charts that far apart.
Each grid row knows, for every column, the next taken and the next free column; so a chart that does
not fit jumps past what is in its way, and a full row costs one step.
"""

from __future__ import annotations

import warp as wp

_ROWS_PER_STRIDE = wp.constant(24)  # of a chart: large ones are tried at fewer rows, then settled


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
def _list_runs(
    t: int, turns: int, w: int, h: int, gap: int, box: int,
    bitmap: wp.array(dtype=wp.uint8, ndim=2), runs: wp.array(dtype=wp.vec3i, ndim=2), first: int,
):  # fmt: skip
    """Runs (row, column, column after) of the turned and grown bitmap, from runs[t, first] on."""
    columns = w
    rows = h
    if turns % 2 == 1:
        columns = h
        rows = w
    grown = columns + gap
    for i in range(grown * (rows + gap)):
        bitmap[t, box + i] = wp.uint8(0)
    for y in range(h):
        for x in range(w):
            if bitmap[t, y * w + x] != wp.uint8(0):
                column = x
                row = y
                if turns == 1:
                    column = h - 1 - y
                    row = x
                elif turns == 2:
                    column = w - 1 - x
                    row = h - 1 - y
                elif turns == 3:
                    column = y
                    row = w - 1 - x
                for dy in range(gap + 1):
                    for dx in range(gap + 1):
                        bitmap[t, box + (row + dy) * grown + column + dx] = wp.uint8(1)
    count = wp.int32(0)
    for row in range(rows + gap):
        start = wp.int32(-1)
        for column in range(grown):
            taken = bitmap[t, box + row * grown + column] != wp.uint8(0)
            if taken and start < 0:
                start = column
            if start >= 0 and (not taken or column == grown - 1):
                stop = column
                if taken:
                    stop = grown
                runs[t, first + count] = wp.vec3i(row, start, stop)
                count += 1
                start = wp.int32(-1)
    return count


@wp.func
def _first_column(
    t: int, y: int, columns: int, side: int, first: int, count: int,
    runs: wp.array(dtype=wp.vec3i, ndim=2),
    next_taken: wp.array(dtype=wp.int16, ndim=2), next_free: wp.array(dtype=wp.int16, ndim=2),
):  # fmt: skip
    """The leftmost column where runs fit at row y, -1 where they do not."""
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
    runs: wp.array(dtype=wp.vec3i, ndim=2),
    next_taken: wp.array(dtype=wp.int16, ndim=2), next_free: wp.array(dtype=wp.int16, ndim=2),
):  # fmt: skip
    for i in range(count):
        run = runs[t, first + i]
        row = (y + run[0]) * (side + 1)
        for column in range(x + run[1], x + run[2]):
            next_taken[t, row + column] = wp.int16(column)
        last = wp.bool(i == count - 1)
        if not last:
            last = runs[t, first + i + 1][0] != run[0]
        if last:  # of its row
            taken = side
            free = side
            for j in range(x + run[2]):
                column = x + run[2] - 1 - j
                if j == 0:
                    taken = int(next_taken[t, row + x + run[2]])
                    free = int(next_free[t, row + x + run[2]])
                if int(next_taken[t, row + column]) == column:
                    taken = column
                else:
                    free = column
                next_taken[t, row + column] = wp.int16(taken)
                next_free[t, row + column] = wp.int16(free)


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
    next_taken: wp.array(dtype=wp.int16, ndim=2),
    next_free: wp.array(dtype=wp.int16, ndim=2),
    bitmap: wp.array(dtype=wp.uint8, ndim=2),
    runs: wp.array(dtype=wp.vec3i, ndim=2),
    places: wp.array(dtype=wp.int32, ndim=2),
    fits: wp.array(dtype=wp.int32),
):
    t = first + wp.tid()
    box = bitmap.shape[1] / 2
    for row in range(side):
        for column in range(side + 1):
            next_taken[t, row * (side + 1) + column] = wp.int16(side)
            next_free[t, row * (side + 1) + column] = wp.int16(column)
    lowest = wp.int32(0)  # rows above it are full
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
        for turns in range(4):
            columns = w + gap
            rows = h + gap
            if turns % 2 == 1:
                columns = h + gap
                rows = w + gap
            if columns <= side and lowest + rows < best_bottom:
                run_count = _list_runs(t, turns, w, h, gap, box, bitmap, runs, turns * box)
                y = lowest
                stride = 1 + rows / _ROWS_PER_STRIDE
                while y + rows < best_bottom and y >= lowest:
                    x = _first_column(
                        t, y, columns, side, turns * box, run_count, runs, next_taken, next_free
                    )
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
        if best_turns < 0:
            fits[t] = 0
            return
        _occupy(t, best_x, best_y, side, best_turns * box, best_runs, runs, next_taken, next_free)
        while lowest < side - 1 and int(next_free[t, lowest * (side + 1)]) >= side:
            lowest += 1
        places[t, 3 * c] = best_x
        places[t, 3 * c + 1] = best_y
        places[t, 3 * c + 2] = best_turns
    fits[t] = 1
