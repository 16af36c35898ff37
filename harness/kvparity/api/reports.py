"""A report for people who hold it in Python: what it says, as values, text, a table and HTML."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.plan.results import CaseLine, ControlLine, Outcome
from kvparity.report.advice import ADVICE, WHERE
from kvparity.report.document import CheckOfRun, RunReport
from kvparity.report.page.render import brief
from kvparity.report.terminal import render

if TYPE_CHECKING:
    from pandas import DataFrame

ONCE = (
    "no replay and no kvparity locate: only this process has these functions; both work for "
    "functions of a module (no notebook, no script, no function within a function)"
)
_COLUMNS = (
    "id",
    "check",
    "relation",
    "workload",
    "reference",
    "path",
    "dtype",
    "kv_cache",
    "temperature",
    "verdict",
    "reason",
    "tokens",
    "differing_tokens",
    "differing_rows",
    "max_ulp",
    "max_abs",
    "max_abs_dlogp",
    "approx_kl0",
    "clipfrac0",
)


@dataclass(frozen=True, repr=False)
class Report:
    """What a run came to. ``run`` is all of ``run.json``, as typed values.

    A report has no truth value: ask for :attr:`holds`, because ``void`` is neither yes nor no.
    ``again``: whether ``kvparity replay`` can run a case again; not of functions that only this
    process has.
    """

    run: RunReport
    again: bool = True

    @property
    def verdict(self) -> Outcome:
        """``holds``, ``differs``, ``void`` or ``error``: the worst of the checks."""
        return self.run.verdict

    @property
    def holds(self) -> bool:
        """Whether everything was verified, and held."""
        return self.verdict == "holds"

    @property
    def checks(self) -> tuple[CheckOfRun, ...]:
        """The checks, in the order of the contract, each with its cases."""
        return self.run.checks

    @property
    def cases(self) -> tuple[CaseLine, ...]:
        """The cases of all checks."""
        return tuple(case for check in self.checks for case in check.cases)

    @property
    def controls(self) -> tuple[ControlLine, ...]:
        """The planted defects, and whether each was caught."""
        return self.run.controls

    @property
    def run_dir(self) -> Path:
        """The folder with the evidence."""
        return Path(self.run.run_dir)

    def first_difference(self) -> CaseLine | None:
        """The first case that differs; its ``first_divergence`` says where bits part."""
        return next((case for case in self.cases if case.verdict == "differs"), None)

    def frame(self) -> DataFrame:
        """One row for each case, as a pandas table.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("Report.frame needs pandas; install it, or use .cases") from error
        return DataFrame([{name: getattr(case, name) for name in _COLUMNS} for case in self.cases])

    def __bool__(self) -> bool:
        """Raises TypeError: of four verdicts only one is a yes, and code should say which."""
        raise TypeError("a report has no truth value; ask for .holds or .verdict")

    def __str__(self) -> str:
        """The report as ``kvparity verify`` prints it."""
        text = render(self.run)
        if self.again:
            return text.rstrip("\n")
        lines = [each for each in text.splitlines() if not each.startswith((ADVICE, WHERE))]
        return "\n".join([*lines, "", ONCE] if self.verdict == "differs" else lines)

    def __repr__(self) -> str:
        """The same: it is what a notebook or a failing assertion shows."""
        return str(self)

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, a row for each check and each case, the text to unfold."""
        return brief(self.run, str(self))
