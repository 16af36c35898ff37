"""Where each control is planted for the study of located defects: one place for each subject."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from study import ROOT

from kvparity.births.account import Account
from kvparity.births.pairs import PairAccount
from kvparity.core.errors import UnsupportedError
from kvparity.labs.defect_matrix.entries import part_of
from kvparity.labs.defect_matrix.fixture_contracts import FIXTURES, applies
from kvparity.labs.defect_matrix.locating import located
from kvparity.labs.defect_matrix.locating import placed as fixture_part
from kvparity.plan.kernel_cases import all_numerics
from kvparity.record.path_run import Setting
from kvparity.run.unit import Runner
from kvparity.subjects.registry import factory
from kvparity_contracts.contract import Contract
from kvparity_contracts.controls import Control
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.paths import DECODE, PREFILL
from kvparity_contracts.placing import part_of as placed
from kvparity_contracts.planning import possible
from kvparity_kernels import device_model

Found = Account | PairAccount
PAIR = ROOT / "tests/harness/semantic_pairs.py"
MODEL: JsonObject = {
    "model_type": "mistral", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 256, "sliding_window": 12,
}  # fmt: skip
SMALL: JsonObject = {
    "vocab_size": 128, "hidden_size": 32, "intermediate_size": 16, "layers": 1, "heads": 2,
    "kv_heads": 1, "head_dim": 16, "max_positions": 16,
}  # fmt: skip
CONTRACTS: dict[str, JsonObject] = {
    "mistral": {
        "subject": {"kind": "transformers", "config": MODEL, "attention": "eager"},
        "numerics": {"execution": "bfloat16", "temperatures": [1.0, 0.7]},
        "workloads": [{"name": "w", "prompt_tokens": [5, 30], "generate": 6}],
        "checks": [
            {"name": "bits", "relation": "invariance",
             "paths": ["decode", "chunked(16)", "padded-left"]},
        ],
    },
    "seen both ways": {
        "subject": {"kind": "attention", "prefill": f"{PAIR}:prefill", "decode": f"{PAIR}:decode",
                    "heads": {"query": 4, "kv": 2, "dim": 8}, "causal": False},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [5, 12], "generate": 1}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["permuted"]}],
    },
    "keys of an encoder": {
        "subject": {"kind": "attention", "prefill": f"{PAIR}:prefill", "decode": f"{PAIR}:decode",
                    "heads": {"query": 4, "kv": 2, "dim": 8}, "causal": False, "cross": [3, 20]},
        "numerics": {"execution": "float32"},
        "workloads": [{"name": "w", "prompt_tokens": [5, 12], "generate": 2}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode", "batched"]}],
    },
    "as sm_90": {
        "subject": {"kind": "decoder", "config": SMALL, "attention": "fixed-order",
                    "order": {"split": 16, "tile": 16, "block_m": 16}},
        "numerics": {"execution": "bfloat16", "device": "sm_90"},
        "workloads": [{"name": "w", "prompt_tokens": [3], "generate": 3}],
        "checks": [{"name": "bits", "relation": "invariance", "paths": ["decode"]}],
    },
}  # fmt: skip
"""What no fixture of the matrix is: a model of transformers, a pair that sees later keys, or an
encoder's, products of a device."""


class _Opened:
    """A contract of this study, its subject and the tokens of its workload."""

    def __init__(self, name: str) -> None:
        self.contract = Contract.model_validate(
            {"version": 1, "name": "study", "controls": "all", **CONTRACTS[name]}
        )
        numerics = all_numerics(self.contract)[0]
        with device_model.using(self.contract.numerics.device):
            subject = factory(self.contract.subject.kind)(
                self.contract.subject, execution=numerics.execution, kv_cache=numerics.kv_cache,
                device=torch.device("cpu"), seed=0, base=Path(),
            )  # fmt: skip
            self.setting = Setting(self.contract, subject)
            runner = Runner(self.setting, self.setting.plans("w"), None)
            runner.rollout(DECODE if subject.vocab else PREFILL)
            self.tokens = runner.known()

    def located(self, control: Control) -> Found | None:
        """What is found of a control where a part of the workload shows it."""
        part = placed(control, self.contract, self.contract.workloads[0])
        if part is None or not possible(control, self.contract):
            return None
        plans = self.setting.plans("w").part(part.sequences, part.generate)
        own = [self.tokens[i][: plans.prompts.length(n)] for n, i in enumerate(part.sequences)]
        with device_model.using(self.contract.numerics.device), suppress(UnsupportedError):
            return located(self.setting, plans, own, control)
        return None

    def clean(self) -> Found:
        """What is found where nothing is planted, on the first path of the contract."""
        path = self.contract.checks[0].paths[0]
        with device_model.using(self.contract.numerics.device):
            return located(self.setting, self.setting.plans("w"), self.tokens, None, clean=path)


@cache
def opened_contract(name: str) -> _Opened:
    """A contract of this study."""
    return _Opened(name)


def places(control: Control, kind: str) -> Iterator[tuple[str, Found]]:
    """What is found where a kind of subject shows the control."""
    for name, fixture in FIXTURES.items():
        if fixture.contract.subject.kind == kind and applies(control, fixture):
            for workload in fixture.contract.workloads:
                if part_of(control, fixture, workload.name) is not None:
                    own = fixture_part(name, workload.name, control.name)
                    yield name, located(*own, control)
    for name, document in CONTRACTS.items():
        if document["subject"]["kind"] != kind:  # type: ignore[index,call-overload]
            continue
        found = opened_contract(name).located(control)
        if found is not None:
            yield name, found


def clean_places() -> Iterator[tuple[str, Found]]:
    """What is found where nothing is planted, in one of each kind of subject."""
    for name in ("plain", "pair"):
        own = fixture_part(name, "edge", "stale-slot")
        yield name, located(*own, None)
    for name in CONTRACTS:
        yield name, opened_contract(name).clean()
