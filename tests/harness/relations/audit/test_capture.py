"""What is captured of a launch, and what makes two launches one binary."""

from __future__ import annotations

import pytest
import torch

from kvparity.relations.audit.capture import Argument, Launch, captured
from kvparity_kernels import launch as launcher
from kvparity_kernels.launch import Kernel

KERNEL = Kernel(
    "home.k",
    "the function",
    parameters=("A", "B", "n", "x", "SIZE"),
    constexprs=frozenset({"SIZE"}),
    pointers=frozenset({"A", "B"}),
    scalars=frozenset({"n", "x"}),
    unaligned=frozenset(),
)
FLOATS = torch.empty(4, device="meta")
GIVEN: dict[str, Argument] = {"A": FLOATS, "B": None, "n": 3, "x": 1.0, "SIZE": 16}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"n": 4, "x": 2.0}, True),
        ({"A": torch.empty(9, device="meta")}, True),
        ({"n": 3.0}, False),
        ({"x": 1}, False),
        ({"A": FLOATS.half()}, False),
        ({"B": FLOATS}, False),
        ({"SIZE": 32}, False),
        ({"num_warps": 8}, False),
    ],
)
def test_a_form_is_what_decides_the_binary(changed: dict[str, Argument], same: bool) -> None:
    given = {**GIVEN, "num_warps": 4}
    form = Launch(KERNEL, given).form
    assert form[0] == "home.k"
    assert (Launch(KERNEL, given | changed).form == form) == same


def test_a_launch_is_noted_with_its_options_and_not_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launcher, "MODE", "compiled")
    before = (launcher.launch, torch.cuda.device)
    with captured() as seen:
        launcher.launch(KERNEL, (2, 1), FLOATS, None, n=3, x=1.0, SIZE=16, num_warps=2)
        launcher.launch(KERNEL, (0,), **GIVEN)  # nothing to launch
        with pytest.raises(TypeError, match="missing or unknown: SIZE"):
            launcher.launch(KERNEL, (2,), FLOATS, None, 3, 1.0)
    options = {"num_warps": 2, "num_stages": 2, "enable_fp_fusion": False}
    assert seen == [Launch(KERNEL, {**GIVEN, **options})]
    assert (launcher.launch, torch.cuda.device) == before
