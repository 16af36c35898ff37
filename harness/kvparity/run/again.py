"""A path of a case or control, run in this process: what other processes must give, too."""

from __future__ import annotations

import os
import socket

import torch

from kvparity.controls.table import planting
from kvparity.core import doing
from kvparity.core.environment import device_name, versions
from kvparity.core.errors import UnsupportedError
from kvparity.core.values import Json
from kvparity.plan.cases import Case, ControlRun
from kvparity.record.execute import Record, Tokens
from kvparity.record.path_run import PathRun, Setting
from kvparity.relations.bits_and_limits import other_work
from kvparity.relations.reproduction import RunPlace
from kvparity.report.case_line import case_words
from kvparity.report.lines import AgainRows
from kvparity.report.run_dir import Evidence
from kvparity.run.control_run import part, sides
from kvparity.run.options import NODE
from kvparity.run.recheck.rows import rows_of
from kvparity.run.worker import Job, ended, guarded, subject_of, telling
from kvparity_contracts.controls import CONTROLS


def do_again(job: Job, asked: Case | ControlRun, tokens: Tokens, runs: int) -> Json:
    """Run a path ``runs`` times, and say where, and what it gave each time.

    Raises:
        SubjectError: the subject failed.
    """
    setting = Setting(job.contract, subject_of(job, asked.numerics))
    name = name_of(asked)
    doing.task(f"{_words(asked)}, in process {os.getpid()}")
    found = AgainRows(name=name, place=_place(setting.subject.device))
    with telling(Evidence(job.folder), name):
        if isinstance(asked, Case):
            return _ran(found, guarded(lambda: _records(setting, asked, tokens, runs)))
        try:
            return _ran(found, guarded(lambda: _records(setting, asked, tokens, runs)))
        except UnsupportedError as error:
            return found.model_copy(update={"unplanted": str(error)}).document()
        except Exception as error:  # no control ends a run
            return found.model_copy(update={"ended": ended(error)}).document()


def name_of(asked: Case | ControlRun) -> str:
    """What it is called."""
    return asked.id if isinstance(asked, Case) else asked.control


def _words(asked: Case | ControlRun) -> str:
    if isinstance(asked, Case):
        return case_words(asked)
    return f"control {asked.control} of relation {asked.relation} over {asked.workload}"


def _records(setting: Setting, asked: Case | ControlRun, tokens: Tokens, runs: int) -> list[Record]:
    side = _side(setting, asked, tokens)
    return [side.run() for _ in range(runs)]


def _ran(found: AgainRows, records: list[Record]) -> Json:
    more = {
        "rows": tuple(rows_of(record, record.index) for record in records),
        "unfinite": int((~records[0].finite).sum()),
        "idle": other_work("path", records[0]),
    }
    return found.model_copy(update=more).document()


def _side(setting: Setting, asked: Case | ControlRun, tokens: Tokens) -> PathRun:
    if isinstance(asked, Case):
        plans = setting.plans(asked.workload)
        return PathRun(setting, setting.subject, plans, asked.path, tokens)
    control = CONTROLS[asked.control]
    plans, own = part(setting, asked, tokens)
    return sides(setting, control, planting(control), plans, own, asked.reference)[1]


def _place(device: torch.device) -> RunPlace:
    cuda = device.type == "cuda"
    uuid = str(torch.cuda.get_device_properties(device).uuid) if cuda else None
    node = os.environ.get(NODE) or socket.gethostname()
    return RunPlace(
        node=node, process=os.getpid(), device=device_name(device), uuid=uuid, versions=versions()
    )
