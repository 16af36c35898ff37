"""``kvparity contract``: check contract files, print their schema, list the library.

Answers at once: imports neither torch nor triton.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from kvparity.cli import say
from kvparity.cli.arguments import Verbs
from kvparity_contracts import (
    ContractError,
    LintFinding,
    find,
    json_schema,
    library,
    lint,
    load,
)
from kvparity_contracts.files import load_whole
from kvparity_contracts.problems import Problem

VALID, INVALID = 0, 2

EXAMPLES = """\
examples:
  kvparity contract lint smoke               a contract of the library
  kvparity contract lint mine.yaml --strict  warnings count as errors
  kvparity contract schema > contract.schema.json
"""


def add_parser(top: Verbs) -> None:
    """Add the verb with its own verbs; each sets ``run`` to a function of the arguments."""
    verb = top.add_parser(
        "contract",
        help="check contract files, print their schema, list the library",
        description="Check contract files, print their schema, list the library.",
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

    schema = verbs.add_parser("schema", help="print the JSON schema of contracts, for editors")
    schema.set_defaults(run=run_schema)

    names = verbs.add_parser("list", help="list the contracts that come with kvparity")
    names.set_defaults(run=run_list)


@dataclass(frozen=True)
class LintedFile:
    """A contract file, with what is wrong (then it is not valid) and what is worth a warning."""

    file: str
    problems: Sequence[Problem] = ()
    findings: Sequence[LintFinding] = ()

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
        for each in (*file.problems, *file.findings):
            say.tell(each)
        if file.valid and not file.findings:
            say.tell(f"{file.file}: ok")
    return INVALID if bad else VALID


def _linted(name: str) -> LintedFile:
    try:
        loaded = load_whole(find(name))
    except ContractError as error:
        return LintedFile(name, error.problems)
    return LintedFile(loaded.file, findings=lint(loaded))


def run_schema(args: argparse.Namespace) -> int:
    """Print the JSON schema."""
    print(json_schema.text(), end="")
    return VALID


def run_list(args: argparse.Namespace) -> int:
    """Print name and purpose of every contract in the library."""
    width = max(map(len, library.names()))
    for name in library.names():
        say.tell(f"{name:{width}}  {load(find(name)).contract.about}")
    return VALID
