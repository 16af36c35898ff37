"""What a measurement cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Stats:
    """Probes asked, launches of the function under test, rounds of waiting, and seconds."""

    probes: int = 0
    launches: int = 0
    rounds: int = 0
    seconds: float = 0.0

    def __add__(self, other: Stats) -> Stats:
        return Stats(
            self.probes + other.probes,
            self.launches + other.launches,
            self.rounds + other.rounds,
            self.seconds + other.seconds,
        )

    def json(self) -> dict[str, float]:
        """JSON values."""
        return {**asdict(self), "seconds": round(self.seconds, 4)}
