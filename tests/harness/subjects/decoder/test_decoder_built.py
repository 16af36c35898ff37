"""What a contract says of a decoder, and the subject that comes of it; what it refuses to open."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kvparity.plan.schedule import Action, Layout, Member, Plan, Span
from kvparity.subjects.base import SubjectError, UnsupportedError
from kvparity.subjects.decoder.backends import Backends
from kvparity.subjects.decoder.model import Ops
from kvparity.subjects.decoder.presets import preset
from kvparity.subjects.decoder.seeded import seeded
from kvparity.subjects.decoder.storage import Storage
from kvparity.subjects.decoder.subject import DecoderSubject, build
from kvparity_contracts.subjects import Decoder
from kvparity_kernels.order import ReductionOrder
from kvparity_kernels.store import StoreFormat

CPU = torch.device("cpu")
CONFIG = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "layers": 2, "heads": 2,
    "kv_heads": 1, "head_dim": 16, "max_positions": 32, "sliding_window": 8,
}  # fmt: skip


def built(kv_cache: str = "float32", device: str = "cpu", **said: Any) -> DecoderSubject:
    model = Decoder.model_validate({"kind": "decoder", "config": CONFIG} | said)
    return build(
        model, execution="float32", kv_cache=kv_cache, device=torch.device(device), seed=3,
        base=Path(),
    )  # fmt: skip


def facts(found: DecoderSubject) -> dict[str, Any]:
    return {
        "storage": found.storage, "order": found.model.order, "twin": found.model.twin,
        "seed": found.seed, "backends": found.backends, "source": found.source,
    }  # fmt: skip


FLOAT = StoreFormat("float32")
ORDER = {"split": 32, "tile": 16}
PLAIN = {
    "storage": Storage(FLOAT, False, False), "order": ReductionOrder(), "twin": True, "seed": 3,
    "backends": Backends(), "source": "config, seed 3",
}  # fmt: skip


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({}, {}),
        ({"cache": {"layout": "head-slot"}}, {"storage": Storage(FLOAT, True, False)}),
        ({"cache": {"ring": True}}, {"storage": Storage(FLOAT, False, True)}),
        ({"kv_cache": "int8(8)"}, {"storage": Storage(StoreFormat("int8", group=8), False, False)}),
        ({"order": ORDER}, {"order": ReductionOrder(**ORDER)}),
        ({"cpu_ops": "interpreter"}, {"twin": False}),
        ({"operations": "torch"}, {"backends": Backends(operations="torch")}),
    ],
)
def test_one_thing_that_is_said_changes_one_thing(
    said: dict[str, Any], wanted: dict[str, Any]
) -> None:
    assert facts(built(**said)) == PLAIN | wanted


def test_kernels_for_another_device_are_refused_before_anything_is_built() -> None:
    with pytest.raises(RuntimeError, match="interpret"):
        built(device="cuda")


def test_a_decoder_of_nothing_is_refused() -> None:
    model = Decoder.model_validate({"kind": "decoder", "config": CONFIG})
    nothing = model.model_copy(update={"config": None})
    with pytest.raises(UnsupportedError, match="needs one of preset, config, checkpoint"):
        build(
            nothing, execution="float32", kv_cache="float32", device=CPU, seed=0, base=Path()
        )  # fmt: skip


def test_operations_that_are_given_are_used() -> None:
    which = built()
    ops: Ops = replace(which.ops)
    weights, config = which.model.weights, which.model.config
    given = DecoderSubject(config, weights, kv_cache="float32", ops=ops, twin=True)
    assert given.ops is ops
    assert given.ops == which.ops


def test_weights_anywhere_are_taken_where_no_twin_is_asked_for() -> None:
    config = replace(preset("tiny"), layers=1, max_positions=16)
    weights = seeded(config, 0, torch.float32, CPU)
    weights = replace(weights, embed=weights.embed.to("meta"))
    found = DecoderSubject(config, weights, kv_cache="float32")
    assert (found.device.type, found.model.cos.device.type) == ("meta", "meta")


@pytest.mark.parametrize(
    ("change", "wanted"),
    [({}, "twin"), ({"operations": "torch"}, None), ({"cpu_ops": "interpreter"}, "interpreter")],
)
def test_what_computes_on_a_cpu_is_told_of_one(change: dict[str, Any], wanted: str | None) -> None:
    found = built(**change)
    assert found.describe()["cpu_ops"] == wanted
    elsewhere = copy(found)
    elsewhere.device = torch.device("cuda")
    assert elsewhere.describe()["cpu_ops"] is None


RING, MEMBER = {"cache": {"ring": True}}, (Member("a", 8, 4),)
WHOLE, LATER = (Span(0, 0, 4, 4),), (Span(0, 4, 5, 4),)
ONE = (Span(0, 0, 1, 0, decode=True),)


@pytest.mark.parametrize(
    ("said", "layout", "more", "says"),
    [
        ({}, {}, {}, None),
        ({}, {"far": True}, {}, "a cache of which few pages are touched"),
        ({}, {"page": 4}, {}, None),
        ({}, {"page": 4, "batch": "left"}, {}, "a padded batch has a rectangular cache"),
        ({}, {"batch": "left"}, {}, None),
        ({}, {"chunk": 0}, {}, None),
        (RING, {"chunk": 0}, {}, "a ring for a window of 8 needs 8 + chunk - 1 slots"),
        (RING, {"chunk": 4}, {}, None),
        (RING, {"chunk": 0, "cached": False}, {}, None),
        ({}, {"cached": False}, {"schedule": (WHOLE,)}, None),
        ({}, {"cached": False}, {"schedule": (WHOLE, LATER)}, "without a cache every sequence"),
        ({}, {"cached": False}, {"schedule": (ONE,)}, "without a cache every sequence comes"),
        ({}, {"cached": False}, {"actions": (Action(0, "reset"),)}, "without a cache every sequ"),
        ({}, {}, {"schedule": (WHOLE, LATER), "actions": (Action(1, "reset"),)}, None),
        ({}, {}, {"generate": True}, "the decoder has no generate() loop of its own"),
        ({"operations": "torch"}, {"program": "exported"}, {}, "a traced program computes with"),
    ],
)
def test_what_a_decoder_cannot_do(
    said: dict[str, Any], layout: dict[str, Any], more: dict[str, Any], says: str | None
) -> None:
    plan = replace(Plan(MEMBER, (), Layout(**layout)), **more)
    reason = built(**said).unsupported(plan)
    assert reason is None if says is None else str(reason).startswith(says)


def test_as_many_positions_as_there_are_and_sixteen_shifted_ones() -> None:
    found = built()
    for length, good in ((32, True), (33, False)):
        if good:
            found.session([Member("a", length)], Layout())
        else:
            with pytest.raises(UnsupportedError, match="a is 33 tokens long; this decoder has 32"):
                found.session([Member("a", length)], Layout())
    session = found.session([Member("a", 32)], Layout())
    list(session.forward((Span(0, 0, 31, 31),), [[1] * 31]))
    with pytest.raises(SubjectError, match="position"):
        list(session.forward((Span(0, 31, 32, 31, True, position_shift=17),), [[1]]))
    (row,) = session.forward((Span(0, 31, 32, 31, True, position_shift=16),), [[1]])
    assert row.isfinite().all()


def test_copies_share_what_is_large_and_count_for_themselves() -> None:
    found = built()
    found.ran["x"] += 1
    for other in (found.with_attention(found.attention), found.with_ops(found.ops)):
        assert other.model.weights is found.model.weights
        assert not other.ran
        assert other.programs is found.programs
    found.require_order()
    outside = copy(found)
    outside.backends = Backends(attention="sdpa-math")
    with pytest.raises(UnsupportedError, match="but attention is sdpa-math"):
        outside.require_order()
    assert outside.describe()["order"] is None
    assert found.describe()["order"] is not None


@pytest.mark.parametrize("width", [24, 5])
def test_formats_that_do_not_fit_and_rings_without_a_window_are_refused(width: int) -> None:
    config = replace(preset("tiny"), layers=1, max_positions=16)
    weights = seeded(config, 0, torch.float32, CPU)
    with pytest.raises(UnsupportedError, match=f"{width} does not divide it"):
        DecoderSubject(config, weights, kv_cache=f"int8({width})")
    with pytest.raises(UnsupportedError, match="a ring needs a layer with a sliding window"):
        DecoderSubject(config, weights, kv_cache="float32", ring=True)
