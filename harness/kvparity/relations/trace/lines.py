"""What is written down: one line for each row that was looked at, one part of it for each layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from kvparity.core.values import plain
from kvparity.relations.trace.weights import Weights
from kvparity_contracts.json_types import JsonObject


@dataclass(frozen=True)
class Seen:
    """What one layer was given for one row.

    ``length``: keys of the sequence in the cache; ``keys``, ``first``: how many of them the row
    was given, from which position on. ``donors``: the stored layers whose contents these keys and
    values are, by their bits. ``strange``: how many of the row's keys differ from what was written
    at their position into the layer that this one reads, ``strange_at`` the first such position.
    """

    layer: int
    length: int
    keys: int
    first: int
    donors: tuple[int, ...]
    strange: int
    strange_at: int | None
    weights: Weights | None
    decode: bool


@dataclass(frozen=True)
class Line:
    """One row of one sequence.

    ``place``: where the schedule has the row, counted by the harness from the tokens that the
    sequence was given; ``position``: where the subject computed it; ``told``: what its model was
    told, None where a model is told no positions. ``life`` counts the resets before it.
    """

    step: int
    sequence: int
    name: str
    life: int
    place: int
    position: int
    told: int | None
    layers: tuple[Seen, ...] = field(default_factory=tuple)

    def json(self) -> JsonObject:
        """The line as JSON values; a number that is not finite becomes a word."""
        found = asdict(self)
        del found["sequence"]
        found["sequence"] = found.pop("name")
        for layer in found["layers"]:
            weights = layer.pop("weights")
            layer["donors"] = list(layer["donors"])
            if weights is not None:
                weights["uniform"] = list(weights["uniform"])
                weights = {name: plain(value) for name, value in weights.items()}
            layer["weights"] = weights
        return found
