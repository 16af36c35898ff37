"""Models that a contract spreads over devices: what is refused, and what is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.hf import spread
from kvparity.subjects.registry import factory
from kvparity_contracts.subjects import Transformers

CPU, FIRST = torch.device("cpu"), torch.device("cuda:0")
CONFIG = {
    "model_type": "llama", "vocab_size": 16, "hidden_size": 8, "intermediate_size": 8,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip


class Two(nn.Module):
    """A layer and a head, and a buffer beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        self.head = nn.Linear(2, 3)
        self.register_buffer("angles", torch.zeros(2))


@pytest.mark.parametrize(
    ("given", "there", "device", "words"),
    [
        ({"": "cuda:0"}, 0, CPU,
         "device_map puts the model on cuda:0, and this machine has no CUDA device"),
        ({"": "cuda:0", "head": "cuda:2"}, 2, FIRST,
         "device_map puts head on cuda:2; there are 2, from cuda:0 on"),
        ({"head": "cuda:0"}, 1, CPU,
         "device_map puts head on cuda:0, and the run is on cpu: ask for --device cuda:0"),
        ({"head": "cpu"}, 1, FIRST,
         "device_map puts head on cpu, and the run is on cuda:0: ask for --device cpu"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    there: int,
    device: torch.device,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(UnsupportedError) as caught:
        spread.devices(given, device)
    assert str(caught.value) == words


def test_devices_that_are_there_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    given = {"": "cuda", "head": "cuda:1"}
    found = spread.devices(given, FIRST)
    assert found == {"": torch.device("cuda"), "head": torch.device("cuda:1")}
    assert spread.devices(None, CPU) == {"": CPU}


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({"": CPU, "haed": CPU}, "device_map names 'haed', which is no module; did you mean head?"),
        ({"layers.0": CPU, "head": CPU}, "device_map leaves out layers.1.weight: name its module"),
    ],
)
def test_names_that_do_not_fit_are_refused(places: dict[str, torch.device], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        spread.spread(Two(), places)


def test_where_modules_lie_is_read_back() -> None:
    model = Two()
    model.layers[1].to("meta")
    given = {"": "cpu", "layers": "cpu", "layers.1": "cpu"}
    assert spread.lying(model, given) == {"": "cpu", "layers": "cpu", "layers.1": "meta"}
    assert spread.lying(model, None) == {"": "cpu, meta"}


def built(device_map: dict[str, str] | None) -> object:
    model = Transformers(
        kind="transformers", config=CONFIG, attention="eager", device_map=device_map
    )
    return factory("transformers")(
        model, execution="float32", kv_cache="float32", device=CPU, seed=0, base=Path()
    )


def test_a_model_that_is_spread_over_one_device_is_the_same_model() -> None:
    alone, spread_out = built(None).describe(), built({"": "cpu", "lm_head": "cpu"}).describe()
    assert spread_out.pop("devices") == {"": "cpu", "lm_head": "cpu"}
    assert alone.pop("devices") == {"": "cpu"}
    assert alone == spread_out
    with pytest.raises(UnsupportedError, match="no CUDA device"):
        built({"": "cuda:0"})
