"""The manager on a device that punishes mistakes: real forward passes, counted bytes."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers.fake_device import FakeDevice
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from onelook.errors import DeviceMemoryError, OptionError
from onelook.residency.device import HostDevice, open_device, requested_bytes
from onelook.residency.manager import Residency
from onelook.residency.networks import TO_FLOAT32, Network
from onelook.residency.plan import Level, Stage

WIDTH, DEPTH = 64, 6  # a row is 256 bytes, so nothing is padded and bytes can be counted
STAGES = [
    Stage("encode", ("encoder",)),
    Stage("structure", ("flow",)),
    Stage("upsample", ("decoder",)),
    Stage("shape", ("shape",)),
    Stage("decode", ("decoder",)),
]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.mlp(self.norm(x)))


class Stack(nn.Module):
    """A transformer's outline: a table of its own, blocks, a tensor shared by two ends."""

    def __init__(self, depth: int = DEPTH):
        super().__init__()
        self.table = nn.Parameter(torch.randn(WIDTH))
        self.into = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.out.weight = self.into.weight
        self.register_buffer("scale", torch.full((WIDTH,), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x) + self.table
        for block in self.blocks:
            x = block(x)
        return self.out(x) * self.scale


def build(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    depths = {"encoder": 3, "flow": 8, "shape": 8, "decoder": 4}
    return {name: Stack(depth).eval().requires_grad_(False) for name, depth in depths.items()}


def declare(modules: dict[str, nn.Module]) -> dict[str, Network]:
    return {name: Network(module, blocks=("blocks",)) for name, module in modules.items()}


def manage(device, vram="auto", stages=STAGES, modules=None, watch=True) -> Residency:
    modules = modules or build()
    if watch and not device.is_host:
        for module in modules.values():
            device.watch(module)
    residency = Residency(declare(modules), stages, device, vram)
    residency.modules = modules
    return residency


def predict(residency: Residency, steps: int = 3, at: Callable[[str], None] = lambda _: None):
    """A prediction as a backend writes it; `at` is called inside every stage."""
    nets = residency.modules
    x = torch.linspace(-1, 1, 2 * WIDTH).reshape(2, WIDTH)
    with torch.inference_mode():
        with residency.stage("encode"):
            at("encode")
            x = nets["encoder"](x)
        for stage, net in (("structure", "flow"), ("upsample", "decoder"), ("shape", "shape")):
            with residency.stage(stage):
                at(stage)
                for _ in range(1 if net == "decoder" else steps):
                    x = nets[net](x)
        with residency.stage("decode"):
            at("decode")
            return nets["decoder"](x)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small only lose by being shared between threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def truth(one_thread) -> Tensor:
    """What the plain networks give, without any residency."""
    nets = build()
    x = torch.linspace(-1, 1, 2 * WIDTH).reshape(2, WIDTH)
    with torch.inference_mode():
        for name, times in (
            ("encoder", 1),
            ("flow", 3),
            ("decoder", 1),
            ("shape", 3),
            ("decoder", 1),
        ):
            for _ in range(times):
                x = nets[name](x)
    return x


def sizes_of(residency: Residency) -> dict[str, int]:
    return {name: size.whole for name, size in residency._sizes.items()}


def gb(size: int) -> float:
    return size / 1e9


def assert_all_at_home(residency: Residency) -> None:
    """Nothing on the device, no hook left, every tensor the one it was."""
    assert residency.device.held == 0
    for name, module in residency.modules.items():
        for part in module.modules():
            assert not part._forward_pre_hooks
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                assert tensor is None or not residency.device.holds(tensor), name
    residency.device.check()


LARGE = 2**25
TOTAL = sum(sizes_of(manage(FakeDevice(LARGE))).values())
FLOW = sizes_of(manage(FakeDevice(LARGE)))["flow"]


# All, stage, block


def test_what_fits_is_moved_once_and_stays_for_the_next_prediction(truth):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(TOTAL))
    for _ in range(3):
        assert torch.equal(residency.run(lambda: predict(residency)), truth)
        assert device.moved == TOTAL == device.held
    assert device.pinned == 0  # pinning would pay only for copies that repeat
    assert residency.metrics()["residency.level"] == "all"
    assert residency.metrics()["residency.moved_gb"] == 0
    residency.release()
    assert_all_at_home(residency)


@pytest.mark.parametrize("threaded", [False, True])
def test_stage_by_stage_moves_each_network_once_per_prediction(truth, threaded):
    device = FakeDevice(LARGE, threaded=threaded)
    residency = manage(device, vram=gb(TOTAL - 1))
    for count in (1, 2, 3):
        assert torch.equal(residency.run(lambda: predict(residency)), truth)
        assert device.moved == count * TOTAL
        assert device.held == 0
    assert residency.metrics()["residency.level"] == "stage"
    assert residency.metrics()["residency.moved_gb"] == gb(TOTAL)
    assert device.pinned == pytest.approx(TOTAL, abs=31 * 2**20)  # once; rounded up per image
    assert_all_at_home(residency)


def test_a_stage_finds_its_networks_there_and_the_next_already_on_its_way():
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(TOTAL - 1))
    size = sizes_of(residency)
    moved, held = [], []

    def look(stage):
        moved.append(device.moved)
        held.append(device.held)

    residency.run(lambda: predict(residency, at=look))
    up_to = [size["encoder"], size["flow"], size["decoder"], size["shape"], 0]
    assert moved == [sum(up_to[: n + 1]) for n in (1, 2, 3, 3, 3)]
    assert held == [
        size["encoder"] + size["flow"],
        size["flow"] + size["decoder"],
        size["decoder"] + size["shape"],
        size["shape"] + size["decoder"],  # stays from upsample to decode
        size["decoder"],
    ]


