"""A claim over time, devices and versions: the first bad version, and what is flaky."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from packaging.version import InvalidVersion, Version

from kvparity.core.groups import grouped
from kvparity.plan.results import Outcome
from kvparity.report.verdict import worst
from kvparity.sweeps.store_rows import StoreRow

Turned = tuple[tuple[str, Outcome], ...]
"""(release, verdict), from the oldest release to the newest."""


@dataclass(frozen=True)
class ClaimRun:
    """What one verification said of one claim. ``claim`` None: it gave no report."""

    contract: str
    claim: str | None
    relation: str | None
    verdict: Outcome
    reason: str
    dtype: str | None
    seed: int | None
    device: str
    """its name, where that is known"""
    where: str
    """as `--device` takes it"""
    sha256: str | None
    sources: str | None
    """hash of the contract's own source files and prompts; None: it has none, or it is not known"""
    measured: bool
    """False: its environment could not verify anything, so it says nothing of any release"""
    environment: str | None
    packages: tuple[tuple[str, str | None], ...]
    """with Python; sorted"""
    ended: datetime
    cell: str
    run: str | None
    digests: tuple[tuple[str | None, str | None], ...]
    """(case, digest of its rows)"""

    @property
    def setting(self) -> tuple[object, ...]:
        """All that may decide it but the releases."""
        about = (self.contract, self.claim, self.dtype, self.seed, self.where, self.device)
        return (*about, self.sha256, self.sources)

    @property
    def identity(self) -> tuple[object, ...]:
        """All that may decide it."""
        return (*self.setting, self.packages)

    @property
    def verified(self) -> tuple[object, ...]:
        """What a run without a report is known to be of, but for the format."""
        return self.contract, self.seed, self.where, self.sha256, self.sources


@dataclass(frozen=True)
class Turn:
    """A claim in one setting, over the releases of one package, all else being equal.

    ``first_bad``, ``last_good``: where it turned from good to bad once; None where it did not.
    """

    contract: str
    claim: str | None
    dtype: str | None
    seed: int | None
    device: str
    package: str
    turned: Turned
    first_bad: str | None
    last_good: str | None
    words: str


@dataclass(frozen=True)
class FlakyClaim:
    """The same verification gave other verdicts, or other bits."""

    contract: str
    claim: str | None
    dtype: str | None
    seed: int | None
    device: str
    words: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """What a store says."""

    runs: tuple[ClaimRun, ...]
    turns: tuple[Turn, ...]
    flaky: tuple[FlakyClaim, ...]


def history(
    rows: Iterable[StoreRow], contract: str | None = None, claim: str | None = None
) -> History:
    """Of every claim, or of one contract or claim. A run without a report counts for each."""
    runs = tuple(
        each
        for each in _claims(rows)
        if contract in (None, each.contract) and (claim is None or each.claim in (None, claim))
    )
    return History(runs, tuple(_turns(runs)), tuple(_flaky(runs)))


def _claims(rows: Iterable[StoreRow]) -> Iterator[ClaimRun]:
    for own in grouped(rows, lambda row: (row.cell, row.contract, row.claim, row.dtype)).values():
        first = own[0]
        installed: dict[str, str | None] = json.loads(first.packages)
        installed |= {} if first.python is None else {"python": first.python}
        # Of a run over several formats, each has the verdict of its own cases; controls and missing
        # cases are told of the claim as a whole.
        void = first.claim_verdict == "void"
        verdict = worst([row.verdict for row in own] + ["void"] * void)
        bad = next((row for row in own if row.verdict == verdict), first)
        yield ClaimRun(
            first.contract, first.claim, first.relation, verdict,
            first.claim_reason if verdict == first.claim_verdict else bad.reason,
            first.dtype, first.seed, first.device_name or first.device, first.device,
            first.contract_sha256, first.sources, _measured(first), first.environment,
            tuple(sorted(installed.items())), first.ended, first.cell, first.run,
            tuple((row.case_id, row.digest) for row in own),
        )  # fmt: skip


def _measured(row: StoreRow) -> bool:
    """As it says; where an earlier version wrote it, whether it is known that it began at all."""
    if row.measured is not None:
        return row.measured
    return row.claim is not None or None not in (row.kvparity, row.torch)


def _turns(runs: Sequence[ClaimRun]) -> Iterator[Turn]:
    # A run that failed stands for every claim of its contract; one of something else for none.
    known: dict[tuple[object, ...], list[ClaimRun]] = {}
    alike: dict[tuple[object, ...], list[tuple[str | None, list[ClaimRun]]]] = {}
    for run in (each for each in runs if each.claim is not None):
        if run.setting not in known:
            known[run.setting] = []
            alike.setdefault(run.verified, []).append((run.dtype, known[run.setting]))
    for run in runs:
        if run.claim is not None:
            known[run.setting].append(run)
        elif run.verdict == "error" or not run.measured:
            for dtype, own in alike.get(run.verified, ()):
                if run.dtype in (dtype, None):
                    own.append(run)
    for own in known.values():
        unmeasured = [run for run in own if not run.measured]
        yield from _of_one_setting([run for run in own if run.measured], unmeasured)


