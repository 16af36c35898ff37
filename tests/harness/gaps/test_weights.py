"""Two checkpoints tensor by tensor, and what a merged adapter lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gaps import tiny
from safetensors.torch import load_file, save_file

from kvparity.cli.main import main
from kvparity.core.errors import UnsupportedError
from kvparity.gaps.merged import merged
from kvparity.gaps.weights import compare

NORM = "model.norm.weight"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"))


def _other(folder: Path, to: Path, change: Callable[[Tensors], None]) -> Path:
    to.mkdir()
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors")
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    return to


def _one_bit(tensors: Tensors) -> None:
    tensors[NORM].view(torch.int16)[3] += 2


def _float32(tensors: Tensors) -> None:
    tensors[NORM] = tensors[NORM].float()
    tensors[NORM][0] += 2**-20


def _transposed(tensors: Tensors) -> None:
    tensors[NORM] = tensors[NORM][None]


def _gone(tensors: Tensors) -> None:
    del tensors[NORM]


def _integers(tensors: Tensors) -> None:
    tensors["steps"] = torch.tensor([3])


def _zero(tensors: Tensors) -> None:
    tensors[NORM].zero_()


def _minus_zero(tensors: Tensors) -> None:
    tensors[NORM].zero_()
    tensors[NORM][1] = -0.0


CASES = {
    "one bit": (_one_bit, "bits", 1 / 32, 2),
    "dtype": (_float32, "dtype", 1 / 32, None),
    "shape": (_transposed, "shape", None, None),
    "gone": (_gone, "only in A", None, None),
    "one more": (_integers, "only in B", None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_what_differs(case: str, folder: Path, tmp_path: Path) -> None:
    change, status, share, ulps = CASES[case]
    found = compare(folder, _other(folder, tmp_path / "b", change))
    (only,) = found.differences
    assert (only.status, only.differing, only.max_ulps) == (status, share, ulps)
    assert found.equal == 20 + (case == "one more")
    assert found.fingerprints[0] != found.fingerprints[1]


def test_equal_checkpoints(folder: Path, tmp_path: Path) -> None:
    """Whatever files hold the tensors, and whether a tied head is stored."""

    def with_head(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    same = _other(folder, tmp_path / "same", lambda tensors: None)
    tensors = load_file(same / "model.safetensors")
    (same / "model.safetensors").unlink()
    for number, part in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        save_file({name: tensors[name] for name in part}, same / f"{number}.safetensors")
    found = compare(folder, same)
    assert (found.same, found.tied) == (True, (True, True))
    assert found.fingerprints[0] == found.fingerprints[1]
    assert compare(folder, _other(folder, tmp_path / "head", with_head)).same


def test_zeros_of_two_signs(folder: Path, tmp_path: Path) -> None:
    a = _other(folder, tmp_path / "a", _zero)
    (only,) = compare(a, _other(folder, tmp_path / "b", _minus_zero)).differences
    assert (only.status, only.max_abs, only.max_ulps) == ("bits", 0.0, 1)


def test_a_head_of_its_own(folder: Path, tmp_path: Path) -> None:
    def untied(tensors: Tensors) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    (only,) = compare(folder, _other(folder, tmp_path / "b", untied)).differences
    assert only.name == "lm_head.weight"


def _adapter(to: Path, alpha: float, size: float, **settings: object) -> Path:
    to.mkdir()
    torch.manual_seed(0)
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    low = {
        f"{name}.lora_A.weight": torch.randn(2, 32) * size,
        f"{name}.lora_B.weight": torch.randn(32, 2),
    }
    save_file(low, to / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": alpha, **settings}
    (to / "adapter_config.json").write_text(json.dumps(config))
    return to


def _merge(adapter: Path, scale: float) -> Callable[[Tensors], None]:
    low = load_file(adapter / "adapter_model.safetensors")
    (a,) = (it for name, it in low.items() if "lora_A" in name)
    (b,) = (it for name, it in low.items() if "lora_B" in name)

    def change(tensors: Tensors) -> None:
        name = "model.layers.0.self_attn.q_proj.weight"
        tensors[name] = (tensors[name].double() + scale * (b.double() @ a.double())).bfloat16()

    return change


@pytest.mark.parametrize(("settings", "scale"), [({}, 4.0), ({"use_rslora": True}, 8 / 2**0.5)])
def test_a_merged_adapter(
    settings: dict[str, object], scale: float, folder: Path, tmp_path: Path
) -> None:
    adapter = _adapter(tmp_path / "adapter", 8.0, 1e-2, **settings)
    (found,) = merged(folder, adapter, _other(folder, tmp_path / "b", _merge(adapter, scale)))
    assert found.name == "model.layers.0.self_attn.q_proj.weight"
    assert found.as_rounded == 1.0
    assert 0 < found.lost < 0.1
    (wrong,) = merged(folder, adapter, _other(folder, tmp_path / "c", _merge(adapter, 2 * scale)))
    assert wrong.as_rounded < 0.1
    assert wrong.lost == pytest.approx(1.0, abs=0.05)


def test_an_update_below_the_grid_is_lost(folder: Path, tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "adapter", 2.0, 1e-5)
    (found,) = merged(folder, adapter, _other(folder, tmp_path / "b", _merge(adapter, 1.0)))
    assert (found.as_rounded, found.unmoved > 0.9, found.lost > 0.9) == (1.0, True, True)
    (none,) = merged(folder, adapter, folder)
    assert none.unmoved == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "is of no LoRA adapter"),
        ({"r": 0}, "is of no LoRA adapter"),
        ({"lora_alpha": None}, "has no lora_alpha"),
        ({"use_dora": True}, "use_dora is not supported"),
    ],
)
def test_an_adapter_that_is_none(
    settings: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    adapter = _adapter(tmp_path / "adapter", 8.0, 1e-2)
    config = json.loads((adapter / "adapter_config.json").read_text()) | settings
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=message):
        merged(folder, adapter, folder)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = _other(folder, tmp_path / "b", _one_bit)
    assert main(["weights", str(folder), str(other)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT: 1 of 21 tensors" in out
    assert f"2   {NORM}" in out
    assert main(["weights", str(folder), str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "equal"
    adapter = _adapter(tmp_path / "adapter", 8.0, 1e-2)
    assert main(["weights", str(folder), str(other), "--adapter", str(adapter)]) == 1
    assert "lost of the update" in capsys.readouterr().out
    for wrong, message in ((tmp_path / "no", "is no folder"), (tmp_path, "has no *.safetensors")):
        assert main(["weights", str(folder), str(wrong)]) == 2
        assert message in capsys.readouterr().err
    (other / "model.safetensors").write_bytes(b"torn")
    assert main(["weights", str(folder), str(other)]) == 2
    assert "is no whole safetensors file" in capsys.readouterr().err
