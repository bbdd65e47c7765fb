"""What sits on the device when: the arithmetic, against a simulation of the plan."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelook.errors import OptionError
from onelook.residency.plan import (
    HEADROOM_BYTES,
    Level,
    Size,
    Stage,
    Step,
    largest_level,
    parse_vram,
    plan_steps,
    usable_bytes,
)

# Like TRELLIS.2: an encoder, three flows, two decoders; the shape decoder is used twice.
SIZES = {
    "encoder": Size(6),
    "flow": Size(2, (5,) * 4),
    "shape": Size(2, (5,) * 4),
    "decoder": Size(10),
}
STAGES = [
    Stage("encode", ("encoder",), 1),
    Stage("structure", ("flow",), 2),
    Stage("upsample", ("decoder",), 8),
    Stage("shape", ("shape",), 2),
    Stage("decode", ("decoder",), 8),
]
ALL_BYTES = 6 + 22 + 22 + 10 + 8


def test_everything_stays_exactly_when_it_fits_beside_the_hungriest_stage():
    assert largest_level(SIZES, STAGES, ALL_BYTES) is Level.ALL
    assert largest_level(SIZES, STAGES, ALL_BYTES - 1) is Level.STAGE


def test_the_next_stage_is_fetched_and_a_network_stays_between_its_stages():
    steps = plan_steps(Level.STAGE, SIZES, STAGES, 42)
    assert [step.whole for step in steps] == [stage.networks for stage in STAGES]
    assert [step.prefetched for step in steps] == [("flow",), ("decoder",), ("shape",), (), ()]
    assert [step.kept for step in steps] == [(), (), (), ("decoder",), ()]
    assert [step.bytes for step in steps] == [29, 34, 40, 34, 18]
    assert sum(_moves(steps).values()) == len(SIZES)


def test_less_room_gives_up_prefetching_before_it_moves_a_network_twice():
    steps = plan_steps(Level.STAGE, SIZES, STAGES, 34)
    assert [step.prefetched for step in steps] == [("flow",), ("decoder",), (), (), ()]
    assert set(_moves(steps).values()) == {1}
    tight = plan_steps(Level.STAGE, SIZES, STAGES, 33)
    assert _moves(tight) == {"encoder": 1, "flow": 1, "decoder": 2, "shape": 1}


def test_a_network_that_is_too_large_is_streamed_and_what_fits_of_it_stays():
    flow = STAGES[1:2]
    assert plan_steps(Level.STAGE, SIZES, flow, 24)[0].whole == ("flow",)
    step = plan_steps(Level.STAGE, SIZES, flow, 19)[0]  # 2 to work, 2 rest, 1 block, 2 places
    assert (step.whole, step.streamed, step.bytes) == ((), {"flow": 1}, 19)
    assert plan_steps(Level.STAGE, SIZES, flow, 18)[0].streamed == {"flow": 0}
    assert plan_steps(Level.STAGE, SIZES, flow, 3)[0].bytes == 14  # too little: still the least


def test_the_largest_network_of_a_stage_is_streamed_first():
    sizes = {"small": Size(1, (2,) * 5), "large": Size(1, (3,) * 5)}
    step = plan_steps(Level.STAGE, sizes, [Stage("both", ("small", "large"))], 20)[0]
    assert (step.whole, step.streamed) == (("small",), {"large": 0})


def test_the_least_streams_all_it_can_and_fetches_nothing_early():
    steps = plan_steps(Level.BLOCK, SIZES, STAGES, 10**9)
    assert [step.whole for step in steps] == [("encoder",), (), ("decoder",), (), ("decoder",)]
    assert [dict(step.streamed) for step in steps] == [{}, {"flow": 0}, {}, {"shape": 0}, {}]
    assert not any(step.prefetched or step.kept for step in steps)


def test_blocks_that_would_not_save_memory_are_not_streamed():
    sizes = {"pair": Size(1, (4, 4))}
    step = plan_steps(Level.BLOCK, sizes, [Stage("only", ("pair",))], 1)[0]
    assert (step.whole, dict(step.streamed)) == (("pair",), {})


block_sizes = st.lists(st.integers(1, 9), max_size=5).map(tuple)
networks = st.lists(st.builds(Size, st.integers(0, 9), block_sizes), min_size=1, max_size=5)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(networks, st.integers(0, 80), st.data())
def test_no_plan_exceeds_the_budget_while_any_way_stays_within(sizes, budget, draw):
    sizes = {str(index): size for index, size in enumerate(sizes)}
    some = st.lists(st.sampled_from(sorted(sizes)), max_size=3, unique=True).map(tuple)
    stages = [
        Stage(f"stage {i}", draw.draw(some), draw.draw(st.integers(0, 5)))
        for i in range(draw.draw(st.integers(1, 6)))
    ]
    for level in (Level.STAGE, Level.BLOCK):
        steps = plan_steps(level, sizes, stages, budget)
        on_device: set[str] = set()
        for stage, step in zip(stages, steps, strict=True):
            assert {*step.whole, *step.streamed} == set(stage.networks)
            on_device = (on_device & step.present) | set(step.whole)
            assert set(step.kept) <= on_device  # was brought earlier, never only announced
            weights = sum(sizes[name].whole for name in on_device | set(step.prefetched))
            weights += sum(sizes[name].streamed(kept) for name, kept in step.streamed.items())
            assert weights + stage.working_bytes == step.bytes
            least = stage.working_bytes + sum(sizes[name].least for name in stage.networks)
            if level is Level.BLOCK:
                assert step.bytes >= least
            else:
                assert step.bytes <= max(budget, least)
            on_device |= set(step.prefetched)


def _moves(steps: list[Step]) -> dict[str, int]:
    """How often each network is copied when the plan is carried out."""
    moves: dict[str, int] = {}
    on_device: set[str] = set()
    for step in steps:
        on_device &= step.present
        for name in (*step.whole, *step.prefetched):
            if name not in on_device:
                moves[name] = moves.get(name, 0) + 1
                on_device.add(name)
    return moves


def test_vram_is_read_from_numbers_and_text():
    assert parse_vram("auto") is None
    for value, bytes_ in (
        (8, 8 * 10**9),
        (7.5, 75 * 10**8),
        ("8", 8 * 10**9),
        (" 0.5 ", 5 * 10**8),
    ):
        assert parse_vram(value) == bytes_
    for wrong in ("all", "", "-1", 0, "nan", "inf", True):
        with pytest.raises(OptionError, match="vram must be auto or a number of gigabytes above 0"):
            parse_vram(wrong)


def test_auto_leaves_headroom_and_a_number_is_taken_as_far_as_memory_is_free():
    gib = 2**30
    assert usable_bytes(None, 8 * gib, 8 * gib) == 8 * gib - HEADROOM_BYTES
    assert usable_bytes(None, 70 * gib, 80 * gib) == 66 * gib  # 5 % of a large device
    assert usable_bytes(None, 100, 8 * gib) == 0
    assert usable_bytes(4 * gib, 7 * gib, 8 * gib) == 4 * gib
    assert usable_bytes(16 * gib, 7 * gib, 8 * gib) == 7 * gib
