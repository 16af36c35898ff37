"""Write what follows from the code: tables of the documentation, JSON schemas of run folders.

    python ci/docs/tables.py           rewrite the marked blocks and the schemas
    python ci/docs/tables.py --check   exit 1 if one of them is not fresh

A block stands between ``<!-- begin generated: NAME -->`` and ``<!-- end generated -->``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import commands
from commands import table
from contract_keys import keys
from run_fields import fields

from kvparity.plan.paths import build
from kvparity.plan.schedule import Action, Plan, Span
from kvparity.plan.workload import Prompts
from kvparity.report import json_schemas
from kvparity.report.document import RunReport
from kvparity.report.lines import PathLine, RetryLine, UnitLine
from kvparity_contracts import CONTROLS, PathName
from kvparity_contracts.controls import Control
from kvparity_contracts.needs import needs
from kvparity_contracts.paths import ABOUT, KINDS, SHORTHANDS, WITH_ARGUMENT
from kvparity_contracts.planning import in_kernels
from kvparity_kernels.overrides import tables

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?P<begin><!-- begin generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end generated -->)",
    re.DOTALL,
)

REPOSITORY = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)#(?P<number>\d+)")
FILES = {
    "pytorch/torchtitan test_bitwise_parity.py": "https://github.com/pytorch/torchtitan/blob/main/"
    "torchtitan/experiments/rl/tests/test_bitwise_parity.py",
    "pytorch/torchtitan bitwise_parity.md": "https://github.com/pytorch/torchtitan/blob/main/"
    "torchtitan/experiments/rl/docs/bitwise_parity.md",
}


# paths

EXAMPLE = Prompts("w", ("a", "b"), ((0,) * 2, (0,) * 3), generate=2)
NAMES = "abxyzw"
ARGUMENTS = {
    "chunked": 2, "paged": 4, "streamed": 2, "verify": 2, "prefix": 1, "prefix-paged": 2,
    "drawn": 6,
}  # fmt: skip


def paths() -> str:
    """Every path with its steps for two sequences of 2 + 2 and 3 + 2 tokens, or 2 more of each."""

    def rows() -> Iterator[Sequence[str]]:
        for kind in KINDS:
            written = f"{kind}(n)" if kind in WITH_ARGUMENT else kind
            if kind in SHORTHANDS:
                yield f"`{written}`", ABOUT[kind], "", ""
                continue
            if kind == "steps":
                written, steps = "steps(...)", "page 4 / 0:0-1 1:0 / 1:1-2 / 0:2* 1:3*"
                name = PathName(kind, steps=steps)
            else:
                name = PathName(kind, ARGUMENTS.get(kind))  # type: ignore[arg-type] # from KINDS
            plan = build(name, replace(EXAMPLE, generate=4 if kind == "verify" else 2), seed=0)
            steps = "its own" if plan.generate else "<br>".join(_steps(plan))
            yield f"`{written}`", ABOUT[kind], steps, _layout(plan)

    return table(["path", "stands for", "steps of the example", "layout"], rows())


def _steps(plan: Plan) -> Iterator[str]:
    for number, step in enumerate(plan.schedule):
        for action in plan.actions:
            if action.step == number:
                yield "reset" if action.kind == "reset" else _adopted(action)
        yield _step(step)


def _adopted(action: Action) -> str:
    donor, taker = NAMES[action.donor], NAMES[action.sequence]
    return f"{taker} takes over {donor}0-{action.tokens - 1}"


def _step(step: Sequence[Span]) -> str:
    return f"`{' '.join(map(_span, step))}`"


def _span(span: Span) -> str:
    name = NAMES[span.sequence]
    if span.decode:
        return f"{name}{span.start}*"
    drafts = "?" if span.rejected else ""
    return f"{name}{span.start}-{span.stop - 1}{drafts}"


def _layout(plan: Plan) -> str:
    if plan.generate:
        return "the subject's own"
    batch = "packed" if plan.layout.batch == "packed" else f"rectangle, padded {plan.layout.batch}"
    cache = f"pages of {plan.layout.page}" if plan.layout.page else "contiguous cache"
    cache = "cache with slots far apart" if plan.layout.far else cache
    words = [batch, cache if plan.layout.cached else "no cache"]
    if plan.layout.program != "eager":
        words.append(f"{plan.layout.program} program")
    return "; ".join(words)


# controls


def controls() -> str:
    """Every control: what is planted, where, and the defect that it stands for."""

    def rows() -> Iterator[Sequence[str]]:
        for name, each in CONTROLS.items():
            yield (
                f"`{name}`",
                each.about,
                _side(each),
                ", ".join(each.subjects),
                needs(each),
                f"{', '.join(each.relations)}: `{each.expect}`",
                _links(each.source),
            )

    head = ["control", "what is planted", "where", "subjects", "needs", "must give", "reported in"]
    return table(head, rows())


def _side(control: Control) -> str:
    if control.side == "ranks":
        return "ranks that compute `decode`"
    if control.side == "sides":
        return "the side that scores" if control.features else "the rollout's numbers"
    if in_kernels(control):
        return "decode's kernels"
    if control.side == "both":
        return f"`{control.path}` and the reference"
    return f"`{control.path}`" if control.side == "rollout" else "the reference"


def _links(source: str) -> str:
    if source in FILES:
        return f"[{source}]({FILES[source]})"
    return REPOSITORY.sub(r"[\g<0>](https://github.com/\g<repository>/issues/\g<number>)", source)


# invariant()


def invariant() -> str:
    """What the mode does with the operations of torch, by its own tables."""
    adds = {*tables.REDUCES, *(f"{name}({given}=True)" for name, given in tables.ADDS_IF.items())}

    def rows() -> Iterator[Sequence[str]]:
        for what, names in (
            ("computed in the fixed order", tables.OVERRIDES),
            ("elementwise, one rounding that IEEE 754 settles: torch's", tables.EXACT),
            ("moves or makes values: torch's (so are views and random numbers)", tables.MOVES),
            ("picks, compares or counts: torch's", tables.SELECTS),
            ("adds, and is not swapped: refused", adds),
        ):
            yield what, ", ".join(f"`{name}`" for name in sorted(names))
        yield "any other that torch tags as elementwise", "computed evenly on the CPU: below"
        yield "any other that takes or gives floats", "refused"

    return table(["what", "operations"], rows())


# blocks

BLOCKS: dict[str, Callable[[], str]] = {
    "keys": keys,
    "paths": paths,
    "controls": controls,
    "invariant": invariant,
    "verbs": commands.verbs,
    "commands": commands.commands,
    "exit-codes": commands.exit_codes,
    "report-fields": partial(fields, RunReport),
    "unit-fields": partial(fields, UnitLine),
    "path-fields": partial(fields, PathLine),
    "retry-fields": partial(fields, RetryLine),
}


def fresh(text: str) -> str:
    """The text of a document with its generated blocks as they should be."""

    def block(match: re.Match[str]) -> str:
        return f"{match['begin']}{BLOCKS[match['name']]()}\n{match['end']}"

    return BLOCK.sub(block, text)


def documents() -> list[Path]:
    """All pages that may hold a generated block."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def stale() -> dict[Path, str]:
    """By page or schema whose committed text is not what the code says now: what it says."""
    wanted = {page: fresh(page.read_text()) for page in documents()} | json_schemas.files()
    return {
        path: text
        for path, text in wanted.items()
        if not path.is_file() or path.read_text() != text
    }


def main() -> int:
    """Rewrite, or only look."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--check", action="store_true", help="change nothing; exit 1 if stale")
    check = options.parse_args().check
    old = stale()
    for path, text in old.items():
        print(f"{path.relative_to(ROOT)}: {'not fresh' if check else 'rewritten'}")
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
