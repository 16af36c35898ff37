from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from kvparity_contracts import CONTROLS, Contract, LoadedContract
from kvparity_contracts.checks import CHECKS, Accuracy, AuditCheck, OrderCheck
from kvparity_contracts.controls.base import EVERY
from kvparity_contracts.needs import needs
from kvparity_contracts.numerics import Numerics
from kvparity_contracts.order import Order
from kvparity_contracts.paths import KINDS
from kvparity_contracts.workloads import Workload

Loads = Callable[..., LoadedContract]


def test_a_scalar_is_a_list_of_one() -> None:
    one = Numerics(execution="bfloat16", temperatures=0.7)  # type: ignore[arg-type]  # as in YAML
    assert one == Numerics(execution=("bfloat16",), temperatures=(0.7,))
    assert one.formats() == (("bfloat16", "bfloat16"),)


def test_formats_are_all_combinations() -> None:
    both = Numerics(execution=("float32", "bfloat16"), kv_cache=("bfloat16", "float16"))
    assert both.formats() == (
        ("float32", "bfloat16"),
        ("float32", "float16"),
        ("bfloat16", "bfloat16"),
        ("bfloat16", "float16"),
    )


def test_small_floats_are_floats(loads: Loads) -> None:
    check = loads(("max_abs_dlogp: 0.1", "max_abs_dlogp: 1e-5")).contract.checks[1]
    assert isinstance(check, Accuracy)
    assert check.limits_for("float32").given() == {"max_abs_dlogp": 1e-5}


def test_limits_by_format(loads: Loads) -> None:
    text = "{float32: {max_abs_dlogp: 1}, bfloat16: {approx_kl0: 2}}"
    check = loads(("{max_abs_dlogp: 0.1}", text)).contract.checks[1]
    assert isinstance(check, Accuracy)
    assert check.limits_for("float32").given() == {"max_abs_dlogp": 1.0}
    assert check.limits_for("bfloat16").given() == {"approx_kl0": 2.0}


@pytest.mark.parametrize(
    ("given", "lengths"),
    [
        ({"prompt_tokens": (3, 17)}, (3, 17)),
        ({"prompts": ((1, 2, 3), (4,))}, (3, 1)),
        ({"texts": ("abc", "é")}, (3, 2)),
    ],
    ids=["lengths", "ids", "text"],
)
def test_lengths_of_a_workload(given: dict[str, object], lengths: tuple[int, ...]) -> None:
    workload = Workload.model_validate({"name": "w", "generate": 4, **given})
    assert workload.lengths() == lengths
    assert workload.totals() == tuple(length + 4 for length in lengths)
    assert workload.source == next(iter(given))


def test_a_contract_survives_its_own_dump(loads: Loads) -> None:
    contract = loads().contract
    assert Contract.model_validate(contract.model_dump(mode="json")) == contract


def test_a_contract_is_frozen(loads: Loads) -> None:
    contract = loads().contract
    with pytest.raises(ValidationError):
        contract.seed = 3


def test_a_check_runs_on_its_workloads_and_paths(loads: Loads) -> None:
    contract = loads(
        ("generate: 8}\nchecks", "generate: 8, pad: [right]}\nchecks"),
        ("chunked(7)]}", "padded], workloads: [long]}"),
    ).contract
    bits, close = contract.checks
    (long,) = contract.workloads_of(bits)
    assert long.name == "long"
    assert [each.name for each in contract.workloads_of(close)] == ["short", "long"]
    assert list(map(str, contract.paths_of(bits, long))) == ["decode", "batched", "padded-right"]


def test_padded_and_one_of_its_sides_go_together(loads: Loads) -> None:
    contract = loads(
        ("generate: 8}\nchecks", "generate: 8, pad: [right, left]}\nchecks"),
        ("chunked(7)]}", "padded-left, padded], workloads: [long]}"),
    ).contract
    bits = contract.checks_of("invariance")[0]
    (long,) = contract.workloads_of(bits)
    expected = ["decode", "batched", "padded-left", "padded-right"]
    assert list(map(str, contract.paths_of(bits, long))) == expected


@pytest.mark.parametrize("known", [True, False])
def test_a_chunk_is_held_against_a_text_only_where_its_length_is_known(known: bool) -> None:
    shape = {"model_type": "llama"} if known else None
    subject = {"kind": "transformers", "attention": "eager"}
    whole = {
        "version": 1,
        "name": "chat",
        "subject": {**subject, "config": shape} if known else {**subject, "checkpoint": "model"},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "short", "texts": ["Hi"], "generate": 4}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["chunked(7)"]}],
    }
    if known:
        with pytest.raises(ValidationError, match="no sequence is longer than 6 tokens"):
            Contract.model_validate(whole)
    else:  # the chat template of a checkpoint may make any number of ids of it
        assert Contract.model_validate(whole).workloads[0].texts == ("Hi",)


def test_a_loaded_contract_knows_its_file(loads: Loads) -> None:
    loaded = loads()
    assert loaded.sha256 == hashlib.sha256(loaded.path.read_bytes()).hexdigest()
    assert loaded.base == loaded.path.parent
    assert loaded.place(("checks", 1, "limits", "max_abs_dlogp")) == (10, 63)


def test_the_default_order() -> None:
    order = Order()
    assert (order.split, order.tile, order.block_m, order.num_warps) == (256, 64, 64, 4)


def test_the_table_of_controls() -> None:
    for name, control in CONTROLS.items():
        assert name == control.name
        assert control.about
        assert needs(control)
        assert "/" in control.source
        assert set(control.subjects) <= {*EVERY, "server", "sides"}
        assert control.subjects
        assert set(control.paths) <= set(KINDS)
    void = [each.name for each in CONTROLS.values() if each.expect == "void"]
    assert void == ["unequal-lengths", "dropped-sequences", "unasked-all-reduce"]
    by_relation = {
        relation: [c.name for c in CONTROLS.values() if relation in c.relations]
        for relation in CHECKS
    }
    assert set(by_relation["accuracy"]) >= {"wrong-input", "positions-inexact"}
    assert by_relation["order"] == ["other-tile", "ragged-split"]
    assert by_relation["audit"] == ["other-tile", "other-warps", "other-architecture"]
    assert all(by_relation.values()), "a relation without a control is void"


def test_checks_of_kernels_are_no_path_checks(loads: Loads) -> None:
    order = "  - {name: o, relation: order, keys: [65, 129]}\n"
    audit = "  - {name: a, relation: audit}\n"
    contract = loads(("controls: all", f"{order}{audit}controls: all")).contract
    certificate, compiled = contract.checks[2:]
    assert isinstance(certificate, OrderCheck)
    assert certificate.keys == (65, 129)
    assert isinstance(compiled, AuditCheck)
    assert compiled.architectures == ("sm_80", "sm_90", "sm_100")
    assert contract.path_checks == contract.checks[:2]
    assert contract.checks_of("order") == [certificate]
