"""What is allowed in a contract and yet proves less than it seems to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from kvparity_contracts import chosen, drawn_edges, lint_controls
from kvparity_contracts.base import KeyPath
from kvparity_contracts.checks import Accuracy, Invariance, OrderCheck, PathCheck, TpInvariance
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls.base import DECODING
from kvparity_contracts.draws import USUAL_TILE
from kvparity_contracts.faint import between, faint, rounding
from kvparity_contracts.few_rows import few_rows, moved_pages
from kvparity_contracts.grouping import hidden_mapping, one_encoder
from kvparity_contracts.idling import idle
from kvparity_contracts.limits import Limits
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.plain import LINE, plain
from kvparity_contracts.problems import dotted
from kvparity_contracts.sides import Sides
from kvparity_contracts.subjects import Attention, known, order_of
from kvparity_contracts.undeclared import undeclared
from kvparity_contracts.workloads import LARGEST_BYTE

Note = tuple[KeyPath, str]


@dataclass(frozen=True)
class LintFinding:
    """One warning, or note, at one place: ``line`` and ``col`` count from 1."""

    file: str
    line: int
    col: int
    key: str
    message: str
    level: str = "warning"

    def __str__(self) -> str:
        """``file:line:col: warning: key: message``, or ``note``."""
        place = f"{self.file}:{self.line}:{self.col}"
        return f"{plain(place)}: {self.level}: {plain(self.key)}: {plain(self.message, LINE)}"


def lint(loaded: LoadedContract) -> list[LintFinding]:
    """All warnings for a valid contract, in the order of the file."""
    notes = [note for rule in RULES for note in rule(loaded.contract)]
    notes += undeclared(loaded)
    return _placed(loaded, notes, "warning")


def told(loaded: LoadedContract) -> list[LintFinding]:
    """What is said of a valid contract and is no warning: which edges draws and rows reach."""
    notes = [*drawn_edges.told(loaded.contract), *chosen.told(loaded.contract)]
    return _placed(loaded, notes, "note")


def _placed(loaded: LoadedContract, notes: Iterable[Note], level: str) -> list[LintFinding]:
    found = [
        LintFinding(loaded.file, *loaded.place(at), dotted(at), text, level) for at, text in notes
    ]
    return sorted(found, key=lambda each: (each.line, each.col))


def _relations(contract: Contract) -> Iterator[Note]:
    if isinstance(contract.subject, Sides):
        return
    if not any(contract.checks_of(each.TAG) for each in (Invariance, TpInvariance)):
        yield ("checks",), "there is no invariance check, so no bits are compared"
    # The float64 twin exists for what this project computes itself.
    computed_here = contract.subject.kind in ("attention", "decoder")
    if computed_here and not contract.checks_of("accuracy"):
        yield ("checks",), "there is no accuracy check: consistently wrong numbers would pass"


def _edges(contract: Contract) -> Iterator[Note]:
    checks = [each for each in contract.checks if isinstance(each, Invariance)]
    used = {w.name: w for check in checks for w in contract.workloads_of(check)}
    if not used:
        return
    cross = contract.subject.cross if isinstance(contract.subject, Attention) else None
    longest = max(max(each.totals()) for each in used.values()) if cross is None else cross[1]
    order = order_of(contract.subject)
    tile, split = (order.tile, order.split) if order else (USUAL_TILE, USUAL_TILE)
    for name, keys, merged in (("tile", tile, "tiles or splits"), ("split", split, "splits")):
        if longest <= keys:
            yield (
                ("workloads",),
                f"no sequence is longer than one {name} of {keys} keys (the longest has "
                f"{longest}), so nothing about merging {merged} is verified",
            )
            return


def _decoded_edges(contract: Contract) -> Iterator[Note]:
    """Where tiles are known, decode has to be asked on both sides of the edge of one."""
    order = order_of(contract.subject)
    seen = _decoded_keys(contract)
    if order is None or not seen or max(seen) <= order.tile:  # the rule above speaks of short ones
        return
    missing = []
    if not any(keys % order.tile == 0 for keys in seen):
        missing.append("a whole number of tiles")
    if not any(keys % order.tile == 1 for keys in seen):  # a decoded token sees 2 keys at least
        missing.append("one key of its last tile")
    if missing:
        prompt = max(seen) // order.tile * order.tile - 1
        yield (
            ("workloads",),
            f"no decoded token sees {' or '.join(missing)} of {order.tile} keys, so a fault at "
            f"the edge of a tile shows in prefill alone; a prompt of {prompt} tokens that "
            "generates 3 would do",
        )


def _decoded_keys(contract: Contract) -> set[int]:
    """How many keys the tokens see that invariance checks compute one at a time."""
    seen: set[int] = set()
    crossed = isinstance(contract.subject, Attention) and contract.subject.cross is not None
    for check in () if crossed else contract.checks:
        if not isinstance(check, Invariance):
            continue
        for workload in contract.workloads_of(check):
            kinds = {path.kind for path in contract.paths_of(check, workload)} & {*DECODING}
            if kinds - {*chosen.BY_PREFILL}:
                for rows in chosen.every(workload, contract):
                    seen.update(row + 1 for row in rows)
            if kinds:
                # The first token comes from the prompt's own step, and the last is not fed back.
                for prompt in workload.lengths():
                    seen.update(range(prompt + 1, prompt + workload.generate))
    return seen


def _few_keys(contract: Contract) -> Iterator[Note]:
    order = order_of(contract.subject)
    tile = order.tile if order else USUAL_TILE
    for i, check in enumerate(contract.checks):
        if isinstance(check, OrderCheck) and max(check.keys) <= tile:
            yield (
                ("checks", i, "keys"),
                f"no number of keys is above one tile of {tile}, so the order of tiles and splits "
                "is not certified",
            )
            continue
        window = known(contract.subject).sliding_window
        if isinstance(check, OrderCheck) and window and not _crossed(check, window, tile):
            yield (
                ("checks", i, "keys"),
                f"at no number of keys does the edge of a tile of {tile} lie among the last "
                f"{window}, so in layers with this window the order of tiles and splits is not "
                "certified",
            )


def _crossed(check: OrderCheck, window: int, tile: int) -> bool:
    """Whether at some number of keys a window has keys of two tiles."""
    return any((keys - 1) // tile > max(keys - window, 0) // tile for keys in check.keys)


def _unused(contract: Contract) -> Iterator[Note]:
    if isinstance(contract.subject, Sides):  # whose rollout draws for all of them
        for i, workload in enumerate(contract.workloads):
            if workload.pad:
                yield ("workloads", i, "pad"), "two sides are drawn without a padded path"
        return
    used = {each.name for check in contract.path_checks for each in contract.workloads_of(check)}
    for i, workload in enumerate(contract.workloads):
        runs = [check for check in contract.path_checks if workload in contract.workloads_of(check)]
        if workload.name not in used:
            yield ("workloads", i, "name"), f"no check uses the workload {workload.name!r}"
        for side in workload.pad if runs else ():
            paths = {str(path) for c in runs for path in contract.paths_of(c, workload)}
            if f"padded-{side}" not in paths | {str(check.against) for check in runs}:
                text = f"no check of this workload has the path 'padded' or 'padded-{side}'"
                yield ("workloads", i, "pad"), text
        decoding = [p for c in runs for p in contract.paths_of(c, workload) if p.kind in DECODING]
        if workload.generate == 1 and decoding:
            yield (
                ("workloads", i, "generate"),
                "the one generated token comes from the prompt's own step, so nothing is decoded; "
                "generate at least 2",
            )


_IDLE = {
    "chunked": "every sequence of {} fits into one chunk, where '{}' is the same as prefill",
    "streamed": "every prompt of {} fits into one chunk, where '{}' is the same as decode",
}
_NO_PREFIX = "no prompt of {} is longer than the prefix of '{}', which is not run there"


def _chunks(contract: Contract) -> Iterator[Note]:
    for i, check in enumerate(contract.checks):
        if not isinstance(check, PathCheck):
            continue
        found = []
        for j, path in enumerate(check.paths):
            asked = [each for each in contract.workloads_of(check) if contract.counted(each)]
            names = [each.name for each in asked if idle(path, each)]
            if names:
                found.append((j, _IDLE.get(path.kind, _NO_PREFIX).format(", ".join(names), path)))
        if found:  # one line for a check, at the first of its paths
            texts = "; ".join(text for _, text in found)
            at = ("checks", i, "paths", found[0][0])
            yield at, f"{texts}; give the check its own workloads"


def _small_vocabulary(contract: Contract) -> Iterator[Note]:
    size = known(contract.subject).vocab_size
    for i, workload in enumerate(contract.workloads):
        if size is not None and size <= LARGEST_BYTE and workload.source == "prompt_tokens":
            yield (
                ("workloads", i, "prompt_tokens"),
                f"prompts are bytes of text, up to {LARGEST_BYTE}, and the vocabulary has {size} "
                "ids: one that does not fit ends the run; give prompts as ids",
            )


def _loose_limits(contract: Contract) -> Iterator[Note]:
    for i, check in enumerate(contract.checks):
        if isinstance(check, Accuracy):
            for at, limits in check.each():
                for name, text in _loose(limits):
                    yield ("checks", i, "limits", *at, name), text


def _wide_limits(contract: Contract) -> Iterator[Note]:
    """Limits of a pair of kernels within which a fault that both share may lie."""
    subject = contract.subject
    if not isinstance(subject, Attention):
        return
    for i, check in enumerate(contract.checks):
        if not isinstance(check, Accuracy):
            continue
        for dtype in dict.fromkeys(execution for execution, _ in contract.numerics.formats()):
            limit = check.limits_for(dtype).max_abs
            for fault, size in faint(subject):
                other = contract.checks_of("liveness") and fault == "window-one-long"
                if limit is None or limit < size or other:
                    continue
                taken = rounding(subject, dtype)
                better = between(size, taken)
                advice = (
                    f"a limit of {better:g} shows it"
                    if better
                    else "no limit shows it there; add float32"
                )
                at: KeyPath = () if isinstance(check.limits, Limits) else (dtype,)
                yield (
                    ("checks", i, "limits", *at, "max_abs"),
                    f"{limit:g} may not see {fault}, which moves a row by about {size:.1g}; "
                    f"rounding to {dtype} takes up to {taken:g}: {advice}",
                )


def _loose(limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.clipfrac0 is not None and limits.clipfrac0 >= 1:
        yield "clipfrac0", "cannot fail: a share is at most 1"
        return
    most = limits.max_abs_dlogp
    if most is None or most > 50:  # exp would overflow, and nothing useful is implied
        return
    # |d| <= m bounds the mean of exp(d) - 1 - d by its value at d = m, which is above that at -m.
    implied = math.expm1(most) - most
    if limits.approx_kl0 is not None and limits.approx_kl0 >= implied:
        yield (
            "approx_kl0",
            f"cannot fail: max_abs_dlogp {most:g} already keeps it below {implied:.3g}",
        )
    # exp(d) leaves 0.8 .. 1.2 at 1.2 first.
    if limits.clipfrac0 is not None and math.exp(most) <= 1.2:
        yield "clipfrac0", f"cannot fail: max_abs_dlogp {most:g} already keeps it at 0"


RULES: tuple[Callable[[Contract], Iterator[Note]], ...] = (
    _relations,
    hidden_mapping,
    one_encoder,
    few_rows,
    moved_pages,
    _edges,
    _decoded_edges,
    _few_keys,
    _unused,
    _chunks,
    drawn_edges.missed,
    _small_vocabulary,
    _loose_limits,
    _wide_limits,
    lint_controls.named,
    lint_controls.uncontrolled,
)
