"""``kvparity drift``: the files that it writes, and what they need before anything is computed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kvparity.cli import replaceable, say, stop
from kvparity.core.errors import UnsupportedError
from kvparity.core.exit_codes import ExitCode

if TYPE_CHECKING:
    from kvparity.gaps.explain import Explanation
    from kvparity.gaps.report import DriftReport
    from kvparity.gaps.spelling import Spelling
    from kvparity.rollouts.tokens import Tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the report as one page to FILE"
    )
    parser.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="also write every compared token to a new Parquet FILE; needs kvparity[rollouts]",
    )
    parser.add_argument(
        "--plots",
        type=Path,
        metavar="DIR",
        help="also draw position, logprob, histogram and map.svg into DIR; needs kvparity[report]",
    )


def check(args: argparse.Namespace) -> None:
    """What is asked for can be made here, and writes over nothing else.

    Raises:
        StopError: it cannot, or would.
    """
    given = {
        f"--{name}": path for name in _FILES if (path := getattr(args, name, None)) is not None
    }
    taken = {args.rollouts.resolve(): "the recording itself"}
    if isinstance(args.against, Path):
        taken.setdefault(args.against.resolve(), "what --against names")
    for option, path in given.items():
        if (other := taken.setdefault(path.resolve(), option)) is not option:
            raise stop.StopError(f"{option} {path} is {other}; expected another")
        if option != "--plots" and not path.parent.is_dir():
            raise stop.StopError(f"{option} {path}: there is no folder {path.parent}")
    if args.html is not None:
        replaceable.may_replace("--html", args.html, *replaceable.PAGE)
    if args.plots is not None:
        stop.drawable(f"--plots {args.plots}")
        if args.plots.exists() and not args.plots.is_dir():
            raise stop.StopError(f"--plots {args.plots} is a file; expected a folder")
    if args.tokens is not None:
        _check_tokens(args.tokens)


_FILES = ("html", "tokens", "plots", "trials")


def _check_tokens(path: Path) -> None:
    from kvparity.rollouts.parquet import MISSING

    try:
        import_module("pyarrow.parquet")
    except ImportError:
        raise stop.StopError(f"--tokens: {MISSING}", ExitCode.ERROR) from None
    if path.exists():
        raise stop.StopError(f"--tokens {path} exists; expected a new file")
    if path.suffix not in ("", ".parquet"):
        raise stop.StopError(
            f"--tokens {path}: it will be Parquet; expected a name that ends in .parquet"
        )


def write(
    args: argparse.Namespace,
    found: DriftReport,
    tokens: Tokens,
    names: Mapping[str, Mapping[str, float]],
    spelling: Spelling | None,
    explained: Explanation | None,
) -> bool:
    """All that is asked for. Once everything is computed and said, one that cannot be written is
    told and keeps no other back; False then."""

    def page() -> str:
        from kvparity.gaps.page import page

        return page(found, tokens, names, spelling, explained)

    written = True
    files: tuple[tuple[Path | None, Callable[[], None]], ...] = (
        (args.html, lambda: replaceable.write("--html", args.html, page())),
        (args.tokens, lambda: _tokens(args.tokens, tokens)),
        (args.plots, lambda: _plots(args.plots, tokens)),
    )
    for asked, make in files:
        try:
            if asked is not None:
                make()
                say.tell(f"written: {asked}", file=sys.stderr)
        except (stop.StopError, UnsupportedError) as error:
            say.tell(f"kvparity: {error}", file=sys.stderr)
            written = False
    return written


def _tokens(path: Path, tokens: Tokens) -> None:
    from kvparity.rollouts.token_file import write_tokens

    with stop.ends(UnsupportedError, words="--tokens: "):
        write_tokens(tokens, path)


def _plots(path: Path, tokens: Tokens) -> None:
    from kvparity.gaps.pictures import pictures

    if not tokens.count:
        say.tell(f"--plots {path}: no token is compared, so nothing is drawn", file=sys.stderr)
        return
    with stop.ends(OSError, words=f"--plots {path} cannot be made: "):
        path.mkdir(parents=True, exist_ok=True)
    for name, text in pictures(tokens):
        replaceable.write("--plots", path / name, text)
