"""A contract's trace as a command gives it: text, JSON values and files."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kvparity.core import doing
from kvparity.core.environment import EnvironmentDocument, environment, settle
from kvparity.core.versions import lines as outside_line
from kvparity.plan.kernel_cases import KernelNumerics, all_numerics
from kvparity.plan.texts import given
from kvparity.record.path_run import Setting
from kvparity.relations.trace.lines import Line
from kvparity.relations.trace.picture import draw
from kvparity.relations.trace.table import render
from kvparity.relations.trace.tracing import Trace, trace_side
from kvparity.run.unit import Runner
from kvparity.run.worker import Job, still_settled, subject_of
from kvparity_contracts.contract import Contract
from kvparity_contracts.idling import why_idle
from kvparity_contracts.loader import LoadedContract
from kvparity_contracts.paths import UNTOLD, PathName

SCHEMA_VERSION = 1
DECODE = PathName("decode")


@dataclass(frozen=True)
class Traced:
    """One trace with what it was made of; ``lines`` are those to show, the verdict is of all."""

    contract: dict[str, str]
    workload: str
    numerics: KernelNumerics
    trace: Trace
    lines: tuple[Line, ...]
    environment: EnvironmentDocument

    @property
    def verdict(self) -> str:
        """holds, differs or void."""
        return self.trace.judgement.outcome

    def text(self) -> str:
        """What a person reads first."""
        found = self.trace.judgement
        head = (
            f"{self.contract['name']}: {self.verdict.upper()}, path {self.trace.path} over "
            f"{self.workload}, {self.numerics}, on {self.environment['device']}"
        )
        head = "\n".join([head, *outside_line(self.environment)])
        return f"{head}\n  {found.reason}\n{render(self.lines, found)}"

    def json(self) -> dict[str, object]:
        """The document."""
        found = self.trace.judgement
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": found.outcome,
            "reason": found.reason,
            "contract": self.contract,
            "workload": self.workload,
            "path": self.trace.path,
            "numerics": asdict(self.numerics),
            "environment": self.environment,
            "broken": [each.document() for each in found.broken],
            "judged": found.said,
            "lines": [line.json() for line in self.lines],
        }

    def write(self, folder: Path) -> None:
        """``trace.jsonl``, a line for each row, and ``trace.svg`` of the first sequence shown."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "trace.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(each.json(), allow_nan=False)}\n" for each in self.lines)
        (folder / "trace.svg").write_text(self.picture(), encoding="utf-8")

    def picture(self) -> str:
        """The first sequence shown, after its last reset."""
        if not self.lines:
            return draw(f"{self.contract['name']}: no row was reported", ())
        name, life = self.lines[0].name, max(line.life for line in self.lines)
        own = [line for line in self.lines if line.name == name and line.life == life]
        places = {(line.step, line.place) for line in own}
        broken = [
            each.place
            for each in self.trace.judgement.broken
            if each.sequence == name and (each.step, each.place) in places
        ]
        title = f"{self.contract['name']}, {self.trace.path} over {self.workload}: {name}"
        return draw(title, own, broken)


def trace_contract(
    loaded: LoadedContract,
    device: str,
    *,
    workload: str | None = None,
    path: str = "decode",
    sequence: int | None = None,
) -> Traced:
    """Trace ``path`` over a workload of a contract, in its first numerics.

    Raises:
        ValueError: no such workload, path or sequence; the message says what there is.
        UnsupportedError, SubjectError: the subject cannot do the path, or failed.
    """
    contract = given(loaded).loaded.contract
    name = _workload(contract, workload)
    wanted = PathName.parse(path)
    if wanted.kind == "padded":
        raise ValueError("--path padded: expected one path, padded-left or padded-right")
    if wanted.kind in UNTOLD:
        raise ValueError(
            f"--path {wanted}: what its layers look at cannot be reported; expected a path of the "
            "subject's own steps, such as decode"
        )
    settle()
    numerics = all_numerics(contract)[0]
    base = Path(loaded.path).resolve().parent
    setting = Setting(contract, subject_of(Job(contract, base, device, base), numerics))
    plans = setting.plans(name)
    prompts = plans.prompts
    if sequence is not None and not 0 <= sequence < len(prompts.ids):
        raise ValueError(
            f"--sequence {sequence}: workload {name} has sequences 0 to {len(prompts.ids) - 1}"
        )
    idle = why_idle(wanted, next(each for each in contract.workloads if each.name == name))
    if idle is not None:
        raise ValueError(f"--path {wanted} over {name}: {idle}")
    doing.task(f"trace of {wanted} over {name}")
    runner = Runner(setting, plans, None)
    if wanted == DECODE and setting.subject.vocab:  # the rollout itself
        runner.tokens = [list(prompt) for prompt in prompts.prompts]
        trace = trace_side(runner.side(wanted), choose=runner.choosing())
    else:
        runner.rollout(DECODE)
        trace = trace_side(runner.side(wanted))
    still_settled(f"path {wanted}")
    return Traced(
        contract={"name": contract.name, "path": str(loaded.path), "sha256": loaded.sha256},
        workload=name,
        numerics=numerics,
        trace=trace,
        lines=tuple(x for x in trace.lines if sequence is None or x.sequence == sequence),
        environment=environment(torch.device(device), numerics.device).document(),
    )


def _workload(contract: Contract, name: str | None) -> str:
    names = [each.name for each in contract.workloads]
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(f"--workload {name}: the contract has {', '.join(names)}")
    return name
