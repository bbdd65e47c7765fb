"""One prediction under way: which stages come, how far it is, and what it cost."""

from __future__ import annotations

from onelook.report import Figure
from onelook.residency.plan import Level, Step
from onelook.residency.transfer import Ledger


class Prediction:
    """Where a prediction stands, and its figures."""

    def __init__(self, level: Level, steps: list[Step]):
        self.level = level
        self.steps = steps
        self.position = -1
        self.running: str | None = None
        self.last = ""  # the stage entered last
        self.step: Step | None = None
        self.failed_with: int | None = None  # bytes on the device when an error came
        self.moved_bytes = 0
        self.ledgers: dict[str, Ledger] = {}

    @property
    def level_name(self) -> str:
        """The level as the figures say it: "block" as soon as one network is streamed."""
        streams = any(step.streamed for step in self.steps)
        return str(Level.BLOCK if streams else self.level)

    @property
    def following(self) -> Step | None:
        later = self.steps[self.position + 1 :]
        return later[0] if later else None

    def advance(self, name: str) -> Step | None:
        """The plan's next step of this name; None, and no progress, where there is none."""
        self.last = name
        for position in range(self.position + 1, len(self.steps)):
            if self.steps[position].stage == name:
                self.position = position
                return self.steps[position]
        return None

    def count(self, size: int) -> None:
        self.moved_bytes += size

    def seconds(self) -> dict[str, Figure]:
        """Seconds per stage."""
        return {
            f"residency.{name}.seconds": round(ledger.seconds, 4)
            for name, ledger in self.ledgers.items()
        }

    def figures(self) -> dict[str, Figure]:
        """Everything that was measured, per stage and in sum; GB is 10^9 bytes."""
        ledgers = self.ledgers.values()
        figures = {
            "residency.level": self.level_name,
            "residency.moved_gb": self.moved_bytes / 1e9,
            "residency.peak_gb": max((ledger.peak_bytes for ledger in ledgers), default=0) / 1e9,
            "residency.copy_seconds": round(sum(ledger.copy_seconds for ledger in ledgers), 4),
            "residency.wait_seconds": round(sum(ledger.wait_seconds for ledger in ledgers), 4),
            **self.seconds(),
        }
        for name, ledger in self.ledgers.items():
            figures[f"residency.{name}.moved_gb"] = ledger.moved_bytes / 1e9
            figures[f"residency.{name}.peak_gb"] = ledger.peak_bytes / 1e9
        return figures