def _of_one_setting(own: Sequence[ClaimRun], unmeasured: Sequence[ClaimRun]) -> Iterator[Turn]:
    names = dict.fromkeys(name for run in own for name, _ in run.packages)
    # A run without a report may know fewer packages than the others.
    known = set.intersection(*({name for name, _ in run.packages} for run in own))
    head = next(each for each in own if each.claim is not None)
    for package in names:
        groups: dict[tuple[object, ...], list[tuple[str, Outcome]]] = {}
        for run in own:
            installed = dict(run.packages)
            release = installed.pop(package, None)
            if release is not None:
                said = groups.setdefault(_others(installed, known), [])
                said.append((release, run.verdict))
        for said in groups.values():
            if len({release for release, _ in said}) > 1:
                missed = {dict(run.packages).get(package) for run in unmeasured}
                yield _turn(head, package, said, missed)


def _others(
    installed: Mapping[str, str | None], known: Collection[str]
) -> tuple[tuple[str, str | None], ...]:
    return tuple(sorted(item for item in installed.items() if item[0] in known))


def _turn(
    head: ClaimRun,
    package: str,
    said: Sequence[tuple[str, Outcome]],
    missed: Iterable[str | None],
) -> Turn:
    by_release: dict[str, set[Outcome]] = {}
    for release, verdict in said:
        by_release.setdefault(release, set()).add(verdict)
    order = sorted(by_release, key=version_key)
    turned = tuple((release, worst(sorted(by_release[release]))) for release in order)
    good = [verdict == "holds" for _, verdict in turned]
    torn = [release for release in order if len(by_release[release]) > 1]
    unsorted = [release for release in order if not version_key(release)[0]]
    builds = [
        pair for pair, verdicts in zip(pairwise(order), pairwise(good), strict=True)
        if len(set(verdicts)) > 1 and _public(pair[0]) == _public(pair[1])
    ]  # fmt: skip
    first_bad = last_good = None
    listed = ", ".join(f"{release} {verdict}" for release, verdict in turned)
    if torn:
        words = f"no first bad version: {package} {torn[0]} gave different verdicts ({listed})"
    elif builds:
        words = f"no first bad version: builds of one release of {package} differ ({listed})"
    elif unsorted and any(good) and not all(good):
        words = (
            f"no first bad version: {package} {unsorted[0]} is not a sortable version ({listed})"
        )
    elif all(good):
        words = f"good in every version of {package} ({listed})"
    elif not any(good):
        words = f"bad in every version of {package} that was run ({listed})"
    elif good == sorted(good, reverse=True):
        at = good.index(False)
        first_bad, last_good = order[at], order[at - 1]
        words = f"first bad version: {package} {first_bad} ({turned[at][1]}; {last_good} holds)"
    elif good == sorted(good):
        at = good.index(True)
        words = f"good since {package} {order[at]} ({listed})"
    else:
        words = f"no first bad version: it is not monotonic in {package} ({listed})"
    beside = sorted({each for each in missed if each} - {*order}, key=version_key)
    words += f"; not measured: {package} {', '.join(beside)}" if beside else ""
    return Turn(
        head.contract, head.claim, head.dtype, head.seed, head.device, package, turned,
        first_bad, last_good, words,
    )  # fmt: skip


def version_key(text: str) -> tuple[bool, Version, str]:
    """By which releases are sorted: as versions, and what is none of them before all that are."""
    try:
        return True, Version(text), text
    except InvalidVersion:
        return False, Version("0"), text


def _public(text: str) -> tuple[Version, str]:
    """The release without the part that names a build, such as ``+cpu``."""
    sorts, version, _ = version_key(text)
    return Version(version.public), "" if sorts else text


def _flaky(runs: Sequence[ClaimRun]) -> Iterator[FlakyClaim]:
    measured = (run for run in runs if run.measured)
    for own in grouped(measured, lambda run: run.identity).values():
        verdicts = list(dict.fromkeys(run.verdict for run in own))
        digests = {run.digests for run in own if any(digest for _, digest in run.digests)}
        if len(verdicts) < 2 and len(digests) < 2:
            continue
        words = f"verdicts {', '.join(verdicts)}" if len(verdicts) > 1 else "different bits"
        head, *_ = own
        yield FlakyClaim(
            head.contract, head.claim, head.dtype, head.seed, head.device,
            f"{words} in {len(own)} runs with the same contract, versions, device and seed",
            tuple(run.run or run.cell for run in own),
        )  # fmt: skip
