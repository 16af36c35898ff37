"""``kvparity demo``: a trained model, from its package to the page of a run, in one command."""

from __future__ import annotations

import argparse
import json
import shlex
from itertools import count
from pathlib import Path

from kvparity.cli import replaceable, say, verify
from kvparity.cli.arguments import Verbs
from kvparity.cli.report import PAGE
from kvparity.cli.stop import StopError, drawable, ends
from kvparity.core.exit_codes import ExitCode

PROMPT = "What is the capital of France, and what is it known for?"
CONTRACT = """\
# Does generate() of a trained model give the logprobs that one forward pass gives the same tokens?
version: 1
name: demo
subject: {{kind: transformers, checkpoint: model, attention: sdpa}}
numerics: {{execution: bfloat16}}
workloads:
  - name: chat
    texts: [{prompt}]
    generate: {generate}
checks:
  - {{name: generate agrees with one forward pass, relation: invariance, paths: [generate]}}
controls: [log-of-softmax]
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "demo",
        help="show all of it on a trained model of 135 million parameters",
        description="Chat with SmolLM2-135M-Instruct, compare generate() with one forward pass "
        "over the same tokens, find where they diverge, and write the page of the run. The model "
        "comes with a package that is installed; nothing is fetched.",
        epilog="Exit codes: that of the verdict, and 3 where something has to be installed first.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(".kvparity/demo"),
        metavar="DIR",
        help="folder of the model (made once, 270 MB), contract and run (default: %(default)s)",
    )
    parser.add_argument("--prompt", default=PROMPT, metavar="TEXT", help="what the user says")
    parser.add_argument(
        "--generate", type=int, default=24, metavar="N", help="tokens to draw (default: 24)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Everything; the exit code is that of the verdict."""
    from kvparity.labs.demo.model import missing, spoken, unpacked

    if args.generate < 1:
        raise StopError(f"--generate {args.generate}: expected at least 1")
    if (words := missing()) is not None:
        raise StopError(words, ExitCode.ERROR)
    drawable("the page of the run")
    from kvparity.report.finished import finished
    from kvparity.report.page.render import page

    model = args.out / "model"
    with ends(OSError, words=f"--out {args.out}: "):
        say.tell(f"the model: {unpacked(model)}")
        contract = _written(args)
    folder = next(path for n in count(1) if not (path := args.out / f"run-{n}").exists())
    code = _verify(contract, folder)
    say.tell(f"\nthe user: {args.prompt}")
    for answer in spoken(model, folder):
        say.tell(f"the model: {answer}")
    file = folder / PAGE
    replaceable.write("--html", file, page(folder, finished(folder)))
    say.tell(f"\n$ {shlex.join(['kvparity', 'report', str(folder), '--html'])}\nwritten: {file}")
    return code


def _written(args: argparse.Namespace) -> Path:
    """The contract, which may be another than that of an earlier run."""
    file: Path = args.out / "demo.yaml"
    text = CONTRACT.format(prompt=json.dumps(args.prompt), generate=args.generate)
    file.write_text(text, encoding="utf-8")
    return file


def _verify(contract: Path, folder: Path) -> int:
    """Run ``kvparity verify``, and show the command first; its exit code."""
    words = ["verify", str(contract), "--run-dir", str(folder), "--device", "cpu", "--jobs", "1",
             "--locate-budget", "60"]  # fmt: skip
    say.tell(f"\n$ {shlex.join(['kvparity', *words])}")
    top = argparse.ArgumentParser()
    verify.add_parser(top.add_subparsers())
    args = top.parse_args(words)
    return int(args.run(args))
