from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from editor import underlined
from ruamel.yaml import YAML

from kvparity_contracts import Contract, ContractError, find, json_schema, library, lint, load
from kvparity_contracts.presets import PRESETS

NAMES = library.names()


def test_the_contracts_that_scripts_and_readers_rely_on_are_there() -> None:
    assert {"smoke", "decode-prefill", "attention-decode-prefill"} < set(NAMES)
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_contract_of_the_library_is_valid_and_strong(name: str) -> None:
    loaded = load(find(name))
    assert lint(loaded) == []
    contract = loaded.contract
    assert contract.name == name
    assert re.fullmatch(r"[A-Z].*\.", contract.about)
    assert Contract.model_validate(contract.model_dump(mode="json")) == contract


def test_smoke_under_a_model_is_smoke_with_a_device_and_its_control() -> None:
    plain, modelled = (load(find(name)).contract for name in ("smoke", "smoke-sm_90"))
    numerics = modelled.numerics.model_copy(
        update={"execution": plain.numerics.execution, "device": None}
    )
    assert set(modelled.numerics.execution) == set(plain.numerics.execution)
    same = {"name": plain.name, "about": plain.about, "numerics": numerics}
    assert isinstance(plain.controls, tuple)
    same |= {"controls": ("other-instruction", *plain.controls)}
    assert modelled.model_copy(update=same) == plain.model_copy(
        update={"controls": same["controls"]}
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_contract_of_the_library_names_the_schema(name: str) -> None:
    first = find(name).read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=contract.schema.json"
    assert (library.FOLDER / "contract.schema.json").is_file()
    whole = YAML(typ="safe", pure=True).load(find(name))
    assert underlined(whole) == []
    assert underlined(whole | {"more": 1}) != []


def test_the_committed_schema_is_fresh() -> None:
    assert json_schema.FILE.read_text(encoding="utf-8") == json_schema.text(), (
        "write it again: kvparity contract schema > "
        "contracts/kvparity_contracts/library/contract.schema.json"
    )


def test_the_schema_is_one_that_editors_read() -> None:
    text = json_schema.text()
    assert "prefixItems" not in text
    assert '"minLength": 1,\n          "type": "array"' not in text
    schema = json.loads(text)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    undescribed = [
        f"{model}.{key}"
        for model, body in {**schema["$defs"], "Contract": schema}.items()
        for key, value in body["properties"].items()
        if "description" not in value
    ]
    assert undescribed == []


def test_a_path_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("smoke.yaml") == Path("smoke.yaml")
    assert find("folder/smoke") == Path("folder/smoke")
    assert find("smoke") == library.FOLDER / "smoke.yaml"
    monkeypatch.chdir(tmp_path)
    Path("smoke").write_text("version: 1\n")
    assert find("smoke") == Path("smoke")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ContractError) as caught:
        find("smok")
    message = "smok: there is no file and no contract called 'smok', expected a file or one of "
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith("(did you mean smoke?)")


def test_presets_are_those_of_the_decoder() -> None:
    from kvparity.subjects.decoder import presets  # imports torch: only here

    told = {name: (each.max_positions, each.vocab_size) for name, each in PRESETS.items()}
    assert told == {
        name: (each.max_positions, each.vocab) for name, each in presets.PRESETS.items()
    }
