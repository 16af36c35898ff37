"""``kvparity completion``: what a shell needs to complete verbs, options and files."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvparity.cli import say
from kvparity.cli.arguments import Verbs

SHELLS = ("bash", "zsh", "fish")


def add_parser(verbs: Verbs, whole: argparse.ArgumentParser) -> None:
    """Add the verb to all of ``whole``."""
    parser = verbs.add_parser(
        "completion",
        help="print what a shell needs to complete kvparity's commands",
        description="Print a script for a shell, which completes verbs, options and files.",
        epilog="bash: source <(kvparity completion bash); zsh: kvparity completion zsh > a file "
        "_kvparity in a folder of $fpath; fish: kvparity completion fish > "
        "~/.config/fish/completions/kvparity.fish",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads it")
    parser.set_defaults(run=run, whole=whole)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    _name_files(args.whole)
    say.script(shtab.complete(args.whole, args.shell))
    return 0


def _name_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments are files, and which are folders."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _name_files(verb)
        elif action.type is Path or action.dest == "contract":
            folder = action.metavar in ("DIR", "FOLDER") or action.dest == "run_dir"
            setattr(action, "complete", shtab.DIRECTORY if folder else shtab.FILE)  # noqa: B010 - shtab's own name for it
