"""``kvparity doctor``: what is installed here, what can run, and what will be used."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from kvparity.cli import say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.core import versions
from kvparity.core.exit_codes import ExitCode
from kvparity.run.device import settle

if TYPE_CHECKING:
    from kvparity.core.environment import Environment
    from kvparity.run.trials import Tried
    from kvparity.tiles.force import TilesInForce


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="show what is installed here, what can run, and what will be used",
        description="Look at this machine, try every kind of subject once, and say "
        "what works and with which versions.",
    )
    add_device(parser)
    add_json(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Examination:
    """What was found here; what a ``problem`` leaves unknown is None or empty."""

    problem: str | None
    environment: Environment | None = None
    tiles: TilesInForce | None = None
    trials: Mapping[str, Tried] = field(default_factory=dict)

    def document(self) -> dict[str, object]:
        """As JSON values."""
        found: dict[str, object] = {}
        if self.environment is not None:
            found |= self.environment.document()
            found["tested"] = _tested()
        if self.tiles is not None:
            found["tiles"] = self.tiles
        found |= {"problem": self.problem, "ready": self.problem is None}
        if self.trials:
            found["subjects"] = {name: str(trial) for name, trial in self.trials.items()}
            found["trials"] = {name: asdict(trial) for name, trial in self.trials.items()}
        return found

    def text(self) -> str:
        """For a terminal."""
        found, tiles = self.environment, self.tiles
        head = "ready" if self.problem is None else f"NOT READY: {self.problem}"
        if found is None or tiles is None:
            return head
        interpreted = found.triton_mode == "interpreter"
        lines = [
            head,
            f"  device       {found.device}: {found.device_name}",
            f"  kernels      {'interpreted (algorithm only)' if interpreted else 'compiled'}",
            f"  architecture {tiles['arch'] or 'none'}, Triton {tiles['triton']}",
            f"  tiles        {tiles['words']}",
            f"  platform     {found.platform}",
        ]
        for name, version in ({"python": found.python} | found.versions).items():
            tested = _tested().get(name)
            beside = f"  (tested: {tested})" if tested else ""
            lines.append(f"  {name:<20} {version or 'not installed':<14}{beside}".rstrip())
        lines += versions.lines(found.document())
        lines += [f"  try {name:<16} {trial}" for name, trial in self.trials.items()]
        lines.append(f"  TF32         matmul {found.tf32.matmul}, cudnn {found.tf32.cudnn}")
        lines += [f"  {name}={value}" for name, value in found.variables.items()]
        return "\n".join(lines)


def _tested() -> dict[str, str]:
    return {library: str(tested) for library, tested in versions.TESTED.items()}


def run(args: argparse.Namespace) -> int:
    """Exit 0 if ``verify`` can run here, 3 if not."""
    found = examine(args.device)
    say.result(args, found.document(), found.text(), beside=False)
    return ExitCode.HOLDS if found.problem is None else ExitCode.ERROR


def examine(asked: str | None) -> Examination:
    """Look at this machine, and do one tiny thing with each kind of subject."""
    try:
        import torch

        device = torch.device(settle(asked))
    except (ImportError, ValueError) as error:
        return Examination(str(error))
    from kvparity.core.environment import environment
    from kvparity.core.environment import settle as settle_process
    from kvparity.tiles.force import describe
    from kvparity_kernels.rules import RulesError

    settle_process()
    found = environment(device)
    try:
        tiles = describe(device)
    except RulesError as error:
        return Examination(str(error), found)
    from kvparity.run.trials import tried

    trials = tried(device)
    problems = [trial.problem for trial in trials.values() if trial.problem]
    return Examination("; ".join(problems) or None, found, tiles, trials)
