"""What a document says of the machine is one typed value."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

from kvparity.core.environment import CudaEnvironment, Environment, environment

ON_CUDA = {"capability", "cuda"}


def test_the_document_has_the_fields_of_the_model_and_reads_back_as_the_same_value() -> None:
    found = environment(torch.device("cpu"))
    document = json.loads(json.dumps(found.document()))
    assert document.keys() == Environment.model_fields.keys()
    assert document["versions"]["torch"] == torch.__version__
    assert document["tf32"]["matmul"] is torch.backends.cuda.matmul.allow_tf32
    assert Environment.model_validate(document) == found


def test_a_cuda_device_adds_its_capability_and_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a stand-in")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = environment(torch.device("cuda"))
    assert isinstance(found, CudaEnvironment)
    document = found.document()
    assert document.keys() == Environment.model_fields.keys() | ON_CUDA
    assert [document[name] for name in ("capability", "cuda", "device_name")] == [
        [9, 0], "13.0", "a stand-in",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"threads": "1"}, {"triton_mode": "both"}, {"tf32": {}}, {"more": 1}]
)
def test_an_environment_of_other_values_is_refused(change: dict[str, object]) -> None:
    document = environment(torch.device("cpu")).document()
    with pytest.raises(ValidationError, match=next(iter(change))):
        Environment.model_validate(document | change)


def test_an_environment_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        environment(torch.device("cpu")).threads = 2  # type: ignore[misc] # what is tested
