"""``ci/engines``: real vLLM and SGLang servers on a CPU, verified, recorded and rescored."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError

from engine_steps import models, page, serving
from engine_steps.asking import StepError
from engine_steps.environments import SGLANG, TRL, VLLM, SetupError, ready, setup
from engine_steps.plan import SESSIONS, Scene, ServerSession
from kvparity.rollouts.record import RolloutError
from kvparity.servers.http import ServerError
from kvparity_contracts.json_types import JsonObject, JsonValue

FILE = "engines.json"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="ci/engines", description=__doc__)
    verbs = found.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("setup", help="make the environments of the servers and the trainer")
    one.add_argument("root", type=Path, help="their folder; some 6 GB")
    one = verbs.add_parser("run", help="serve, ask, write engines.json")
    one.add_argument("root", type=Path, help="the folder of setup")
    one.add_argument("--out", type=Path, required=True, help="folder for what comes out")
    one.add_argument("--only", nargs="+", choices=[each.name for each in SESSIONS])
    one = verbs.add_parser("page", help="write docs/results/engines.* from a finished run")
    one.add_argument("out", type=Path, help="the folder of run")
    return found


def main(given: list[str] | None = None) -> int:
    """0: all was done; 1: a step failed or was not run; 2: it cannot begin, in one sentence."""
    args = parser().parse_args(given)
    try:
        if args.verb == "setup":
            setup(args.root.resolve(), tell)
            return 0
        if args.verb == "page":
            publish(args.out / FILE)
            return 0
        serving.end_on_signals()
        return run(args.root.resolve(), args.out.resolve(), args.only)
    except SetupError as error:
        tell(str(error))
        return 2


def publish(file: Path) -> None:
    """The page of a run.

    Raises:
        SetupError: there is none, or the file is another.
    """
    if not file.exists():
        raise SetupError(f"there is no {file}; expected the folder of run")
    try:
        page.publish(written(file))
    except (KeyError, TypeError, ValueError) as error:
        raise SetupError(f"{file} is not what run writes: {error!r}") from error


def written(file: Path) -> JsonObject:
    """What a run has written so far.

    Raises:
        SetupError: the file holds something else.
    """
    try:
        found: JsonValue = json.loads(file.read_text()) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise SetupError(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SetupError(f"{file} is not what run writes: it holds no object")
    return found


def tell(what: str) -> None:
    """On stderr."""
    print(f"engines: {what}", file=sys.stderr, flush=True)


def run(root: Path, out: Path, only: list[str] | None) -> int:
    """All steps that have no answer yet; what is finished stays in the file.

    Raises:
        SetupError: an environment is missing, or ``out`` cannot be used.
    """
    sessions = [each for each in SESSIONS if not only or each.name in only]
    ready(root, sorted({each.api for each in sessions}))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"--out {out} cannot be made: {error.strerror}") from error
    file = out / FILE
    found = dict(written(file))
    failed = False
    for session in sessions:
        done = dict(answers(found.get(session.name)))
        left = [name for name in session.steps if name not in done]
        if not left:
            tell(f"{session.name}: there")
            continue
        entry: JsonObject = {"api": session.api, "model": session.model}
        for name, answer in serve_and_ask(session, root, out / session.name, left):
            failed |= "error" in answer
            done[name] = answer
            steps: JsonObject = {each: done[each] for each in session.steps if each in done}
            found[session.name] = {**entry, "flags": list(session.flags), "steps": steps}
            found["versions"] = page.versions(VLLM, SGLANG, TRL)
            file.write_text(json.dumps(found, indent=1) + "\n")
    return int(failed)


def answers(entry: JsonValue) -> JsonObject:
    """What a session has answered in an earlier run; what failed there is asked again."""
    steps = entry.get("steps") if isinstance(entry, dict) else None
    steps = steps if isinstance(steps, dict) else {}
    return {k: v for k, v in steps.items() if isinstance(v, dict) and "error" not in v}


def serve_and_ask(
    session: ServerSession, root: Path, folder: Path, steps: list[str]
) -> Iterator[tuple[str, JsonObject]]:
    """Each step's answer, as it comes; one that failed has ``error``."""
    folder.mkdir(exist_ok=True)
    make = serving.vllm if session.api == "vllm" else serving.sglang
    try:
        checkpoint = models.make(session.model, root)
        port = serving.free_port()
        command = make(root, checkpoint, "bfloat16", port, *session.flags)
        tell(f"{session.name}: starting")
        with serving.served(command, port, folder / "server.log") as url:
            scene = Scene(session.api, url, session.model, checkpoint, folder, root)
            for name in list(steps):
                began = time.monotonic()
                try:
                    answer = session.steps[name](scene)
                except (StepError, ServerError, RolloutError) as error:
                    answer = {"error": str(error)}
                words = answer.get("error") or answer.get("verdict")
                tell(f"{session.name}: {name}: {words} ({time.monotonic() - began:.0f} s)")
                steps.remove(name)
                yield name, answer
    except (serving.ServeError, CalledProcessError) as error:
        tell(f"{session.name}: {error}")
        for name in steps:
            yield name, {"error": str(error)}


if __name__ == "__main__":
    sys.exit(main())
