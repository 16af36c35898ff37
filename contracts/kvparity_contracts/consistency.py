"""What the parts of a contract must agree on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kvparity_contracts import abilities, chosen, stores
from kvparity_contracts.base import Fault, KeyPath, closest, repeated
from kvparity_contracts.checks import PathCheck
from kvparity_contracts.controls import CONTROLS
from kvparity_contracts.idling import idle
from kvparity_contracts.pair_faults import (
    ahead_faults,
    append_faults,
    coded_faults,
    cross_faults,
    layout_faults,
    pair_faults,
    whole_faults,
)
from kvparity_contracts.parts import Parts
from kvparity_contracts.served import ServerSubject, numerics_faults
from kvparity_contracts.sides import Sides
from kvparity_contracts.steps import WrittenSteps
from kvparity_contracts.subjects import Attention, Decoder, known, order_of

LONGEST = 2**24
"""Tokens of a sequence, where the subject does not say how many it takes."""


def faults(contract: Parts) -> Iterator[Fault]:
    """Everything that is wrong between the parts."""
    yield from _names(contract)
    yield from _positions(contract)
    yield from _tokens(contract)
    yield from _stores(contract)
    for i, check in enumerate(contract.checks):
        if isinstance(check, PathCheck):
            yield from _workload_names(contract, ("checks", i), check)
            yield from _padding(contract, ("checks", i), check)
            yield from _chunks(contract, ("checks", i), check)
            yield from _steps(contract, ("checks", i), check)
        for fault in check.faults(contract.subject, contract.numerics):
            yield replace(fault, at=("checks", i, *fault.at))
    yield from abilities.faults(contract)
    yield from chosen.faults(contract)
    yield from _controls(contract)
    if not isinstance(contract.subject, Attention):
        yield from _chats(contract)
    else:
        yield from _no_tokens(contract)
        yield from pair_faults(contract.subject)
        yield from cross_faults(contract.subject)
        yield from layout_faults(contract.subject)
        yield from whole_faults(contract.subject, [each.relation for each in contract.checks])
        yield from ahead_faults(contract.subject, [each.generate for each in contract.workloads])
        yield from append_faults(contract.subject, contract.numerics.kv_cache or ())
        yield from coded_faults(contract.subject, contract.numerics.kv_cache or ())
    if isinstance(contract.subject, ServerSubject):
        yield from numerics_faults(contract.subject, contract.numerics)
        why = (
            ", but a server gives logprobs of tokens alone: no rows of logits, no cache, no float64"
        )
        yield from _alone(contract, "invariance", why)
    if isinstance(contract.subject, Sides):
        yield from _alone(contract, "parity", " beside a subject of kind sides")


def _alone(contract: Parts, relation: str, why: str) -> Iterator[Fault]:
    for i, check in enumerate(contract.checks):
        if check.relation != relation:
            found = f"found {check.relation!r}{why}"
            yield Fault(("checks", i, "relation"), found, relation)


def _names(contract: Parts) -> Iterator[Fault]:
    for key in ("workloads", "checks"):
        names = [each.name for each in getattr(contract, key)]
        for i in repeated(names):
            yield Fault((key, i, "name"), f"the name {names[i]!r} is used twice", "another name")


def _positions(contract: Parts) -> Iterator[Fault]:
    longest, whose = known(contract.subject).max_positions, "the positions of the model"
    if longest is None:
        longest, whose = LONGEST, "whatever the subject takes"
    for i, workload in enumerate(contract.workloads):
        for j, total in enumerate(workload.totals()):
            if total > longest:
                yield Fault(
                    ("workloads", i, workload.source, j),
                    f"found {total - workload.generate} prompt tokens, {total} with the "
                    f"{workload.generate} generated",
                    f"at most {longest}, {whose}",
                )


def _tokens(contract: Parts) -> Iterator[Fault]:
    size = known(contract.subject).vocab_size
    if size is None:
        return
    for i, workload in enumerate(contract.workloads):
        given = workload.prompts or tuple(tuple(text.encode()) for text in workload.texts or ())
        for j, ids in enumerate(given):
            if max(ids) >= size:
                at = ("workloads", i, workload.source, j)
                expected = f"ids below {size}, the vocabulary of the model"
                yield Fault(at, f"found the token id {max(ids)}", expected)


def _stores(contract: Parts) -> Iterator[Fault]:
    dim = known(contract.subject).head_dim
    for i, text in enumerate(contract.numerics.kv_cache or ()):
        store = stores.parse(text)
        if dim is not None and store.group and dim % store.group:
            yield Fault(
                ("numerics", "kv_cache", i),
                f"found {text!r}, but {store.group} does not divide the head dimension {dim}",
                f"a group that divides {dim}",
            )
        values = contract.subject.heads.v_dim if isinstance(contract.subject, Attention) else None
        if values is not None and store.group and values % store.group:
            yield Fault(
                ("numerics", "kv_cache", i),
                f"found {text!r}, but {store.group} does not divide v_dim {values}",
                f"a group that divides {values}",
            )
    coded = stores.lossy(contract.numerics.kv_cache or ())
    if coded and isinstance(contract.subject, Attention) and contract.subject.values == "latent":
        message = f"found a cache in {coded[0]}, whose scales values cannot share with keys"
        yield Fault(("numerics", "kv_cache"), message, "float32, float16 or bfloat16")
    if coded and isinstance(contract.subject, Decoder) and order_of(contract.subject) is None:
        message = f"found a cache in {coded[0]} beside attention: {contract.subject.attention}"
        yield Fault(("numerics", "kv_cache"), message, "float32, float16 or bfloat16")


def _workload_names(contract: Parts, at: KeyPath, check: PathCheck) -> Iterator[Fault]:
    names = [each.name for each in contract.workloads]
    for j, name in enumerate(check.workloads or ()):
        if name not in names:
            yield Fault(
                (*at, "workloads", j),
                f"found the unknown workload {name!r}",
                f"one of {', '.join(names)}",
                closest(name, names),
            )


def _padding(contract: Parts, at: KeyPath, check: PathCheck) -> Iterator[Fault]:
    padded = [each for each in contract.workloads_of(check) if each.pad]
    for j, path in enumerate(check.paths):
        if abilities.cannot(contract.subject, path) is not None:
            continue  # whatever the workloads are: what would help another subject misleads here
        if path.kind == "padded" and not padded:
            message = "found 'padded', but no workload of this check has 'pad'"
            yield Fault((*at, "paths", j), message, "a workload with pad: [left, right]")


def _chunks(contract: Parts, at: KeyPath, check: PathCheck) -> Iterator[Fault]:
    workloads = contract.workloads_of(check)
    if not all(map(contract.counted, workloads)):
        return  # a chat template may add what a text lacks
    for j, path in enumerate(check.paths):
        if not workloads or not all(idle(path, each) for each in workloads):
            continue
        if abilities.cannot(contract.subject, path) is not None:
            continue
        found, where = f"found '{path}', but ", (*at, "paths", j)
        longest = max(max(each.totals()) for each in workloads)
        prompt = max(max(each.lengths()) for each in workloads)
        if path.kind == "chunked":
            found += f"no sequence is longer than {longest} tokens, so it is the same as prefill"
            yield Fault(where, found, f"a chunk shorter than {longest}")
        elif path.kind == "streamed":
            found += f"no prompt is longer than {prompt} tokens, so it is the same as decode"
            yield Fault(where, found, f"a chunk shorter than {prompt}")
        else:
            found += f"no prompt is longer than {prompt} tokens, so none goes on behind the prefix"
            yield Fault(where, found, f"a prefix shorter than {prompt}")


def _steps(contract: Parts, at: KeyPath, check: PathCheck) -> Iterator[Fault]:
    """Written steps belong to one shape of workload."""
    for j, path in enumerate(check.paths):
        if path.kind != "steps" or abilities.cannot(contract.subject, path) is not None:
            continue
        for workload in filter(contract.counted, contract.workloads_of(check)):
            written = WrittenSteps.parse(path.steps)
            wrong = written.wrong(workload.lengths(), workload.generate)
            if wrong is not None:
                found = f"found steps that do not compute {workload.name}: {wrong}"
                yield Fault((*at, "paths", j), found, "steps of every workload of the check")
                break


def _controls(contract: Parts) -> Iterator[Fault]:
    if contract.controls == "all":
        return
    kind = contract.subject.kind
    for i, name in enumerate(contract.controls):
        if kind not in CONTROLS[name].subjects:
            able = ", ".join(each.name for each in CONTROLS.values() if kind in each.subjects)
            message = f"{name!r} cannot be planted in a subject of kind {kind}"
            yield Fault(("controls", i), message, f"one of {able}")
        elif "order" in CONTROLS[name].features and order_of(contract.subject) is None:
            attention = getattr(contract.subject, "attention", kind)
            message = f"{name!r} plants another order, but attention: {attention} takes none"
            yield Fault(("controls", i), message, "a control that needs no order of this project")


def _chats(contract: Parts) -> Iterator[Fault]:
    for i, workload in enumerate(contract.workloads):
        if workload.chats is not None and getattr(contract.subject, "checkpoint", None) is None:
            message = "found chats, and the subject has no checkpoint with a chat template"
            yield Fault(("workloads", i, "chats"), message, "prompt_tokens, prompts or texts")


def _no_tokens(contract: Parts) -> Iterator[Fault]:
    for i, workload in enumerate(contract.workloads):
        if workload.source != "prompt_tokens":
            message = f"found {workload.source!r}, but a pair of attention kernels has no tokens"
            yield Fault(("workloads", i, workload.source), message, "prompt_tokens")
    if contract.numerics.temperatures != (1.0,):
        message = "found temperatures, but a pair of attention kernels has no logprobs"
        yield Fault(("numerics", "temperatures"), message, "no temperatures")
