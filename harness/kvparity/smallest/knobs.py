"""Numbers of a subject that can be smaller: heads, layers, widths, windows, pages; parts that can
be left out, and a device whose products are computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from kvparity.smallest.one_case import GONE, Changes, Keys, OneCase
from kvparity_contracts.subjects import Attention, Decoder, Transformers

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LEFT_OUT = ("softcap", "sinks", "bias", "window")
"""Of a pair: what its functions are not given where the contract has no such key."""


@dataclass(frozen=True)
class Knob:
    """Something of the contract: what it is now, and smaller values, the smallest first."""

    name: str
    now: str
    smaller: tuple[tuple[str, Changes], ...]


def knobs(case: OneCase) -> Iterator[Knob]:
    """All of a subject's, and the device."""
    subject, device = case.contract.subject, case.contract.numerics.device
    if device is not None:
        yield Knob("device", device, (("none", {("numerics", "device"): GONE}),))
    if isinstance(subject, Attention):
        yield from _pair(subject)
    elif isinstance(subject, Decoder) and subject.config is not None:
        own = subject.config.model_dump(mode="json", exclude_defaults=True)
        yield from _model(own, ("subject", "config"), "layers", "heads", "kv_heads")
    elif isinstance(subject, Transformers) and subject.config is not None:
        names = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        yield from _model(subject.config, ("subject", "config"), *names)


def _pair(subject: Attention) -> Iterator[Knob]:
    heads = subject.heads
    for name in LEFT_OUT:
        if getattr(subject, name) is not None:
            yield Knob(name, "given", (("none", {("subject", name): GONE}),))
    yield _heads(heads.query, heads.kv, ("subject", "heads", "query"), ("subject", "heads", "kv"))
    yield _number("head dim", heads.dim, ("subject", "heads", "dim"), WIDTHS)
    if heads.v_dim is not None:
        yield _number("width of values", heads.v_dim, ("subject", "heads", "v_dim"), WIDTHS)
    if subject.page is not None:
        yield _number("page", subject.page, ("subject", "page"), WIDTHS)
    if subject.window is not None:
        near = tuple(range(max(1, subject.window - 1), subject.window))
        yield _number("window", subject.window, ("subject", "window"), (*WIDTHS, *near))


def _model(
    config: Mapping[str, object], at: tuple[str, str], layers: str, heads: str, kv: str
) -> Iterator[Knob]:
    for name in (layers, "head_dim", "hidden_size", "intermediate_size", "vocab_size"):
        now = config.get(name)
        if not isinstance(now, int):
            continue
        least = 126 if name == "vocab_size" else 1  # bytes of text fit
        values = range(1, now) if name == layers and now < 64 else WIDTHS
        sizes = [each for each in (*values, least) if least <= each < now]
        smaller = []
        for size in sorted(set(sizes)):
            changes: dict[Keys, JsonValue] = {(*at, name): size}
            types = config.get("layer_types")
            if name == layers and isinstance(types, list):
                changes[(*at, "layer_types")] = types[:size]
            smaller.append((str(size), changes))
        yield Knob(name, str(now), tuple(smaller))
    query, own = config.get(heads), config.get(kv)
    if isinstance(query, int) and isinstance(own, int):
        yield _heads(query, own, (*at, heads), (*at, kv))


def _heads(query: int, kv: int, at: Keys, at_kv: Keys) -> Knob:
    """One head, one group, then fewer groups."""
    group = query // kv
    found = [(1, 1), *((group * n, n) for n in range(1, kv)), *((n * kv, kv) for n in (1,))]
    fewer = [each for each in dict.fromkeys(found) if each[0] < query]
    return Knob(
        "heads", f"{query} of {kv}",
        tuple((f"{q} of {k}", {at: q, at_kv: k}) for q, k in fewer),
    )  # fmt: skip


def _number(name: str, now: int, at: Keys, values: tuple[int, ...]) -> Knob:
    smaller = tuple((str(v), {at: v}) for v in sorted(set(values)) if v < now)
    return Knob(name, str(now), smaller)
