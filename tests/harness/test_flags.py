"""Every switch that is followed is seen when it is turned, and put back."""

from __future__ import annotations

import pytest

from kvparity import flags


@pytest.mark.parametrize("flag", flags.FLAGS, ids=lambda flag: flag.name)
def test_a_turned_switch_is_told_and_put_back(flag: flags.Flag) -> None:
    before = flags.read()
    assert flags.turned(before) is None
    try:
        flag.write(not before[flag.name])
        assert flags.turned(before) == f"torch's {flag.name} is {not before[flag.name]}"
    finally:
        flags.put_back(before)
    assert flags.turned(before) is None
