"""``kvparity``: the parser of all verbs. Verbs import torch only once they run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from kvparity import __version__
from kvparity.cli import (
    audit,
    bench,
    codec,
    contract,
    controls,
    doctor,
    order,
    replay,
    tiles,
    trace,
    verify,
)
from kvparity.exit_codes import ExitCode

_EPILOG = """examples:
  kvparity verify smoke                  the reference decoder, on this machine, in a minute
  kvparity verify my-contract.yaml       your kernels or your model
  kvparity contract lint my-contract.yaml
  kvparity doctor                        what is here and what will be used

exit codes: 0 holds, 1 differs, 2 bad input, 3 the subject or a backend failed,
5 void (not enough was really verified), 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="kvparity",
        description="Proves, bit for bit, that a rollout and its rescoring compute the same "
        "numbers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"kvparity {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    modules = (verify, trace, order, replay, audit, codec, bench, tiles, contract, controls, doctor)
    for module in modules:
        module.add_parser(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. No traceback reaches the user."""
    args = parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("kvparity: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`| head`); say no more, also at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.ERROR
    except Exception as error:
        if os.environ.get("KVPARITY_TRACEBACK"):
            raise
        print(
            f"kvparity: internal error: {type(error).__name__}: {error}\n"
            "(set KVPARITY_TRACEBACK=1 for the traceback, and please report it)",
            file=sys.stderr,
        )
        return ExitCode.ERROR


if __name__ == "__main__":
    sys.exit(main())
