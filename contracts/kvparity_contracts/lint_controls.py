"""What the linter says of controls: which are left out or cannot be planted, and why."""

from __future__ import annotations

from collections.abc import Iterator

from kvparity_contracts.base import KeyPath
from kvparity_contracts.contract import Contract
from kvparity_contracts.needs import needs
from kvparity_contracts.placing import takes
from kvparity_contracts.planning import LeftOut, fates, meant, meant_for, planned, possible, shows

Note = tuple[KeyPath, str]


def named(contract: Contract) -> Iterator[Note]:
    """Controls that cannot be planted, or show little."""
    if contract.controls == "all":
        groups: dict[str, list[str]] = {}
        for control in meant(contract):
            if not shows(control, contract):
                groups.setdefault(takes(control, contract), []).append(control.name)
        if groups:  # one line for all: nobody reads twenty
            texts = [f"{', '.join(names)} ({needs})" for needs, names in groups.items()]
            told = "; ".join(texts)
            yield (
                ("controls",),
                f"left out, because they cannot show here without what they need: {told}",
            )
        return
    for fate in fates(contract):
        at = ("controls", contract.controls.index(fate.control.name))
        if isinstance(fate, LeftOut):
            reason = fate.reason.removeprefix("cannot be planted ").removeprefix("in ")
            yield at, f"{fate.control.name} cannot be planted: {reason}"
        elif not possible(fate.control, contract):
            yield at, f"{fate.control.name} may not show here: it needs {needs(fate.control)}"
        elif not any(meant_for(fate.control, check, contract) for check in contract.checks):
            yield (
                at,
                f"{fate.control.name} is planted on {fate.control.path}, which no check of this "
                f"contract compares; it is meant for {needs(fate.control)}",
            )


def uncontrolled(contract: Contract) -> Iterator[Note]:
    """Checks that no control is meant for."""
    controls = planned(contract)
    for i, check in enumerate(contract.checks):
        if not any(meant_for(control, check, contract) for control in controls):
            yield ("checks", i, "name"), "no control of this contract is meant for this check"
