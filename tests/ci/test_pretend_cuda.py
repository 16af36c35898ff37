"""The pretended device behaves as one where it matters: where tensors are, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretend_cuda import is_there, pretended


@pytest.fixture
def device():
    with pretended((8, 0)) as opened:
        yield opened


def test_tensors_are_where_they_were_asked_to_be(device):
    x = torch.zeros(3, 4, device="cuda")
    there = (x, x + 1, x[0], x.T, x.double(), torch.zeros_like(x), torch.ones(2).to(x.device),
             torch.ones(2).cuda(), torch.ones(2).to(x), x.new_zeros(2), x.max(0).values,
             torch.full((2,), 1.0, device=torch.device("cuda")), torch.stack([x, x]),
             torch.nn.Linear(2, 2).to("cuda").weight)  # fmt: skip
    for each in there:
        assert (each.device, each.is_cuda) == (torch.device("cuda", 0), True)
    here = torch.zeros(4)
    here.copy_(x[0])
    for each in (here, x.cpu(), x.to("cpu"), torch.ones(2), torch.arange(3)):
        assert (each.device, each.is_cuda) == (torch.device("cpu"), False)
    assert x.to("meta").device.type == "meta"
    assert torch.cuda.get_device_capability() == (8, 0)


def test_tensors_of_two_devices_do_not_mix(device):
    x = torch.zeros(4, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(4)
    assert is_there(x + torch.tensor(1.0))  # a number may
    assert is_there(x[torch.tensor([0, 1])])  # and so may indices


def test_numpy_gets_no_tensor_of_the_device(device):
    x = torch.zeros(4, device="cuda")
    for read in (x.numpy, lambda: np.asarray(x)):
        with pytest.raises(TypeError, match="numpy"):
            read()
    assert x.cpu().numpy().tolist() == [0, 0, 0, 0]


def test_a_captured_graph_cannot_be_asked_for_a_number(device):
    x = torch.zeros(4, device="cuda")
    assert x.sum().item() == 0
    with torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="capturing"):
        x.sum().item()


def test_nothing_is_left_of_it():
    before = torch.cuda.is_available()
    with pretended():
        assert torch.cuda.is_available()
    assert torch.cuda.is_available() == before
    assert isinstance(torch.Generator(), torch._C.Generator)
