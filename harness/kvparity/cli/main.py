"""``kvparity``: the parser of all verbs. Verbs import torch only once they run.

What takes longer to import is imported inside ``main``, where Ctrl-C has an answer.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from kvparity import __version__
from kvparity.cli import say, streams, tracebacks
from kvparity.cli.parsing import Misused, TopParser, VerbParser
from kvparity.core import interrupts
from kvparity.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from kvparity.cli.arguments import Verbs
    from kvparity.cli.whole import Answered

_EPILOG = """examples:
  kvparity verify smoke                  the reference decoder, on this machine, in a minute
  kvparity verify my-contract.yaml       your kernels or your model
  kvparity contract lint my-contract.yaml
  kvparity doctor                        what is installed here and what will be used

exit codes: 0 holds, 1 differs, 2 bad input, 3 the subject or a backend failed,
5 void (not enough was really verified), 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from kvparity.cli import (
        audit,
        bench,
        codec,
        completion,
        contract,
        controls,
        demo,
        doctor,
        drift,
        history,
        locate,
        order,
        replay,
        report,
        shrink,
        sweep,
        tiles,
        trace,
        verify,
        weights,
    )

    top = TopParser(
        prog="kvparity",
        description="Proves, bit for bit, that a rollout and its rescoring compute the same "
        "numbers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"kvparity {__version__}")
    verbs: Verbs = top.add_subparsers(
        title="verbs", metavar="VERB", required=True, parser_class=VerbParser
    )
    modules = (
        verify,
        sweep,
        history,
        drift,
        weights,
        trace,
        order,
        replay,
        report,
        locate,
        shrink,
        audit,
        codec,
        bench,
        tiles,
    )
    for module in (*modules, contract, controls, doctor, demo):
        module.add_parser(verbs)
    completion.add_parser(verbs, top)
    return top


def main(argv: Sequence[str] | None = None, *, own_process: bool = False) -> int:
    """Run one verb; returns the exit code. No traceback reaches the user.

    ``own_process``: the process is there for this command alone (see
    :mod:`kvparity.core.interrupts`).
    """
    given = list(sys.argv[1:] if argv is None else argv)
    with streams.guarded() as both, interrupts.heard(own_process=own_process):
        try:
            code = _answered(given)
        except (KeyboardInterrupt, Exception) as error:
            if not isinstance(error, KeyboardInterrupt) and not interrupts.came():
                raise
            code = ExitCode.ERROR
        except SystemExit as end:  # --help, --version, or a command line that means nothing
            if streams.unwritten(*both):
                raise SystemExit(int(ExitCode.ERROR)) from None
            raise end from None
        if code != ExitCode.INTERRUPTED and interrupts.came():  # also where an answer was given
            interrupts.say()
            code = ExitCode.INTERRUPTED
        return ExitCode.ERROR if streams.unwritten(*both) else code


def _answered(given: list[str]) -> int:
    """The exit code, once all is said, the document last."""
    try:
        args = parser().parse_args(given)
    except Misused as end:
        if "--json" in given:
            print(json.dumps(say.problem(ExitCode.USAGE, end.words)))
        raise
    with say.manner(quiet="quiet" in args), tracebacks.shown(asked="traceback" in args):
        if not getattr(args, "json", False):
            return _run(args, given)
        with say.listening() as said:
            code = _run(args, given)
        print(said.finished(code))
        return code


def _run(args: argparse.Namespace, given: list[str]) -> int:
    from kvparity.cli import ci_files, stop, whole
    from kvparity.core.isolation.inside import inside
    from kvparity.subjects.pair.callables import forget

    try:
        verb = args.run.__module__.rpartition(".")[2]
        if inside():
            forget()  # what an earlier command imported here, and its state
        elif verb in whole.VERBS:
            return whole.run(answer, given, json=args.json)
        return int(args.run(args))
    except BaseException as error:  # SystemExit, too: it is not for a subject to end us
        tracebacks.show(error)
        found = stop.of(error)
        if found is not None:
            ci_files.failed(error, found.message)
            return found.told(json=getattr(args, "json", False))
        if isinstance(error, KeyboardInterrupt) or interrupts.came():
            say.tell("kvparity: interrupted", file=sys.stderr)
            return ExitCode.INTERRUPTED
        name = type(error).__name__
        words = f"{error}" if name == "InternalError" else f"{name}: {error}"
        say.tell(
            f"kvparity: internal error: {words}\n(--traceback shows where; please report it)",
            file=sys.stderr,
        )
        if getattr(args, "json", False):
            say.document(say.problem(ExitCode.ERROR, f"internal error: {words}"))
        return ExitCode.ERROR


def answer(given: Sequence[str]) -> Answered:
    """In the child: the verb's exit code and all that it printed on stdout."""
    with redirect_stdout(io.StringIO()) as out:
        code = main(given)
    return {"code": int(code), "text": out.getvalue()}
