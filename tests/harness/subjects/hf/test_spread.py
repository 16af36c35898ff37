"""Models that a contract spreads over devices: what is refused, and what is read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import nn
from toy_verification import BITS, verify

from kvparity.core.errors import UnsupportedError
from kvparity.subjects.hf import spread
from kvparity.subjects.hf.subject import TransformersSubject, build
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


def test_a_tied_weight_counts_for_every_module_that_has_it() -> None:
    model = Two()
    model.layers[1].weight = model.layers[0].weight
    given = {"": "cpu", "layers.0": "cpu", "layers.1": "cuda:1"}
    assert spread.lying(model, given) == {"": "cpu", "layers.0": "cpu", "layers.1": "cpu"}
    assert spread.wanted(model, given, CPU)["layers.1"] == "cuda:1"


def test_what_is_wanted_has_its_number_and_holds_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    given = {"": "cuda", "layers": "cuda:1", "layers.0": "cpu", "layers.1": "cpu"}
    # Its layers have every tensor of "layers", so nothing can lie elsewhere there.
    wanted = {"": "cuda:3", "layers.0": "cpu", "layers.1": "cpu"}
    assert spread.wanted(Two(), given, CPU) == wanted
    assert spread.wanted(Two(), None, torch.device("cuda")) == {"": "cuda:3"}
    assert spread.wanted(Two(), None, CPU) == {"": "cpu"}


def built(device_map: dict[str, str] | None) -> TransformersSubject:
    model = Transformers(
        kind="transformers", config=CONFIG, attention="eager", device_map=device_map
    )
    return build(model, execution="float32", kv_cache="float32", device=CPU, seed=0, base=Path())


def test_a_model_that_is_spread_over_one_device_is_the_same_model() -> None:
    alone, spread_out = built(None).describe(), built({"": "cpu", "lm_head": "cpu"}).describe()
    for where in ("requested", "used"):
        assert spread_out[where].pop("devices") == {"": "cpu", "lm_head": "cpu"}
        assert alone[where].pop("devices") == {"": "cpu"}
    assert alone == spread_out
    with pytest.raises(UnsupportedError, match="no CUDA device"):
        built({"": "cuda:0"})


def offloaded(place: str, folder: Path) -> Callable[..., Any]:
    """A ``spread`` that leaves the head on the CPU or the disk, and loads it when it is called."""

    def planted(model: Any, places: dict[str, torch.device]) -> Any:
        if place == "disk":
            accelerate.disk_offload(model.lm_head, str(folder), execution_device=CPU)
        else:
            accelerate.cpu_offload(model.lm_head, execution_device=CPU)
        return model

    return planted


@pytest.mark.parametrize("place", ["cpu", "disk", "as asked"])
def test_a_module_that_lies_elsewhere_makes_the_run_void(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bits are equal, and the head never lay where the contract puts it."""
    if place != "as asked":
        monkeypatch.setattr(spread, "spread", offloaded(place, tmp_path / "weights"))
    report = verify(
        tmp_path,
        monkeypatch,
        factory=build,
        subject={
            "kind": "transformers", "config": CONFIG | {"vocab_size": 256}, "attention": "eager",
            "invariant": True, "device_map": {"": "cpu", "lm_head": "cpu"},
        },
        workloads=[{"name": "short", "prompt_tokens": [3], "generate": 2}],
        checks=[BITS | {"paths": ["decode"]}],
        controls=["position-off-by-one"],
    )  # fmt: skip
    ((verdict, reason),) = [(each["verdict"], each["reason"]) for each in report["checks"]]
    if place == "as asked":
        assert (report["verdict"], verdict) == ("holds", "holds")
        return
    assert (report["verdict"], verdict) == ("void", "void")
    assert reason == "devices['lm_head'] 'cpu' was asked for, but 'meta' was used"
    assert report["subject"]["weights"] is None
