"""``kvparity drift``: how far a recorded rollout and another side are apart."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import drift_files, drift_model, drift_server, say
from kvparity.cli.arguments import Verbs, add_device, add_json
from kvparity.cli.stop import StopError, ends
from kvparity.core.errors import UnsupportedError
from kvparity.core.exit_codes import ExitCode, of_verdict

if TYPE_CHECKING:
    from kvparity.gaps.spelling import Spelling

FRAMEWORKS = (
    "verl",
    "trl",
    "nemo-rl",
    "slime",
    "prime-rl",
    "skyrl",
    "openrlhf",
    "open-instruct",
    "areal",
    "tinker",
)
LIMITS = ("max_abs_d", "mean_abs_d", "abs_k1", "k3", "outside_clip")


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "drift",
        help="compare a recorded rollout with its rescoring, token by token",
        description="Compare the logprobs of a recorded rollout with those of another recording "
        "of the same tokens, of a model or server that scores them, or of the trainer in the same "
        "file. d is trainer - rollout. Without a limit every token must have equal bits.",
        epilog="Exit codes: 0 holds, 1 differs, 2 bad input, 3 the model or server failed, 5 void "
        "(not all was compared), 130 interrupted.",
    )
    parser.add_argument("rollouts", type=Path, help="a recording, of any layout that is known")
    parser.add_argument(
        "--against",
        type=drift_server.path_or_url,
        metavar="FILE|MODEL|URL",
        help="a recording of the trainer, or what scores the tokens: the folder of a checkpoint, "
        "or a running vLLM or SGLang server (default: the trainer's logprobs in ROLLOUTS)",
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"instead of equal bits: {', '.join(LIMITS)} at most VALUE; may be repeated",
    )
    parser.add_argument(
        "--names",
        action="append",
        default=[],
        choices=FRAMEWORKS,
        help="also print the numbers under the names of this framework; may be repeated",
    )
    parser.add_argument(
        "--vocabulary", type=int, metavar="N", help="refuse token ids that are not below N"
    )
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="tokens to show (default: 10)"
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="show the text of tokens by the tokenizer in FOLDER (default: that of the checkpoint)",
    )
    drift_files.add_arguments(parser)
    add_json(parser)
    drift_model.add_arguments(parser)
    drift_server.add_arguments(parser)
    add_device(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare; the exit code is that of the verdict."""
    with ends(ValueError):
        limits = dict(_limit(each) for each in args.limit)
        if args.worst < 0:
            raise ValueError(f"--worst {args.worst}: expected a number from 0")
        if args.vocabulary is not None and args.vocabulary < 1:
            raise ValueError(f"--vocabulary {args.vocabulary}: expected a number from 1")
    from kvparity.gaps.report import document, report
    from kvparity.gaps.sides import recordings
    from kvparity.gaps.text import render
    from kvparity.rollouts.names import named

    drift_files.check(args)
    spelling = _spelling(args)
    explained = None
    if isinstance(args.against, str):
        _refuse_model(args)
        both = drift_server.compare(args)
    else:
        drift_server.refuse(args)
        if args.against is not None and args.against.is_dir():
            both, explained = drift_model.compare(args)
        else:
            _refuse_model(args)
            both = recordings(args.rollouts, args.against, args.vocabulary)
    found = report(
        both.tokens,
        both.matched,
        both.anomalies,
        rollout=both.rollout,
        trainer=both.trainer,
        limits=limits,
        worst=args.worst,
        spelling=spelling,
    )
    names = {each: named(each, both.tokens) for each in args.names} if both.tokens.count else {}
    say.result(args, document(found, names, explained), render(found, names, explained))
    written = drift_files.write(args, found, both.tokens, names, spelling, explained)
    return of_verdict(found.verdict) if written else ExitCode.USAGE


def _spelling(args: argparse.Namespace) -> Spelling | None:
    """What gives tokens their text, or None; one that was not asked for may be unreadable."""
    from kvparity.core import tokenizer
    from kvparity.gaps.spelling import Spelling

    if args.tokenizer is not None:
        return Spelling(args.tokenizer)
    if not isinstance(args.against, Path) or not tokenizer.there(args.against):
        return None
    try:
        return Spelling(args.against)
    except UnsupportedError as error:
        say.tell(f"kvparity: no text of tokens: {error}", file=sys.stderr)
        return None


def _refuse_model(args: argparse.Namespace) -> None:
    given = drift_model.given(args)
    if given:
        raise StopError(f"{', '.join(given)}: of a model; expected --against a checkpoint's folder")


def _limit(text: str) -> tuple[str, float]:
    """``NAME=VALUE``.

    Raises:
        ValueError: it is not; the message says what was expected.
    """
    name, _, number = text.partition("=")
    if name not in LIMITS:
        known = f"{', '.join(LIMITS[:-1])} or {LIMITS[-1]}"
        raise ValueError(f"--limit {text}: expected NAME=VALUE with NAME of {known}")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"--limit {text}: expected a number from 0 behind {name}=")
    return name, value
