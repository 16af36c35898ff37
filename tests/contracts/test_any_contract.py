"""Whatever stands in a file, it is a contract or there is a reason in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvparity_contracts import ContractError, find, lint, load
from kvparity_contracts.yamltext import read

SEEDS = [
    read(find(name).read_text(encoding="utf-8")).data
    for name in ("smoke", "attention-decode-prefill", "transformers-qwen3-sdpa")
]
WORDS = [
    "kind", "decoder", "attention", "one", "by-dtype", "invariance", "relation", "float32",
    "a\nb", "\ud800", "limits", "paths", "padded", "chunked(3)", "all", "config", "model_type", "",
    "{x}", "no",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(WORDS)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)


def containers(data: Any) -> list[Any]:
    """The mapping or list itself and all inside it."""
    inside = data.values() if isinstance(data, dict) else data if isinstance(data, list) else []
    own = [data] if isinstance(data, (dict, list)) and data else []
    return own + [each for value in inside for each in containers(value)]


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """A good contract with one or two values replaced, removed or added."""
    data = copy.deepcopy(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 2))):
        target = draw(st.sampled_from(containers(data)))
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = draw(st.sampled_from(keys))
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            target[key] = draw(anything)
        elif action == "remove" and len(target) > 1:
            del target[key]
        elif isinstance(target, dict):
            target[draw(st.sampled_from(WORDS))] = draw(anything)
        else:
            target.append(draw(anything))
    return data


@given(spoilt())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_spoilt_contract_is_loaded_or_explained(tmp_path: Path, data: Any) -> None:
    file = tmp_path / "c.yaml"
    text = json.dumps(data, indent=1).replace("NaN", ".nan").replace("Infinity", ".inf")
    file.write_text(text, encoding="utf-8")
    try:
        found = [str(each) for each in lint(load(file))]
    except ContractError as error:
        found = [str(each) for each in error.problems]
        assert found
        for each in error.problems:
            assert 1 <= each.line <= text.count("\n") + 1
    for line in found:
        assert line.startswith(f"{file}:")
        assert "\n" not in line
        assert "another value" not in line


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
@settings(deadline=None)
def test_any_text_is_read_or_explained(text: str) -> None:
    for (line, col), fault in read(text).faults:
        assert line >= 1
        assert col >= 1
        assert "\n" not in str(fault)
