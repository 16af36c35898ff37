"""Names of paths: a schedule and a layout, as a contract writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast, get_args

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from kvparity_contracts.base import Fault, closest, refusal, show
from kvparity_contracts.steps import FORM, STEPS_PATTERN, WrittenSteps

PathKind = Literal[
    "prefill",
    "decode",
    "generate",
    "chunked",
    "batched",
    "uniform",
    "permuted",
    "mixed",
    "paged",
    "padded-left",
    "padded-right",
    "padded",
    "uncached",
    "streamed",
    "verify",
    "reset",
    "prefix",
    "prefix-paged",
    "exported",
    "compiled",
    "far",
    "random",
    "drawn",
    "steps",
]

KINDS: tuple[str, ...] = get_args(PathKind)
ABOUT: dict[str, str] = {
    "prefill": "each sequence alone, whole, in one step",
    "decode": "each sequence alone: the prompt in one step, then one token a step",
    "generate": "the subject's own generation loop",
    "chunked": "each sequence alone, in chunks of n tokens",
    "batched": "all sequences side by side among filler sequences, prompts first, then "
    "decoding; `batched(n)`: among so many fillers of few tokens that n rows decode together",
    "uniform": "each sequence in turn among fillers of its own length, prompts first, then "
    "decoding, the longest until the cache is full",
    "permuted": "all sequences whole in one step among filler sequences, in another order",
    "mixed": "sequences enter one step after the other, so prompts meet decoding rows",
    "paged": "all sequences side by side, the cache in pages of n slots",
    "padded-left": "all sequences side by side in a rectangle padded on the left",
    "padded-right": "all sequences side by side in a rectangle padded on the right",
    "padded": "shorthand: padded-left and padded-right, as the workload's `pad` says",
    "uncached": "each sequence alone, whole, without a cache: keys and values are rounded as it "
    "would round them, and used fresh",
    "streamed": "each sequence alone: the prompt in chunks of n tokens, then one token a step",
    "verify": "all sequences side by side among filler sequences, prompts first, then in one step "
    "a token and n drafts of each; rejected drafts are computed again with other tokens",
    "reset": "decode in a session that computed other tokens before and was reset",
    "prefix": "decode, the first n tokens taken over from the cache of another sequence",
    "prefix-paged": "the same with pages of 16 slots, which the two sequences may share",
    "exported": "decode, each step by a program that torch.export made",
    "compiled": "decode, each step by what torch.compile made",
    "far": "all sequences side by side, each prompt by itself, the slots of the cache so far apart "
    "that elements beyond 2^31 are read; few pages of that memory are touched",
    "random": "shorthand: the first n draws, `drawn(1)` to `drawn(n)`",
    "drawn": "draw n of the seed: chunks cut beside edges of tiles, splits, pages and windows, in "
    "steps of one or many sequences, with or without pages, fillers and an earlier use",
    "steps": "steps written out: what a draw is in the evidence of a run",
}
EXAMPLES = {
    "chunked": "chunked(64)",
    "paged": "paged(16)",
    "streamed": "streamed(7)",
    "verify": "verify(3)",
    "prefix": "prefix(24)",
    "prefix-paged": "prefix-paged(24)",
    "random": "random(20)",
    "drawn": "drawn(3)",
}
WITH_ARGUMENT = tuple(EXAMPLES)
MAY_HAVE_ARGUMENT = ("batched",)
SHORTHANDS: tuple[PathKind, ...] = ("padded", "random")
"""What stands for several paths."""
UNNAMED: tuple[PathKind, ...] = ("random", "drawn", "steps")
"""Paths that no steps by name are: of a draw, or written out."""
MOST_DRAWS = 1000
"""Of ``random(n)``: each is a case of every workload, number format and temperature."""
UNTOLD: tuple[PathKind, ...] = ("generate", "exported", "compiled")
"""Paths on which a subject cannot tell what its layers look at."""
ON_CPU: tuple[PathKind, ...] = ("far",)
"""Paths that take memory which only a CPU has: few of its pages are touched."""
CACHELESS: tuple[PathKind, ...] = ("generate", "uncached")
"""Paths whose cache cannot be looked at: the subject's own loop hides it, or there is none."""
MOST = 2**24
"""The largest argument: no sequence has more tokens."""
RANGE = f"a whole number from 1 to {MOST} in the brackets"
_STEPS = re.compile(r"steps\(([^()]*)\)")
NUMBERED = re.compile(r"([a-z]+(?:-[a-z]+)?)\(([^()]*)\)")
GRAMMAR = re.compile(r"([a-z]+(?:-[a-z]+)?)(?:\(([1-9][0-9]*)\))?")


_SHARED_PAGE = 16
"""Slots of a page on ``prefix-paged``."""


class PathError(ValueError):
    """A text that names no path; ``expected`` and ``suggestion`` say what would."""

    def __init__(self, message: str, expected: str, suggestion: str = "") -> None:
        self.message, self.expected, self.suggestion = message, expected, suggestion
        super().__init__(str(Fault((), message, expected, suggestion)))