def test_the_copy_is_asked_for_before_the_stage_computes_and_waited_for_before_the_next():
    device = FakeDevice(LARGE)
    stages = [Stage("one", ("encoder",)), Stage("two", ("decoder",))]
    residency = manage(device, vram=gb(TOTAL - 1), stages=stages)

    def work():
        for stage, net in (("one", "encoder"), ("two", "decoder")):
            with residency.stage(stage):
                device.log.append((stage,))
                residency.modules[net](torch.zeros(1, WIDTH))

    residency.run(work)
    images = 1 + 3, 1 + 4  # of encoder and decoder
    order = device.names("copy", "compute_waits", "one", "two", "synchronize")
    assert order == [
        *["copy"] * images[0],
        "compute_waits",
        *["copy"] * images[1],
        "one",
        "synchronize",
        "compute_waits",
        "two",
        "synchronize",
    ]


def test_no_more_than_the_budget_is_ever_held_and_without_room_nothing_is_fetched_early(truth):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(FLOW))
    assert torch.equal(residency.run(lambda: predict(residency)), truth)
    metrics = residency.metrics()
    assert metrics["residency.level"] == "stage"
    assert metrics["residency.peak_gb"] == gb(FLOW)
    size = sizes_of(residency)
    assert metrics["residency.moved_gb"] == gb(TOTAL + size["decoder"])  # no room to keep it
    assert_all_at_home(residency)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("share", [0.95, 0.7, 0.3])
