"""``kvparity doctor``: what is here, what can run, what will be used."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.cli.device import settle
from kvparity.core import versions
from kvparity.core.exit_codes import ExitCode


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="what is here, what can run, what will be used",
        description="Look at this machine, try every kind of subject once, and say "
        "what works and with which versions.",
    )
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exit 0 if ``verify`` can run here, 3 if not."""
    found = examine(args.device)
    say.result(args, found, _text(found), beside=False)
    return ExitCode.HOLDS if found["ready"] else ExitCode.ERROR


def examine(asked: str | None) -> dict[str, Any]:
    """Everything the report says, as JSON values. Does one tiny thing with each kind of subject."""
    try:
        import torch

        device = settle(asked)
    except (ImportError, ValueError) as error:
        return {"ready": False, "problem": str(error)}
    from kvparity.core.environment import environment
    from kvparity.core.environment import settle as settle_process
    from kvparity.tiles.force import describe
    from kvparity_kernels.rules import RulesError

    settle_process()

    found: dict[str, Any] = environment(torch.device(device)).document()
    found["tested"] = {library: str(tested) for library, tested in versions.TESTED.items()}
    try:
        found["tiles"] = describe(torch.device(device))
    except RulesError as error:
        return found | {"ready": False, "problem": str(error)}
    from kvparity.run.trials import tried

    trials = tried(torch.device(device))
    problems = [trial.problem for trial in trials.values() if trial.problem]
    found["problem"] = "; ".join(problems) or None
    found["ready"] = not problems
    found["subjects"] = {name: str(trial) for name, trial in trials.items()}
    found["trials"] = {name: asdict(trial) for name, trial in trials.items()}
    return found


def _text(found: dict[str, Any]) -> str:
    if "tiles" not in found:
        return f"NOT READY: {found['problem']}"
    lines = ["ready" if found["ready"] else f"NOT READY: {found['problem']}"]
    lines.append(f"  device       {found['device']}: {found['device_name']}")
    how = "interpreted (algorithm only)" if found["triton_mode"] == "interpreter" else "compiled"
    lines.append(f"  kernels      {how}")
    tiles = found["tiles"]
    lines.append(f"  architecture {tiles['arch'] or 'none'}, Triton {tiles['triton']}")
    lines.append(f"  tiles        {tiles['words']}")
    lines.append(f"  platform     {found['platform']}")
    for name, version in {"python": found["python"], **found["versions"]}.items():
        tested = found["tested"].get(name)
        beside = f"  (tested: {tested})" if tested else ""
        lines.append(f"  {name:<20} {version or 'not installed':<14}{beside}".rstrip())
    lines += versions.lines(found)
    for name, words in found["subjects"].items():
        lines.append(f"  try {name:<16} {words}")
    tf32 = found["tf32"]
    lines.append(f"  TF32         matmul {tf32['matmul']}, cudnn {tf32['cudnn']}")
    for name, value in found["variables"].items():
        lines.append(f"  {name}={value}")
    return "\n".join(lines)
