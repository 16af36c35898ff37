"""A contract of one case: one workload, one check, one path, one number format."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError
from ruamel.yaml import YAML

from kvparity.plan.cases import Case
from kvparity_contracts.checks import PathCheck
from kvparity_contracts.contract import Contract
from kvparity_contracts.paths import PathName
from kvparity_contracts.workloads import Workload

Keys = tuple[str | int, ...]
Changes = Mapping[Keys, JsonValue]
GONE = "\0gone"
"""In place of a value: the key is left out."""
PATH: Keys = ("checks", 0, "paths", 0)


@dataclass(frozen=True)
class OneCase:
    """A contract that asks one thing; ``key`` tells two of them apart, whatever they are called."""

    contract: Contract

    @property
    def workload(self) -> Workload:
        """Its workload."""
        return self.contract.workloads[0]

    @property
    def check(self) -> PathCheck:
        """Its check."""
        return self.contract.path_checks[0]

    @property
    def path(self) -> PathName:
        """Its path."""
        return self.check.paths[0]

    @property
    def keys(self) -> int:
        """The most keys that a compared row sees."""
        return max(self.workload.totals()) - 1

    @property
    def document(self) -> dict[str, JsonValue]:
        """As a contract file has it, without what is left out."""
        return _written(self.contract)

    @property
    def key(self) -> str:
        """A hash of what is asked."""
        own = {key: it for key, it in self.document.items() if key not in ("name", "about")}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:24]

    def changed(self, changes: Changes) -> OneCase | None:
        """The same with other values at some places; None where that is no contract."""
        document: JsonValue = deepcopy(self.document)
        for at, value in changes.items():
            _set(document, at, value)
        try:
            found = Contract.model_validate(document)
        except ValidationError:
            return None
        return OneCase(found)

    def text(self) -> str:
        """The contract file."""
        yaml, out = YAML(), io.StringIO()
        yaml.default_flow_style, yaml.width = None, 100
        yaml.dump(self.document, out)
        return out.getvalue()


def _written(contract: Contract) -> dict[str, JsonValue]:
    """Without what is left out, but for number formats: people look for them."""
    numerics = contract.numerics.model_dump(mode="json", exclude_defaults=True)
    found: dict[str, JsonValue] = {}
    for key, value in contract.model_dump(mode="json", exclude_defaults=True).items():
        if key == "workloads":
            found["numerics"] = numerics
        found[key] = value
    return found


def _set(document: JsonValue, at: Keys, value: JsonValue) -> None:
    *way, last = at
    inner = document
    for step in way:
        inner = inner[step]  # type: ignore[index] # keys of a contract's own dump
    if value == GONE:
        inner.pop(last, None)  # type: ignore[union-attr,arg-type,call-arg] # a mapping's
    else:
        inner[last] = value  # type: ignore[index] # see above


def of_case(contract: Contract, case: Case, base: Path, steps: str) -> OneCase:
    """The contract of one case of another; files that it names are found from anywhere.

    ``steps``: of a path that is drawn, written out.
    """
    document = _written(contract)
    workload = next(w for w in contract.workloads if w.name == case.workload)
    check = contract.check(case.check)
    numerics = document["numerics"]
    assert isinstance(numerics, dict)  # of a contract with paths
    numerics["execution"] = [case.numerics.execution]
    if contract.numerics.kv_cache is not None:
        numerics["kv_cache"] = [case.numerics.kv_cache]
    if case.temperature is not None:
        numerics["temperatures"] = [case.temperature]
    own = check.model_dump(mode="json", exclude_defaults=True)
    own |= {"paths": [steps or str(case.path)], "relation": check.relation}
    own.pop("workloads", None)
    load = workload.model_dump(mode="json", exclude_defaults=True)
    load.pop("pad", None)  # the side is said by the path
    document |= {
        "name": f"{contract.name}-{case.id}",
        "about": f"{case.id} of {contract.name}, as small as it was found to fail.",
        "workloads": [load],
        "checks": [own],
    }
    document.pop("controls", None)
    subject = document["subject"]
    assert isinstance(subject, dict)
    for key in ("prefill", "decode", "append", "checkpoint"):
        found = subject.get(key)
        if isinstance(found, str):
            file, colon, function = found.partition(".py:")
            named = base / (f"{file}.py" if colon else found)
            if named.exists():
                subject[key] = f"{named.resolve()}:{function}" if colon else str(named.resolve())
    return OneCase(Contract.model_validate(document))