@dataclass(frozen=True)
class PathName:
    """A path: its kind, and the argument where it takes one, as in ``chunked(n)``.

    ``steps``: as they are written, of a path of this kind.
    """

    kind: PathKind
    argument: int | None = None
    steps: str = ""

    def __post_init__(self) -> None:
        """Refuse a kind that is unknown or has the wrong number of arguments."""
        if self.kind not in KINDS:
            raise PathError(f"found {self.kind!r}", one_of_the_paths(), closest(self.kind, KINDS))
        given = self.argument is not None
        if self.kind not in MAY_HAVE_ARGUMENT and (self.kind in WITH_ARGUMENT) != given:
            raise PathError(f"found {str(self)!r}", repr(example(self.kind)), example(self.kind))
        if self.argument is not None and not 1 <= self.argument <= MOST:
            raise PathError(f"found {str(self)!r}", RANGE, example(self.kind))
        if self.kind == "random" and (self.argument or 0) > MOST_DRAWS:
            raise PathError(f"found {str(self)!r}", f"at most {MOST_DRAWS} draws", "random(20)")
        if (self.kind == "steps") != bool(self.steps):
            raise PathError(f"found {str(self)!r}", FORM)

    @classmethod
    def parse(cls, text: str) -> PathName:
        """Read ``decode``, ``chunked(64)``, ...; raise ``PathError`` for anything else."""
        if text.startswith("steps"):
            return cls._written(text)
        match = GRAMMAR.fullmatch(text)
        if match and len(match[2] or "") > len(str(MOST)):
            match = None  # no number that Python need read
        if match and match[1] in KINDS:
            return cls(cast(PathKind, match[1]), int(match[2]) if match[2] else None)
        other = NUMBERED.fullmatch(text)
        if other and other[1] in (*WITH_ARGUMENT, *MAY_HAVE_ARGUMENT):
            raise PathError(f"found {show(text)}", RANGE, suggest(text))
        raise PathError(f"found {show(text)}", one_of_the_paths(), suggest(text))

    @classmethod
    def _written(cls, text: str) -> PathName:
        found = _STEPS.fullmatch(text)
        if not found:
            raise PathError(f"found {show(text)}", FORM)
        try:
            return cls("steps", steps=str(WrittenSteps.parse(found[1])))
        except ValueError as error:
            raise PathError(str(error), FORM) from None

    def __str__(self) -> str:
        """The path as a contract writes it; ``parse`` reads it back."""
        if self.kind == "steps":
            return f"steps({self.steps})"
        return self.kind if self.argument is None else f"{self.kind}({self.argument})"

    @property
    def page(self) -> int:
        """Slots of a page of the cache, 0 where it has none."""
        if self.kind == "prefix-paged":
            return _SHARED_PAGE
        return self.argument or 0 if self.kind == "paged" else 0

    def expand(self, pad: Sequence[str]) -> tuple[PathName, ...]:
        """``padded`` becomes a path for each side in ``pad``, ``random`` one for each draw.

        Any other path is itself.
        """
        if self.kind == "random":
            return tuple(PathName("drawn", n + 1) for n in range(self.argument or 0))
        if self.kind != "padded":
            return (self,)
        return tuple(PathName(cast(PathKind, f"padded-{side}")) for side in pad)


PREFILL = PathName("prefill")
DECODE = PathName("decode")


def example(kind: str) -> str:
    """How a path of this kind is written, but for steps: these are a workload's own."""
    return EXAMPLES.get(kind, kind)


def one_of_the_paths(kinds: Sequence[str] = KINDS) -> str:
    """All paths, or those of some kinds, as they are written, for a message."""
    written = []
    for kind in kinds:
        if kind == "steps":
            written.append("steps(...)")
            continue
        written += [] if kind in WITH_ARGUMENT else [kind]
        written += [f"{kind}(n)"] if kind in (*WITH_ARGUMENT, *MAY_HAVE_ARGUMENT) else []
    return "one of " + ", ".join(written)


def suggest(text: str) -> str:
    """The path that was probably meant, with its argument kept, or an empty string."""
    word, _, rest = text[:60].strip().lower().replace("_", "-").partition("(")
    digits = re.sub(r"[^0-9]", "", rest or word).lstrip("0")
    if digits and int(digits) > MOST:
        digits = ""  # it would be refused again
    kind = closest(re.sub(r"[^a-z-]", "", word), KINDS)
    if kind in MAY_HAVE_ARGUMENT and rest and digits:
        return f"{kind}({digits})"
    if kind in WITH_ARGUMENT:
        return f"{kind}({digits})" if digits else example(kind)
    return kind


def _validate(value: object) -> PathName:
    if isinstance(value, PathName):
        return value
    if not isinstance(value, str):
        raise refusal(Fault((), f"found {show(value)}", one_of_the_paths()))
    try:
        return PathName.parse(value)
    except PathError as error:
        raise refusal(Fault((), error.message, error.expected, error.suggestion)) from None


PATTERN = rf"^({'|'.join((*WITH_ARGUMENT, *MAY_HAVE_ARGUMENT))})\([1-9][0-9]*\)$"
Path = Annotated[
    PathName,
    PlainValidator(_validate),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "description": "A path: a schedule and a layout.",
            "anyOf": [
                {"enum": [kind for kind in KINDS if kind not in (*WITH_ARGUMENT, "steps")]},
                {"type": "string", "pattern": PATTERN},
                {"type": "string", "pattern": rf"^steps\({STEPS_PATTERN}\)$"},
            ],
        }
    ),
]
