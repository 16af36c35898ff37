"""A claim over time, devices and versions: the first bad version, and what is flaky."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from packaging.version import InvalidVersion, Version

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
        return (*about, self.sha256)

    @property
    def identity(self) -> tuple[object, ...]:
        """All that may decide it."""
        return (*self.setting, self.packages)


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
    groups: dict[tuple[object, ...], list[StoreRow]] = {}
    for row in rows:
        key = row.cell, row.contract, row.claim, row.dtype
        groups.setdefault(key, []).append(row)
    for own in groups.values():
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
            first.contract_sha256, first.environment,
            tuple(sorted(installed.items())), first.ended, first.cell, first.run,
            tuple((row.case_id, row.digest) for row in own),
        )  # fmt: skip


def _turns(runs: Sequence[ClaimRun]) -> Iterator[Turn]:
    settings = dict.fromkeys(each.setting for each in runs if each.claim is not None)
    # A run that failed stands for every claim of its contract; one of something else for none.
    known: dict[tuple[object, ...], list[ClaimRun]] = {each: [] for each in settings}
    for run in runs:
        for setting, own in known.items():
            if run.setting == setting or _stands_for(run, setting):
                own.append(run)
    for own in known.values():
        yield from _of_one_setting(own)


def _stands_for(run: ClaimRun, setting: tuple[object, ...]) -> bool:
    contract, _, dtype, seed, where, _, sha256 = setting
    failed = run.claim is None and run.verdict == "error"
    own = (run.contract, run.seed, run.where, run.sha256)
    alike = own == (contract, seed, where, sha256)
    return failed and alike and run.dtype in (dtype, None)


def _of_one_setting(own: Sequence[ClaimRun]) -> Iterator[Turn]:
    names = dict.fromkeys(name for run in own for name, _ in run.packages)
    for package in names:
        groups: dict[tuple[object, ...], list[tuple[str, Outcome]]] = {}
        for run in own:
            installed = dict(run.packages)
            release = installed.pop(package, None)
            if release is not None:
                said = groups.setdefault(_others(installed, own), [])
                said.append((release, run.verdict))
        for said in groups.values():
            if len({release for release, _ in said}) > 1:
                head = next(each for each in own if each.claim is not None)
                yield _turn(head, package, said)


def _others(installed: Mapping[str, str | None], own: Sequence[ClaimRun]) -> tuple[object, ...]:
    """The other packages, as far as every run knows them: one without a report knows few."""
    known = set.intersection(*({name for name, _ in run.packages} for run in own))
    return tuple(sorted(item for item in installed.items() if item[0] in known))


def _turn(head: ClaimRun, package: str, said: Sequence[tuple[str, Outcome]]) -> Turn:
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
    groups: dict[tuple[object, ...], list[ClaimRun]] = {}
    for run in runs:
        groups.setdefault(run.identity, []).append(run)
    for own in groups.values():
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
