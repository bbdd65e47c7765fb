"""One manager per backend: networks are on the device while a stage needs them, and at home after.

    residency = Residency(
        {"flow": Network(flow, blocks=("blocks",)), "decoder": Network(decoder)},
        [Stage("sample_shape", ("flow",)), Stage("decode", ("decoder",))],
        open_device("auto"),
    )

    def work():
        with residency.stage("sample_shape"):
            latent = sample(flow, ...)
        with residency.stage("decode"):
            return decoder(latent)

    surface = residency.run(work)

A network enters the device by a copy of its bytes and leaves by dropping the copy; the host's
tensors are never written and never come back from the device. On the CPU a stage only takes time.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from onelook.errors import DeviceMemoryError
from onelook.report import Figure
from onelook.residency.copies import NetworkCopy
from onelook.residency.device import Device, requested_bytes
from onelook.residency.networks import Network, pack
from onelook.residency.plan import (
    Level,
    Stage,
    Step,
    largest_level,
    parse_vram,
    plan_steps,
    usable_bytes,
)
from onelook.residency.prediction import Prediction
from onelook.residency.transfer import Ledger

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Residency:
    """Brings a backend's networks to the device and home. For one thread at a time."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        stages: Sequence[Stage],
        device: Device,
        vram: str | float = "auto",
    ):
        """stages: in the order of a full prediction. vram: "auto", or gigabytes (10^9 bytes).

        Raises OptionError for another vram, ValueError for declarations that contradict.
        """
        self.device = device
        self._stages = {stage.name: stage for stage in stages}
        self._packed = pack(networks)
        self._sizes = {name: packed.size for name, packed in self._packed.items()}
        self._vram = parse_vram(vram)
        self._ceiling = Level.ALL  # lowered when memory ran short, for good
        self._copies: dict[str, NetworkCopy] = {}
        self._current: Prediction | None = None
        self._finished: Prediction | None = None
        self._retries = 0
        for stage in stages:
            for name in stage.networks:
                if name not in networks:
                    raise ValueError(f"stage {stage.name} needs {name}, which is no network here")
        if len(self._stages) != len(stages):
            raise ValueError("two stages have the same name")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Have the stage's networks on the device inside the block; do not nest.

        After an error of any kind nothing is left on the device. Outside a prediction the stage
        stands alone: nothing is fetched early.
        """
        if name not in self._stages:
            raise ValueError(f"there is no stage {name!r}; known are {', '.join(self._stages)}")
        if self._current is None:
            with self.prediction([name]), self.stage(name):
                yield
            return
        prediction = self._current
        if prediction.running is not None:
            raise RuntimeError(f"stage {name} begins inside stage {prediction.running}")
        prediction.running = name
        ledger = prediction.ledgers.setdefault(name, Ledger())
        start = time.perf_counter()
        try:
            self._enter(prediction, name, ledger)
            yield
            self._leave(prediction, ledger)
        except BaseException:
            self._note_failure(prediction)
            self.release()
            raise
        finally:
            prediction.running = None
            ledger.seconds += time.perf_counter() - start

    @contextmanager
    def prediction(
        self, stages: Sequence[str] | None = None, level: Level | None = None
    ) -> Iterator[None]:
        """Announce the stages to come, so that each can be fetched during the one before.

        stages: names in order, a name as often as it will be entered; default: all as declared.
        level: default: the largest that fits.
        """
        if self._current is not None:
            raise RuntimeError("a prediction begins inside another")
        chosen = [self._stages[name] for name in (self._stages if stages is None else stages)]
        level, budget = self._choose_level(level)
        steps = plan_steps(level, self._sizes, chosen, budget)
        self._warn_of_excess(steps, budget)
        self._current = self._finished = Prediction(level, steps)
        try:
            yield
        except BaseException:
            self._note_failure(self._current)
            self.release()
            raise
        finally:
            self._current = None
        if level is not Level.ALL:
            self.release()
        elif not self.device.is_host:
            self.device.free_cache()  # what follows may use another allocator, such as warp's

    def run(
        self,
        work: Callable[[], T],
        stages: Sequence[str] | None = None,
        note: Callable[[str], object] = _log.warning,
    ) -> T:
        """`work()` as one prediction; when device memory runs out, again with less resident.

        work: must begin anew at every call, its random generators included. stages: as for
        `prediction`. note: told in a sentence of every new attempt. A level at which memory ran out
        is not tried again by later calls.
        Raises DeviceMemoryError when memory runs out even block by block.
        """
        self._retries = 0
        while True:
            try:
                with self.prediction(stages, None):
                    return work()
            except Exception as error:
                requested = requested_bytes(error)
                if requested is None or self.device.is_host:
                    raise
            # Here the error is gone, and with it the frames that held the device's tensors.
            failed = self._finished
            gc.collect()
            self.device.free_cache()
            smaller = failed.level.smaller
            if smaller is None:
                raise DeviceMemoryError(self._shortage(failed, requested))
            self._ceiling = smaller
            self._retries += 1
            note(f"device memory ran out with residency {failed.level}; again with {smaller}")

    def release(self) -> None:
        """Send every network home and give its device memory back."""
        copies, self._copies = self._copies, {}
        try:
            for copy in copies.values():
                copy.drop()
        finally:
            for packed in self._packed.values():
                packed.come_home()
            if not self.device.is_host:
                copies.clear()
                self.device.free_cache()

    def metrics(self) -> dict[str, Figure]:
        """Figures of the last prediction, flat and JSON-safe; a dot nests. GB is 10^9 bytes.

        Per stage and in sum: seconds, GB moved to the device, peak GB allocated there. Also the
        level, how many attempts ran out of memory, and how long copies took and were waited for.
        """
        if self._finished is None:
            return {}
        if self.device.is_host:
            return self._finished.seconds()
        weights = sum(size.whole for size in self._sizes.values())
        return {
            "residency.retries": self._retries,
            "residency.weights_gb": weights / 1e9,
            **self._finished.figures(),
        }

    def _choose_level(self, level: Level | None) -> tuple[Level, int]:
        if self.device.is_host:
            return Level.ALL, 0
        free, total = self.device.memory()
        held = sum(copy.bytes for copy in self._copies.values())
        budget = usable_bytes(self._vram, free + held, total)
        if level is None:
            level = largest_level(self._sizes, list(self._stages.values()), budget)
            if level is Level.ALL or self._ceiling is Level.BLOCK:
                level = self._ceiling
        return level, budget

    def _warn_of_excess(self, steps: list[Step], budget: int) -> None:
        need = max((step.bytes for step in steps), default=0)
        if need > budget and not self.device.is_host:
            _log.warning(
                "the stages need %.2f GB of device memory at least, %.2f GB may be used",
                need / 1e9,
                budget / 1e9,
            )

    def _enter(self, prediction: Prediction, name: str, ledger: Ledger) -> None:
        if self.device.is_host:
            for network in self._stages[name].networks:
                for image in self._packed[network].images:
                    image.cast_at_home()
            return
        step = prediction.advance(name)
        if step is None:  # not announced: as if alone, and with the least
            level = Level.ALL if prediction.level is Level.ALL else Level.BLOCK
            step = plan_steps(level, self._sizes, [self._stages[name]], 0)[0]
        prediction.step = step
        if prediction.level is not Level.ALL:
            self._drop_all_but(step.present)
        self.device.reset_peak()
        for network in step.whole:
            self._bring(prediction, network)
        for network, leading in step.streamed.items():
            self._bring(prediction, network, leading)
        for network in (*step.whole, *step.streamed):
            self._copies[network].arrive(ledger, prediction.count)
        for network in step.prefetched:
            try:
                self._bring(prediction, network)
            except RuntimeError as error:
                if requested_bytes(error) is None:
                    raise
                break  # fetching early is a favour; the stage itself may still fit

    def _leave(self, prediction: Prediction, ledger: Ledger) -> None:
        if self.device.is_host:
            return
        self.device.synchronize()  # errors of the stage surface in it, and its seconds are true
        ledger.settle(self.device)
        ledger.peak_bytes = max(ledger.peak_bytes, self.device.peak_bytes())
        if prediction.level is not Level.ALL:
            following = prediction.following
            wanted = following.present if following else set()
            self._drop_all_but(wanted - set(prediction.step.streamed))

    def _bring(self, prediction: Prediction, name: str, leading: int | None = None) -> None:
        """Begin to copy a network, unless it is there. leading: stream all but the first blocks."""
        if name in self._copies:
            return
        pin = prediction.level is not Level.ALL  # pinning pays where copies repeat
        copy = NetworkCopy(self.device, self._packed[name], leading, pin)
        self._copies[name] = copy
        prediction.count(copy.bytes)

    def _drop_all_but(self, wanted: set[str]) -> None:
        for name in [name for name in self._copies if name not in wanted]:
            self._copies.pop(name).drop()

    def _note_failure(self, prediction: Prediction) -> None:
        if prediction.failed_with is None and not self.device.is_host:
            prediction.failed_with = self.device.allocated_bytes()

    def _shortage(self, failed: Prediction, requested: int) -> str:
        need = (failed.failed_with or 0) + requested
        free, total = self.device.memory()
        place = f"stage {failed.last}" if failed.last else "the work outside the stages"
        return (
            f"{place} needs at least {need / 1e9:.1f} GB of device memory even with the"
            f" least resident, {free / 1e9:.1f} GB of {total / 1e9:.1f} GB are free; close other"
            " programs that use the GPU, lower the resolution, or use a larger GPU"
        )
