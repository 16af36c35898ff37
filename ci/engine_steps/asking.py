"""What a server is asked: a contract of the library, rollouts to record, and their rescoring."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kvparity.rollouts import RolloutWriter, read_rollouts
from kvparity.servers.connect import connect
from kvparity.servers.http import ServerAddress
from kvparity.servers.metrics import together
from kvparity.servers.values import Draw, DrawnIds, Server
from kvparity_contracts.json_types import JsonObject, JsonValue
from kvparity_contracts.library import find

LENGTHS = (9, 12, 17, 31, 24, 13)
"""Tokens of the prompts that are recorded."""
COUNT = 64
"""Tokens that each draws."""
STRANGERS, LONGER = 2, 300
"""Requests that run beside them, and longer: no step has one row. Tokens of each."""
TRIES = 20
CONTROLS = ("stored-zero", "shifted-logprobs", "dropped-sequences", "doubled-first-token")
"""Of contracts of two sides, whatever the sides are."""


class StepError(Exception):
    """A command gave no document; the message has its last words."""


def contract(api: str, url: str, vocabulary: int, folder: Path) -> Path:
    """The library's contract for an engine, with this server's address."""
    text = find(f"{api}-decode-prefill").read_text()
    text = re.sub(r"url: \S+", f"url: {url}", text)
    text = re.sub(r"vocabulary: \d+", f"vocabulary: {vocabulary}", text)
    path = folder / f"{api}.yaml"
    path.write_text(text)
    return path


def sides(
    rollout: JsonObject, trainer: JsonObject, check: JsonObject, folder: Path, count: int
) -> Path:
    """A contract of two sides; what the rollout draws is behind the prompts that are recorded."""
    path = folder / "sides.yaml"
    subject: JsonObject = {"kind": "sides", "rollout": rollout, "trainer": trainer}
    vocabulary = rollout["vocabulary"]
    assert isinstance(vocabulary, int)
    asked: list[JsonValue] = [list(each) for each in prompts(vocabulary)]
    models: tuple[JsonValue, ...] = ("stale-weights",) if trainer["kind"] == "model" else ()
    document: JsonObject = {
        "version": 1,
        "name": "sides",
        "subject": subject,
        "workloads": [{"name": "prompts", "prompts": asked, "generate": count}],
        "checks": [{"name": "alike", "relation": "parity", **check}],
        "controls": [*CONTROLS, *models],
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def prompts(vocabulary: int) -> list[tuple[int, ...]]:
    """Seeded ids."""
    drawn = random.Random(11)
    return [tuple(drawn.randrange(vocabulary) for _ in range(n)) for n in LENGTHS]


def kvparity(*words: str) -> JsonObject:
    """The document that a verb prints with ``--json``, whatever its verdict.

    Raises:
        StepError: it printed none.
    """
    command = [sys.executable, "-m", "kvparity", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: JsonObject = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StepError(f"kvparity {words[0]} ended with code {done.returncode}: {last}") from None
    if "error" in found:
        raise StepError(f"kvparity {words[0]}: {found['error']}")
    return found


def record(url: str, path: Path, *, alone: bool, temperature: float, vocabulary: int) -> Path:
    """Draw from seeded prompts, one at a time or all at once, and write what was drawn.

    Together, two strangers outlast them, and the server's own metrics show all of them at once.

    Raises:
        StepError: they never do.
    """
    at = ServerAddress(url)
    server = connect(at)
    asked = [Draw(it, COUNT, temperature, 100 + i) for i, it in enumerate(prompts(vocabulary))]
    server.generate(Draw((1, 2, 3), 1, 1.0, 1))  # a first request warms the server up
    server.empty_cache()
    answers = [server.generate(it) for it in asked] if alone else at_once(server, at, asked)
    path.unlink(missing_ok=True)
    with RolloutWriter(path, {"engine": server.facts.words(), "at_once": not alone}) as writer:
        for one, answer in zip(asked, answers, strict=True):
            ids, logprobs = answer.ids.tolist(), answer.logprobs.tolist()
            writer.write(one.prompt, ids, logprobs, temperature=temperature)
    return path


def at_once(server: Server, at: ServerAddress, asked: Sequence[Draw]) -> list[DrawnIds]:
    """The answers to requests of which the server's metrics showed that all ran at one moment.

    Raises:
        StepError: they do not, however often it is tried.
    """
    strangers = [Draw((7, 7, seed), LONGER, 1.0, seed) for seed in range(1, STRANGERS + 1)]
    every = [*strangers, *asked]
    for _ in range(TRIES):
        answers, ran = together(at, [partial(server.generate, each) for each in every], STRANGERS)
        if ran.most is not None and ran.most >= len(every):
            return answers[STRANGERS:]
    raise StepError(f"in {TRIES} tries the server never showed {len(every)} requests at once")


def rescore(url: str, recorded: Path, path: Path) -> Path:
    """Write what the server's prefill says of a recording: the other side, as a file."""
    server = connect(ServerAddress(url))
    path.unlink(missing_ok=True)
    with RolloutWriter(path, {"engine": server.facts.words(), "scored": True}) as writer:
        for each in read_rollouts(recorded):
            assert each.prompt_ids is not None, "record writes them"
            assert each.response_ids is not None, "and these"
            prompt, response = each.prompt_ids.tolist(), each.response_ids.tolist()
            scored = server.score([*prompt, *response]).logprobs[len(prompt) :]
            writer.write(prompt, response, scored.tolist())
    return path


def drift(path: Path, against: str, *more: str) -> JsonObject:
    """How far the recording and another side are apart."""
    return kvparity("drift", str(path), "--against", against, *more)


def verified(path: Path, run: Path) -> JsonObject:
    """A contract's report."""
    return kvparity("verify", str(path), "--run-dir", str(run), "--device", "cpu")


def text_of(command: Sequence[str], timeout: float) -> str:
    """What a script printed.

    Raises:
        StepError: it failed, or took too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise StepError(f"stopped after {timeout:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise StepError(f"ended with code {done.returncode}: {last[-300:]}")
    return done.stdout
