"""``kvparity contract``: check contract files, print their schema, list the library.

Answers at once: imports neither torch nor triton.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kvparity.cli import contract_new, contract_views, say
from kvparity.cli.arguments import Verbs
from kvparity_contracts import (
    ContractError,
    LintFinding,
    find,
    json_schema,
    library,
    lint,
    load,
    sweep_file,
)
from kvparity_contracts.files import load_whole
from kvparity_contracts.linter import told
from kvparity_contracts.problems import Problem

VALID, INVALID = 0, 2

EXAMPLES = """\
examples:
  kvparity contract lint smoke               a contract of the library
  kvparity contract lint mine.yaml --strict  warnings count as errors
  kvparity contract explain smoke            what a run would do
  kvparity contract diff old.yaml new.yaml   what a change means
  kvparity contract schema > contract.schema.json
"""


def add_parser(top: Verbs) -> None:
    """Add the verb with its own verbs; each sets ``run`` to a function of the arguments."""
    verb = top.add_parser(
        "contract",
        help="write, check, explain and compare contract files",
        description="Write, check, explain and compare contract files; list the library.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = verb.add_subparsers(dest="contract_verb", required=True, metavar="VERB")

    check = verbs.add_parser(
        "lint",
        help="check contract files",
        description="Exit 0: all valid. Exit 2: one is not, or has warnings and --strict.",
    )
    check.add_argument("contracts", nargs="+", metavar="CONTRACT", help="a file or a library name")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    check.add_argument("--strict", action="store_true", help="warnings count as errors")
    check.set_defaults(run=run_lint)

    schema = verbs.add_parser(
        "schema", help="print the JSON schema of contracts, or of sweeps, for editors"
    )
    schema.add_argument("--sweep", action="store_true", help="that of sweeps")
    schema.set_defaults(run=run_schema)

    names = verbs.add_parser("list", help="list the contracts that come with kvparity")
    names.add_argument("--json", action="store_true", help="print one JSON document")
    names.set_defaults(run=run_list)

    new = verbs.add_parser(
        "new",
        help="write a contract for a pair of kernels, a checkpoint or a server",
        description="Write a contract. What no option says is asked on a terminal.",
        epilog=contract_new.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    contract_new.add_options(new)

    one = "a file or a library name"
    show = verbs.add_parser("show", help="print the text of a contract")
    show.add_argument("contract", metavar="CONTRACT", help=one)
    show.set_defaults(run=contract_views.run_show)

    told = verbs.add_parser("explain", help="say what a run would do, without running it")
    told.add_argument("contract", metavar="CONTRACT", help=one)
    told.set_defaults(run=contract_views.run_explain)

    diff = verbs.add_parser(
        "diff",
        help="say what a change of a contract means",
        description="Exit 0: the new contract claims as much as the old one, or more. Exit 1: "
        "something is lost, weakened, or claimed about another subject.",
    )
    diff.add_argument("old", metavar="OLD", help=one)
    diff.add_argument("new", metavar="NEW", help=one)
    diff.add_argument("--json", action="store_true", help="print one JSON document")
    diff.set_defaults(run=contract_views.run_diff)


@dataclass(frozen=True)
class LintedFile:
    """A contract file, with what is wrong (then it is not valid), what is worth a warning, and what
    else there is to say."""

    file: str
    problems: Sequence[Problem] = ()
    findings: Sequence[LintFinding] = ()
    notes: Sequence[LintFinding] = ()

    @property
    def valid(self) -> bool:
        """Whether a run could begin."""
        return not self.problems


def run_lint(args: argparse.Namespace) -> int:
    """Print every problem and warning of every file, one a line."""
    linted = [_linted(name) for name in args.contracts]
    bad = [each for each in linted if not each.valid or (args.strict and each.findings)]
    if args.json:
        files = [{"file": each.file, "valid": each.valid, **asdict(each)} for each in linted]
        say.document({"schema_version": 1, "files": files}, indent=2)
        return INVALID if bad else VALID
    for file in linted:
        for each in (*file.problems, *file.findings, *file.notes):
            say.tell(each)
        if file.valid and not file.findings:
            say.tell(f"{file.file}: ok")
    return INVALID if bad else VALID


def _linted(name: str) -> LintedFile:
    try:
        loaded = load_whole(find(name))
    except ContractError as error:
        return LintedFile(name, error.problems)
    return LintedFile(loaded.file, findings=lint(loaded), notes=told(loaded))


def run_schema(args: argparse.Namespace) -> int:
    """Print the JSON schema."""
    print(sweep_file.schema_text() if args.sweep else json_schema.text(), end="")
    return VALID


def run_list(args: argparse.Namespace) -> int:
    """Print name and purpose of every contract in the library."""
    width = max(map(len, library.names()))
    every = {name: load(find(name)).contract for name in library.names()}
    if args.json:
        rows = [
            {"name": name, "kind": each.subject.kind, "about": each.about}
            for name, each in every.items()
        ]
        say.document({"schema_version": 1, "contracts": rows}, indent=2)
        return VALID
    for name, each in every.items():
        say.tell(f"{name:{width}}  {each.about}")
    return VALID
