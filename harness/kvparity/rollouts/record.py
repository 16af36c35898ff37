"""A recorded sequence as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from kvparity.core.errors import UnsupportedError

Ids = npt.NDArray[np.int64]
Logprobs = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Routes = npt.NDArray[np.int32]


class RolloutError(UnsupportedError):
    """A recording that cannot be used, in words for a person. Exit code 2."""


@dataclass(frozen=True)
class FilePlace:
    """Where in a recording something stands. ``number``: of a line (from 1) or entry (from 0)."""

    path: Path
    number: int | None = None
    lines: bool = True
    """Whether ``number`` counts lines."""

    def __str__(self) -> str:
        if self.number is None:
            return str(self.path)
        return f"{self.path}:{self.number}" if self.lines else f"{self.path}[{self.number}]"


@dataclass(frozen=True)
class Sampling:
    """How tokens were drawn. ``None``: the recording does not say.

    ``processed``: whether logprobs are those of the distribution after temperature and top-p
    (True), or of the model's own (False).
    """

    temperature: float | None = None
    top_p: float | None = None
    processed: bool | None = None


@dataclass(frozen=True)
class Rollout:
    """One recorded sequence. p prompt tokens, r response tokens; logprobs are natural logarithms.

    ``mask`` [r]: the tokens that count, which is the loss mask less the ``unusable`` [r], whose
    logprob is missing or not finite. ``logprobs`` [r], ``trainer_logprobs`` [r],
    ``prompt_logprobs`` [p]: float32, NaN where there is none. ``prompt_ids`` and ``response_ids``
    are None where the recording has none (of the prompt, also where padding cannot be told from
    tokens).
    ``routes`` [p + r or p + r - 1, layers, experts per token]: the experts of each token.
    """

    sequence: str
    prompt_ids: Ids | None
    response_ids: Ids | None
    mask: Mask
    logprobs: Logprobs | None
    trainer_logprobs: Logprobs | None = None
    prompt_logprobs: Logprobs | None = None
    sampling: Sampling = Sampling()
    weight_versions: tuple[str, ...] = ()
    routes: Routes | None = None
    unusable: Mask | None = None

    @property
    def ids(self) -> Ids | None:
        """Prompt and response, [p + r], where both are recorded."""
        if self.prompt_ids is None or self.response_ids is None:
            return None
        return np.concatenate([self.prompt_ids, self.response_ids])


def scorable(each: Rollout) -> Ids:
    """Prompt and response, [p + r], of a sequence that something else is to score.

    Raises:
        RolloutError: it has no prompt or no ids.
    """
    if each.ids is None or each.prompt_ids is None or not each.prompt_ids.size:
        raise RolloutError(
            f"sequence {each.sequence} has no prompt tokens: a model cannot score it. Record them, "
            "or compare with a recording"
        )
    return each.ids


Number = int | float | str | None
"""A logprob as a file may have it: ``"nan"``, ``"inf"`` and ``"-inf"`` where JSON has no number."""


@dataclass(frozen=True)
class RawRollout:
    """What the reader of a layout found, not looked at yet. ``field_names``: each list's own name
    in the file, for messages."""

    at: FilePlace
    sequence: str
    prompt_ids: Sequence[int] | None = None
    response_ids: Sequence[int] | None = None
    mask: Sequence[int | float] | None = None
    logprobs: Sequence[Number] | None = None
    trainer_logprobs: Sequence[Number] | None = None
    prompt_logprobs: Sequence[Number] | None = None
    sampling: Sampling = Sampling()
    weight_versions: tuple[str, ...] = ()
    routes: Sequence[object] | None = None
    field_names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def name(self, of: str) -> str:
        """What the file calls the list ``of``."""
        return self.field_names.get(of, of)