def test_block_by_block_gives_the_same_numbers_within_the_budget(truth, share, threaded):
    device = FakeDevice(LARGE, threaded=threaded)
    residency = manage(device, vram=gb(int(share * FLOW)))
    least = residency._sizes["flow"].least
    for _ in range(2):
        assert torch.equal(residency.run(lambda: predict(residency)), truth)
        assert device.held == 0
    metrics = residency.metrics()
    assert metrics["residency.level"] == "block"
    peak = round(metrics["residency.peak_gb"] * 1e9)
    assert peak <= max(int(share * FLOW), least)
    # three passes: the resident part once, the other blocks in each
    resident = residency._sizes["flow"].rest
    block = residency._sizes["flow"].blocks[0]
    leading = max(0, (int(share * FLOW) - resident) // block - 2)
    turning = 8 - leading
    expected = resident + leading * block + 3 * turning * block
    assert metrics["residency.structure.moved_gb"] == gb(expected)
    assert_all_at_home(residency)


def test_while_a_block_computes_the_next_is_on_its_way_and_two_places_serve_all():
    device = FakeDevice(LARGE)
    stages = [Stage("only", ("flow",))]
    residency = manage(device, vram=gb(1), stages=stages)
    flow = residency.modules["flow"]
    seen = []
    for index, block in enumerate(flow.blocks):
        block.mlp.register_forward_hook(
            lambda *_, index=index: seen.append((index, len(device.names("copy"))))
        )
    with residency.prediction(level=Level.BLOCK), residency.stage("only"):
        start = len(device.names("copy"))  # the part that stays, and the first block
        flow(torch.zeros(1, WIDTH))
        allocated = [entry[2] for entry in device.log if entry[0] == "allocate"]
    assert seen == [(index, start + index + 1) for index in range(8)]
    size = residency._sizes["flow"]
    assert allocated == [size.rest, size.blocks[0], size.blocks[0]]
    assert_all_at_home(residency)


def test_blocks_in_another_order_and_blocks_called_twice_still_compute_right():
    device = FakeDevice(LARGE)

    class Wander(Stack):
        def forward(self, x):
            for index in (0, 0, 5, 1, 7, 6, 2, 2, 3, 4, 0, 7):
                x = self.blocks[index](x)
            return x

    torch.manual_seed(1)
    module = Wander(8).eval().requires_grad_(False)
    x = torch.ones(1, WIDTH)
    expected = module(x)
    residency = manage(device, stages=[Stage("only", ("flow",))], modules={"flow": module})
    with residency.prediction(level=Level.BLOCK), residency.stage("only"):
        assert torch.equal(module(x), expected)
        assert torch.equal(module(x), expected)
    assert_all_at_home(residency)


def test_a_block_whose_error_the_caller_handles_can_be_called_again():
    device = FakeDevice(LARGE)
    residency = manage(device, stages=[Stage("only", ("flow",))])
    flow = residency.modules["flow"]
    x = torch.ones(1, WIDTH)
    expected = build()["flow"](x)
    hook = flow.blocks[3].mlp.register_forward_hook(lambda *_: 1 / 0)
    with residency.prediction(level=Level.BLOCK), residency.stage("only"):
        with pytest.raises(ZeroDivisionError):
            flow(x)
        hook.remove()
        assert torch.equal(flow(x), expected)
    assert_all_at_home(residency)


def test_a_block_fetched_in_vain_never_overtakes_the_one_that_took_its_place():
    device = FakeDevice(LARGE, threaded=True)
    pin = device.pin
    device.pin = lambda size: (time.sleep(0.02), pin(size))[1]  # block 3 is written for long

    class Turn(Stack):
        def forward(self, x):
            for index in (0, 1, 2, 0, 1, 2, 0, 1):
                x = self.blocks[index](x)
            return x

    torch.manual_seed(4)
    module = Turn(8).eval().requires_grad_(False)
    x = torch.ones(1, WIDTH)
    expected = module(x)
    residency = manage(device, stages=[Stage("only", ("flow",))], modules={"flow": module})
    with residency.prediction(level=Level.BLOCK), residency.stage("only"):
        assert torch.equal(module(x), expected)
    assert_all_at_home(residency)


def test_a_network_streamed_in_one_stage_is_whole_in_the_next_that_has_room():
    device = FakeDevice(LARGE)
    stages = [Stage("tight", ("flow",), FLOW // 2), Stage("roomy", ("flow",))]
    residency = manage(device, vram=gb(FLOW), stages=stages)
    flow = residency.modules["flow"]
    x = torch.ones(1, WIDTH)
    with residency.prediction():
        with residency.stage("tight"):
            first = flow(x)
        before = device.moved
        with residency.stage("roomy"):
            assert torch.equal(flow(x), first)
            assert torch.equal(flow(x), first)
        assert device.moved == before + FLOW
    assert_all_at_home(residency)


def test_nested_lists_and_named_parts_are_blocks_and_shared_tensors_stay():
    device = FakeDevice(LARGE)

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.ModuleList(nn.ModuleList(Block() for _ in range(2)) for _ in range(2))
            self.middle = Block()
            self.up = nn.Sequential(Block(), nn.Identity(), Block())
            self.up[2].mlp.weight = self.down[0][0].mlp.weight

        def forward(self, x):
            for level in self.down:
                for block in level:
                    x = block(x)
            return self.up(self.middle(x))

    torch.manual_seed(2)
    module = Nested().eval().requires_grad_(False)
    x = torch.ones(1, WIDTH)
    expected = module(x)
    network = Network(module, blocks=("down", "middle", "up"))
    residency = Residency({"net": network}, [Stage("only", ("net",))], device)
    residency.modules = {"net": module}
    size = residency._sizes["net"]
    assert len(size.blocks) == 7 and size.rest == WIDTH * WIDTH * 4
    with residency.prediction(level=Level.BLOCK), residency.stage("only"):
        assert torch.equal(module(x), expected)
        assert device.holds(module.up[2].mlp.weight)
    assert_all_at_home(residency)


# Weights as they are opened


def test_mapped_weights_are_never_changed_and_return_as_the_same_objects(tmp_path, truth):
    modules = build()
    for name, module in modules.items():
        tensors = {k: v for k, v in module.state_dict().items() if k != "out.weight"}
        save_file(tensors, tmp_path / f"{name}.safetensors")
        with safe_open(tmp_path / f"{name}.safetensors", framework="pt") as file:
            mapped = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        module.load_state_dict(mapped | {"out.weight": mapped["into.weight"]}, assign=True)
        module.out.weight = module.into.weight
        module.requires_grad_(False)
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(TOTAL - 1), modules=modules)
    home = {name: dict(module.named_parameters()) for name, module in modules.items()}
    addresses = {n: {k: p.data_ptr() for k, p in ps.items()} for n, ps in home.items()}
    assert torch.equal(residency.run(lambda: predict(residency)), truth)
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            assert parameter is home[name][key]
            assert parameter.data_ptr() == addresses[name][key]


def test_a_cast_travels_in_the_type_it_computes_in_and_home_stays_as_stored():
    torch.manual_seed(3)
    module = nn.Linear(WIDTH, WIDTH).half().requires_grad_(False)
    device = FakeDevice(LARGE)
    networks = {"net": Network(module, cast=TO_FLOAT32)}
    residency = Residency(networks, [Stage("only", ("net",))], device)
    x = torch.ones(1, WIDTH)
    with residency.stage("only"):
        assert module.weight.dtype == torch.float32
        got = module(x)
    residency.release()
    assert torch.equal(got, nn.functional.linear(x, module.weight.float(), module.bias.float()))
    assert module.weight.dtype == torch.float16


def test_a_host_that_cannot_pin_copies_plainly_and_computes_the_same(truth):
    device = FakeDevice(LARGE, pinnable=0)
    residency = manage(device, vram=gb(FLOW // 2))
    for _ in range(2):
        assert torch.equal(residency.run(lambda: predict(residency)), truth)
    assert device.pinned == 0
    assert_all_at_home(residency)


# The host


def test_on_the_cpu_the_host_module_itself_is_used(truth):
    residency = manage(open_device("cpu"))
    home = {name: dict(module.named_parameters()) for name, module in residency.modules.items()}

    def untouched(_):
        for name, module in residency.modules.items():
            assert all(p is home[name][key] for key, p in module.named_parameters())

    assert torch.equal(residency.run(lambda: predict(residency, at=untouched)), truth)
    untouched(None)
    metrics = residency.metrics()
    assert list(metrics) == [f"residency.{stage.name}.seconds" for stage in STAGES]


def test_on_the_cpu_a_cast_happens_once_and_keeps_ties():
    module = Stack().half().requires_grad_(False)
    expected = {key: p.float() for key, p in module.named_parameters()}
    network = Network(module, cast=TO_FLOAT32, blocks=("blocks",))
    residency = Residency({"net": network}, [Stage("only", ("net",))], HostDevice())
    with residency.stage("only"):
        first = dict(module.named_parameters())
        module(torch.zeros(1, WIDTH))
    assert all(torch.equal(first[key], expected[key]) for key in expected)
    assert module.out.weight is module.into.weight
    with residency.stage("only"):
        assert all(p is first[key] for key, p in module.named_parameters())


def test_on_the_cpu_an_error_passes_through_and_memory_errors_are_not_retried():
    residency = manage(HostDevice())
    calls = []

    def work():
        calls.append(1)
        with residency.stage("encode"):
            raise RuntimeError("DefaultCPUAllocator: out of memory")

    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        residency.run(work)
    assert calls == [1]


# Errors


class Cancelled(BaseException):
    pass


@pytest.mark.parametrize("vram", [gb(TOTAL), gb(TOTAL - 1), gb(FLOW // 2)], ids=list(Level))
@pytest.mark.parametrize("error", [ValueError, Cancelled])
@pytest.mark.parametrize("where", ["structure", "decode"])
def test_after_an_error_everything_is_off_and_the_next_prediction_works(truth, vram, error, where):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=vram)

    def fail(stage):
        if stage == where:
            raise error("stop")

    with pytest.raises(error, match="stop"):
        residency.run(lambda: predict(residency, at=fail))
    assert_all_at_home(residency)
    assert torch.equal(residency.run(lambda: predict(residency)), truth)


@pytest.mark.parametrize("block", [0, 3, 7])
def test_an_error_inside_a_streamed_block_leaves_nothing_behind(truth, block):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(FLOW // 2))
    hook = (
        residency.modules["flow"]
        .blocks[block]
        .mlp.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("inside")))
    )
    with pytest.raises(ValueError, match="inside"):
        residency.run(lambda: predict(residency))
    hook.remove()
    assert_all_at_home(residency)
    assert torch.equal(residency.run(lambda: predict(residency)), truth)


def test_a_copy_that_fails_in_its_thread_fails_the_stage_it_was_for(truth):
    device = FakeDevice(LARGE, threaded=True)
    residency = manage(device, vram=gb(TOTAL - 1))
    copy, culprit = device.copy, threading.Event()

    def broken(target, source):
        if culprit.is_set():
            raise RuntimeError("copy engine")
        copy(target, source)

    device.copy = broken
    reached = []

    def at(stage):
        reached.append(stage)
        culprit.set()

    with pytest.raises(RuntimeError, match="copy engine"):
        residency.run(lambda: predict(residency, at=at))
    assert reached[-1] in ("encode", "structure")  # by then one network may have been on its way
    culprit.clear()
    gc.collect()  # the error, its thread's frames and the copy refer to each other
    assert_all_at_home(residency)
    assert torch.equal(residency.run(lambda: predict(residency)), truth)


@pytest.mark.parametrize("vram", [gb(TOTAL), gb(TOTAL - 1), gb(FLOW // 2)], ids=list(Level))
def test_an_error_handled_within_a_prediction_finds_everything_off(vram, truth):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=vram)
    with residency.prediction():
        with pytest.raises(ValueError), residency.stage("structure"):
            raise ValueError
        assert_all_at_home(residency)
        assert torch.equal(predict(residency), truth)
    residency.release()
    assert_all_at_home(residency)


def test_a_prediction_that_ends_early_leaves_nothing_fetched():
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(TOTAL - 1))
    with residency.prediction():
        with residency.stage("encode"):
            pass
        assert device.held == FLOW  # on its way for the next stage
    assert_all_at_home(residency)


# Out of memory


def hungry(residency: Residency, bytes_: int, log: list) -> Callable[[], Tensor]:
    """A prediction whose structure stage needs `bytes_` to compute with."""

    def at(stage):
        if stage == "structure":
            work = residency.device.allocate(bytes_)
            log.append((residency._current.level, weakref.ref(work)))

    return lambda: predict(residency, at=at)


def test_memory_that_runs_out_is_tried_again_stage_by_stage_then_block_by_block(truth):
    device = FakeDevice(3 * TOTAL)
    residency = manage(device, vram=gb(TOTAL))
    size = residency._sizes["flow"]
    notes, log = [], []
    work = hungry(
        residency, 3 * TOTAL - size.whole + 1, log
    )  # all, then flow and decoder: too much
    assert torch.equal(residency.run(work, note=notes.append), truth)
    assert notes == [
        "device memory ran out with residency all; again with stage",
        "device memory ran out with residency stage; again with block",
    ]
    assert [level for level, _ in log] == ["block"]
    metrics = residency.metrics()
    assert (metrics["residency.retries"], metrics["residency.level"]) == (2, "block")
    assert_all_at_home(residency)

    notes.clear()  # what did not fit is not tried again
    assert torch.equal(residency.run(work, note=notes.append), truth)
    assert notes == [] and residency.metrics()["residency.retries"] == 0


def test_one_level_less_is_enough_where_it_is(truth):
    device = FakeDevice(3 * TOTAL)
    residency = manage(device, vram=gb(TOTAL))
    notes, log = [], []
    size = sizes_of(residency)
    there = size["encoder"] + size["flow"] + size["decoder"]  # the last of them fetched early
    work = hungry(residency, 3 * TOTAL - there + 1, log)
    assert torch.equal(residency.run(work, note=notes.append), truth)
    assert notes == ["device memory ran out with residency all; again with stage"]
    assert residency.metrics()["residency.level"] == "stage"


def test_a_failed_attempt_frees_what_its_frames_held_before_the_next_begins():
    device = FakeDevice(3 * TOTAL)
    residency = manage(device, vram=gb(TOTAL))
    held = []

    def work():
        held.append(device.held)
        activations = device.allocate(2 * TOTAL)  # kept by this frame while the error travels
        with residency.stage("encode"):
            try:
                if len(held) == 1:
                    device.allocate(TOTAL)
            except torch.OutOfMemoryError as caught:
                error = caught  # the frame holds the error, and the error the frame
                raise error from None
            return len(activations)

    assert residency.run(work, note=lambda _: None) == 2 * TOTAL
    assert held == [0, 0]


def test_when_nothing_helps_the_message_names_needed_free_and_total():
    device = FakeDevice(4 * 10**9)
    residency = manage(device)
    device.capacity = 4 * 10**9
    attempts = []

    def work():
        attempts.append(1)
        with residency.stage("shape"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 5.00 GiB. GPU 0")

    with pytest.raises(DeviceMemoryError) as caught:
        residency.run(work, note=lambda _: None)
    assert len(attempts) == 3
    assert str(caught.value).startswith(
        "stage shape needs at least 5.4 GB of device memory even with the least resident,"
        " 4.0 GB of 4.0 GB are free;"
    )
    assert caught.value.__context__ is None and caught.value.__cause__ is None
    assert_all_at_home(residency)


def test_other_errors_are_not_retried():
    residency = manage(FakeDevice(LARGE))
    attempts = []

    def work():
        attempts.append(1)
        raise RuntimeError("expected all tensors to be on the same device")

    with pytest.raises(RuntimeError, match="same device"):
        residency.run(work)
    assert attempts == [1]


def test_a_network_that_cannot_be_fetched_early_comes_when_its_turn_does():
    device = FakeDevice(LARGE)
    stages = [Stage("structure", ("flow",)), Stage("shape", ("shape",))]
    residency = manage(device, vram=gb(TOTAL - 1), stages=stages)
    held = []
    with residency.prediction():
        other = device.allocate(LARGE - FLOW)  # someone else's, after the plan was made
        for stage in ("structure", "shape"):
            with residency.stage(stage):
                held.append(device.held - len(other))
    assert held == [FLOW, FLOW]
    del other
    assert_all_at_home(residency)


@pytest.mark.parametrize(
    ("error", "requested"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has"),
            20 * 2**20,
        ),
        (torch.OutOfMemoryError("HIP out of memory. Tried to allocate 1.50 GiB."), 3 * 2**29),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), 0),
        (RuntimeError("Failed to allocate 512 bytes on device 'cuda:0'"), 0),
        (RuntimeError("CUDA error: out of memory"), 0),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (MemoryError("out of memory"), None),
        (ValueError("out of memory"), None),
    ],
)
def test_shortage_of_device_memory_is_told_from_other_errors(error, requested):
    assert requested_bytes(error) == requested


# Predictions that differ from the declared order


def test_a_prediction_may_leave_stages_out_and_repeat_them(truth):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(TOTAL - 1))
    size = sizes_of(residency)

    def work():
        for _ in range(2):
            for stage, net in (("encode", "encoder"), ("decode", "decoder")):
                with residency.stage(stage):
                    residency.modules[net](torch.zeros(1, WIDTH))

    residency.run(work, ["encode", "decode"] * 2)
    assert device.moved == size["encoder"] + size["decoder"]  # both fit, both stay to the end
    assert_all_at_home(residency)
    residency.run(work)  # announced wrongly: slower, not wrong
    assert_all_at_home(residency)
    assert torch.equal(residency.run(lambda: predict(residency)), truth)


@pytest.mark.parametrize("vram", [gb(TOTAL), gb(TOTAL - 1), gb(FLOW // 2)], ids=list(Level))
def test_a_stage_outside_a_prediction_stands_alone(vram):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=vram)
    size = residency._sizes["flow"]
    with residency.stage("structure"):
        residency.modules["flow"](torch.zeros(1, WIDTH))
        assert device.held <= size.whole  # nothing of the next stage
    assert device.held == (size.whole if vram == gb(TOTAL) else 0)


def test_budget_that_shrinks_between_predictions_empties_the_device_as_needed(truth):
    device = FakeDevice(LARGE)
    residency = manage(device, vram=gb(TOTAL))
    residency.run(lambda: predict(residency))
    assert device.held == TOTAL
    device.capacity = TOTAL - 1  # another program took the rest
    assert torch.equal(residency.run(lambda: predict(residency)), truth)
    assert residency.metrics()["residency.level"] == "stage"
    assert residency.metrics()["residency.encode.peak_gb"] < gb(TOTAL)
    assert_all_at_home(residency)


def test_figures_add_up():
    device = FakeDevice(LARGE, bandwidth=1e6)
    residency = manage(device, vram=gb(TOTAL - 1))
    size = sizes_of(residency)
    residency.run(lambda: predict(residency))
    metrics = residency.metrics()
    per_stage = {stage.name: metrics[f"residency.{stage.name}.moved_gb"] for stage in STAGES}
    assert per_stage == {
        "encode": gb(size["encoder"]),
        "structure": gb(size["flow"]),
        "upsample": gb(size["decoder"]),
        "shape": gb(size["shape"]),
        "decode": 0,
    }
    assert metrics["residency.weights_gb"] == gb(TOTAL)
    assert metrics["residency.copy_seconds"] == pytest.approx(TOTAL / 1e6, abs=1e-3)
    assert metrics["residency.shape.peak_gb"] == gb(size["shape"] + size["decoder"])
    assert metrics["residency.peak_gb"] == max(
        metrics[f"residency.{stage.name}.peak_gb"] for stage in STAGES
    )
    assert all(isinstance(value, int | float | str) for value in metrics.values())
    assert all(metrics[f"residency.{stage.name}.seconds"] > 0 for stage in STAGES)


def test_a_budget_nothing_fits_is_said_and_tried(truth, caplog):
    residency = manage(FakeDevice(LARGE), vram=1e-7)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(residency.run(lambda: predict(residency)), truth)
    assert "GB of device memory at least" in caplog.text


# Declarations


def test_declarations_that_contradict_are_refused():
    modules, device = build(), FakeDevice(LARGE)
    one = {"flow": Network(modules["flow"])}
    with pytest.raises(ValueError, match="stage decode needs decoder, which is no network here"):
        Residency(one, STAGES[-1:], device)
    with pytest.raises(ValueError, match="two stages have the same name"):
        Residency(one, [Stage("a", ("flow",))] * 2, device)
    with pytest.raises(ValueError, match="networks flow and again share a module"):
        Residency(one | {"again": Network(nn.Sequential(modules["flow"]))}, [], device)
    with pytest.raises(ValueError, match="network flow has no submodule 'layers' to stream"):
        Residency({"flow": Network(modules["flow"], blocks=("layers",))}, [], device)
    with pytest.raises(ValueError, match="two blocks to stream share a module"):
        Residency({"flow": Network(modules["flow"], blocks=("blocks", "blocks.1"))}, [], device)
    with pytest.raises(ValueError, match="tensor 'weight' is on meta; open the weights on the cpu"):
        Residency({"empty": Network(nn.Linear(2, 2, device="meta"))}, [], device)
    with pytest.raises(OptionError, match="vram must be auto"):
        Residency(one, [], device, vram="plenty")
    with pytest.raises(ValueError, match="device must be auto, cpu or cuda:N, got 'meta'"):
        open_device("meta")


def test_stages_and_predictions_do_not_nest():
    residency = manage(FakeDevice(LARGE))
    unknown = "there is no stage 'bake'; known are encode, structure"
    with pytest.raises(ValueError, match=unknown), residency.stage("bake"):
        pass
    inside = pytest.raises(RuntimeError, match="stage decode begins inside stage encode")
    with inside, residency.stage("encode"), residency.stage("decode"):
        pass
    inside = pytest.raises(RuntimeError, match="a prediction begins inside another")
    with inside, residency.prediction(), residency.prediction():
        pass
    with residency.stage("encode"):
        pass


# The real thing


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.empty_cache()
    return open_device("cuda:0")


@pytest.mark.gpu
@pytest.mark.parametrize("level", list(Level))
def test_on_a_gpu_every_level_gives_the_same_numbers_and_leaves_nothing(gpu, level):
    torch.manual_seed(0)
    module = nn.Sequential(*[nn.Linear(2048, 2048) for _ in range(16)]).requires_grad_(False)
    x = torch.randn(64, 2048, device=gpu.torch_device)
    resident = [(layer.weight.cuda(), layer.bias.cuda()) for layer in module]
    expected = x
    for _ in range(3):
        for weight, bias in resident:
            expected = nn.functional.linear(expected, weight, bias)
    del resident, weight, bias
    network = Network(module, blocks=("",))
    residency = Residency({"net": network}, [Stage("only", ("net",))], gpu)
    before = gpu.allocated_bytes()
    for _ in range(2):
        with residency.prediction(level=level), residency.stage("only"):
            got = x
            for _ in range(3):
                got = module(got)
    assert torch.equal(got, expected)
    del got
    peak = residency.metrics()["residency.peak_gb"] * 1e9 - before
    if level is Level.BLOCK:
        assert peak < 4 * residency._sizes["net"].blocks[0]
    residency.release()
    assert gpu.allocated_bytes() == before
    assert module[0].weight.device.type == "cpu"


@pytest.mark.gpu
def test_on_a_gpu_memory_that_runs_out_is_tried_again_with_less(gpu):
    module = nn.Sequential(*[nn.Linear(4096, 4096) for _ in range(8)]).requires_grad_(False)
    networks = {"net": Network(module, blocks=("",))}
    residency = Residency(networks, [Stage("only", ("net",))], gpu)
    _, total = gpu.memory()
    size = residency._sizes["net"]
    room = size.whole + size.least + 128 * 2**20  # and cuBLAS's workspace
    torch.cuda.set_per_process_memory_fraction(room / total, gpu.torch_device)
    notes = []

    def work():
        with residency.stage("only"):
            torch.empty(size.whole, dtype=torch.uint8, device=gpu.torch_device)
            return module(torch.ones(1, 4096, device=gpu.torch_device)).sum().item()

    try:
        residency.run(work, note=notes.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu.torch_device)
    assert len(notes) == 2
    assert gpu.allocated_bytes() < size.least
