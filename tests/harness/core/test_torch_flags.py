"""Every switch that is followed is seen when it is turned, and put back."""

from __future__ import annotations

import pytest

from kvparity.core import torch_flags


@pytest.mark.parametrize("flag", torch_flags.FLAGS, ids=lambda flag: flag.name)
def test_a_turned_switch_is_told_and_put_back(flag: torch_flags.Flag) -> None:
    before = torch_flags.read()
    assert torch_flags.turned(before) is None
    try:
        flag.write(not before[flag.name])
        assert torch_flags.turned(before) == f"torch's {flag.name} is {not before[flag.name]}"
    finally:
        torch_flags.put_back(before)
    assert torch_flags.turned(before) is None
