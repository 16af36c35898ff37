"""What a change of a contract means: each kind of weakening is seen, and called by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvparity_contracts import library, load
from kvparity_contracts.claims import ContractDiff, claims, difference

FOLDER = library.FOLDER
FIELDS = ("lost", "weakened", "added", "strengthened", "changed")
MIRRORED = {"added": "lost", "lost": "added", "weakened": "strengthened", "changed": "changed"}
CHANGES = {
    "a path": ("permuted, ", "", "lost", "invariance: permuted against prefill over long bfloat16"),
    "a temperature": ("[1.0, 0.7]", "[1.0]", "lost", "over long bfloat16 temperature 0.7"),
    "an order check": ("keys: [65]", "keys: [65, 129]", "added", "order: 129 keys over float32"),
    "a limit": (
        "max_abs_dlogp: 1.0e-4", "max_abs_dlogp: 1.0e-3", "weakened",
        "accuracy in float32, max_abs_dlogp: 0.0001 to 0.001",
    ),
    "a limit left out": (
        ", approx_kl0: 1.0e-9", "", "weakened",
        "accuracy in float32, approx_kl0: 1e-09 to no limit",
    ),
    "a prompt": (
        "[5, 40, 63]", "[5, 40]", "weakened",
        "workload padded: 5, 40, 63 + 4 tokens to 5, 40 + 4 tokens",
    ),
    "fewer tokens": ("generate: 10", "generate: 9", "weakened", "workload long: 250 + 10 tokens"),
    "a side of padding": ("pad: [left, right]", "pad: [left]", "weakened", "workload padded:"),
    "a control": ("  - narrow-cache\n", "", "lost", "control narrow-cache"),
    "the subject": ("split: 128", "split: 256", "changed", "subject.order.split: 128 to 256"),
    "the seed": ("seed: 0", "seed: 1", "changed", "seed: 0 to 1"),
}  # fmt: skip


def changed(folder: Path, old: str, new: str) -> Path:
    text = (FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = folder / "changed.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path


def found(old: Path, new: Path) -> ContractDiff:
    return difference(load(old).contract, load(new).contract)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_called_by_its_name_both_ways(tmp_path: Path, name: str) -> None:
    old, new, field, words = CHANGES[name]
    smoke, edited = FOLDER / "smoke.yaml", changed(tmp_path, old, new)
    there, back = found(smoke, edited), found(edited, smoke)
    assert there.weaker is (field != "added")
    assert any(words in each for each in getattr(there, field)), there
    assert getattr(back, MIRRORED[field]), back
    assert back.weaker is (field in ("changed", "added")), back


@pytest.mark.parametrize("name", library.names())
def test_a_contract_claims_what_it_claims(name: str) -> None:
    contract = load(library.find(name)).contract
    assert list(claims(contract))
    same = difference(contract, contract)
    assert not same.weaker
    assert [getattr(same, each) for each in FIELDS] == [()] * len(FIELDS)


def test_a_format_that_is_gone_is_lost(tmp_path: Path) -> None:
    text = (FOLDER / "attention-sdpa.yaml").read_text(encoding="utf-8")
    text = text.replace("[float32, bfloat16]", "bfloat16").replace("float32:  {", "# {")
    (tmp_path / "one.yaml").write_text(text, encoding="utf-8")
    lost = found(FOLDER / "attention-sdpa.yaml", tmp_path / "one.yaml").lost
    assert "accuracy: prefill over long float32, split-edge float32, tile-edge float32" in lost


def test_a_check_of_its_own_is_no_weaker(tmp_path: Path) -> None:
    """Two checks of one relation with two limits claim the smaller one."""
    more = changed(tmp_path, "\ncontrols:", (
        "\n  - {name: rough, relation: accuracy, paths: [decode], "
        "limits: {max_abs_dlogp: 1.0}}\n\ncontrols:"
    ))  # fmt: skip
    assert not found(FOLDER / "smoke.yaml", more).weaker
    assert found(FOLDER / "smoke.yaml", more).added
