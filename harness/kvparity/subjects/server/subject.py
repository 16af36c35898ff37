"""A running server of vLLM or SGLang behind the seam: whole sequences, by ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from kvparity.core.errors import OracleError, SubjectError, UnsupportedError
from kvparity.plan.schedule import FAR, Layout, Member, Plan, Step
from kvparity.servers.connect import connect
from kvparity.servers.http import ServerAddress
from kvparity.servers.metrics import together
from kvparity.servers.semantics import Semantics, logprob_semantics
from kvparity.servers.values import Draw, DrawnIds, Server
from kvparity.subjects.base import SequenceAnswer, WholeAnswer
from kvparity.subjects.server.groups import GroupRequest, requests
from kvparity_contracts.json_types import JsonObject
from kvparity_contracts.served import NamedServer, ServerSubject

_UNLIMITED = 2**24
TRIES = 10
"""Of requests that should run together, until the server's metrics show that they did."""
_STEPS = "a server schedules its own steps: of its paths a request can ask for these alone"


class ServedModel:
    """Behind the seam. ``device``: where what it sends is compared. ``any_logprobs``: those after a
    temperature are taken, too, by somebody who does not compare them with its scores."""

    def __init__(
        self, model: ServerSubject, server: Server, seed: int, *, any_logprobs: bool = False
    ) -> None:
        self.model, self.server, self.seed = model, server, seed
        self.any_logprobs = any_logprobs
        self.vocab = model.vocabulary
        # A prompt that is scored is drawn from, too.
        self.max_positions = (server.facts.max_tokens or _UNLIMITED) - 1
        self.device = torch.device("cpu")
        self.semantics: Semantics = logprob_semantics(server)

    def unsupported(self, plan: Plan) -> str | None:
        """A request asks for a sequence, alone or beside others, behind a cached prefix or not."""
        layout = plan.layout
        if layout.far:
            return FAR
        if plan.generate or layout.program != "eager" or layout.page or not layout.cached:
            return _STEPS
        if layout.batch != "packed" or not _askable(plan):
            return _STEPS
        return None

    def answer(
        self,
        plan: Plan,
        tokens: Sequence[Sequence[int]],
        before: Sequence[Sequence[int]] | None,
        temperature: float,
    ) -> WholeAnswer:
        """Ask for all of a plan, group by group.

        Raises:
            ServerError: the server does not answer as it must.
            UnsupportedError: its logprobs at this temperature cannot be compared.
        """
        run = _PlanRun(self, plan, temperature)
        if plan.warm_up:
            run.ask(plan.schedule[: plan.warm_up], before or tokens)
            run.require_emptied()
        return run.answered(run.ask(plan.schedule[plan.warm_up :], tokens))

    def session(self, members: Sequence[Member], layout: Layout) -> NoReturn:
        """A server has none."""
        raise UnsupportedError("a server has no sessions: it computes whole sequences")

    def values(self, rows: Tensor, targets: Tensor, temperatures: Sequence[float]) -> NoReturn:
        """A server gives no rows."""
        raise UnsupportedError("a server gives no rows of logits")

    def oracle(self, member: Member, ids: Sequence[int], rows: Sequence[int]) -> NoReturn:
        """A server has no twin."""
        raise OracleError("a server has no float64 twin")

    def describe(self, ran: Counter[str] | None = None) -> JsonObject:
        """What the server says of itself, and what was found out by asking."""
        facts = self.server.facts
        return {
            "kind": "server",
            "url": self.model.url,
            "api": facts.api,
            "version": facts.version,
            "model": facts.model,
            "draws": self.model.draws,
            "logprobs": self.semantics,
            "flags": facts.shown,
        }


def _askable(plan: Plan) -> bool:
    """Prompts whole, and all sequences of a group from the start on."""
    for number, step in enumerate(plan.schedule[plan.warm_up :]):
        for span in step:
            first = span.start == 0 or any(
                a.step == number + plan.warm_up and a.sequence == span.sequence
                for a in plan.actions
            )
            if not span.decode and not (first and span.stop >= plan.members[span.sequence].prompt):
                return False
    groups = requests(plan, plan.schedule)
    if any(len(group) > 1 and any(each.scores for each in group) for group in groups):
        return False
    starts: dict[int, int] = {}
    for number, step in enumerate(plan.schedule):
        for span in step:
            starts.setdefault(span.sequence, number)
    apart = any(len({starts[each.sequence] for each in group}) > 1 for group in groups)
    # Those that share a length enter together in the path uniform, which no request can ask for.
    return not apart and plan.layout.slack >= 0


class _PlanRun:
    """One plan on the way: what was asked, and what is not proved."""

    def __init__(self, subject: ServedModel, plan: Plan, temperature: float) -> None:
        self.subject, self.plan, self.server = subject, plan, subject.server
        self.at = _address(subject.model)
        self.temperature = temperature if subject.model.draws == "sampled" else 0.0
        self.observed: Counter[str] = Counter()
        self.unproved: str | None = None
        compared = self.temperature not in (0.0, 1.0) and not subject.any_logprobs
        if compared and subject.semantics != "raw":
            raise UnsupportedError(
                f"temperature {temperature:g}: drawn logprobs of this server are "
                f"{subject.semantics} (found out by asking), and those of given tokens are the "
                "model's own; expected temperature 1, or draws: greedy"
            )

    def require_emptied(self) -> None:
        """What the steps before a reset left in the prefix cache is gone."""
        if not self.server.empty_cache():
            self._doubt(
                "the server's prefix cache cannot be emptied (vLLM: VLLM_SERVER_DEV_MODE=1)"
            )

    def ask(
        self, steps: Sequence[Step], tokens: Sequence[Sequence[int]]
    ) -> dict[int, SequenceAnswer]:
        """All groups, one after the other.

        What draws begins with an empty prefix cache, where the server can be told so, unless it is
        to find a prefix there. Two prompts that begin with one token alike would share it.
        """
        found: dict[int, SequenceAnswer] = {}
        for group in requests(self.plan, steps):
            if group[0].scores:
                (request,) = group
                found[request.sequence] = self._scored(request, tokens[request.sequence])
            else:
                found |= self._drawn(group, tokens)
        return found

    def answered(self, found: dict[int, SequenceAnswer]) -> WholeAnswer:
        """Of the compared sequences."""
        compared = {sequence: answer for sequence, answer in found.items() if answer.rows}
        return WholeAnswer(compared, self.observed, self.unproved)

    def _scored(self, request: GroupRequest, tokens: Sequence[int]) -> SequenceAnswer:
        wanted = torch.tensor(request.rows, dtype=torch.int64) + 1
        logprobs = torch.from_numpy(self.server.score(tokens[: request.stop]).logprobs)
        self.observed["server.prefill"] += 1
        targets = torch.tensor(list(tokens), dtype=torch.int64)[wanted]
        return SequenceAnswer(request.rows, targets, logprobs[wanted])

    def _drawn(
        self, group: list[GroupRequest], tokens: Sequence[Sequence[int]]
    ) -> dict[int, SequenceAnswer]:
        # Strangers begin first and end last, or a step of the others might have one row.
        group = sorted(group, key=lambda each: bool(each.rows))
        strangers = sum(not each.rows for each in group) if len(group) > 1 else 0
        draws = [self._draw(each, tokens) for each in group]
        longer = [self._longer(each) for each in draws[:strangers]]
        asks = [partial(self.server.generate, each) for each in (*longer, *draws[strangers:])]
        for _ in range(TRIES):
            if all(each.donor is None for each in group):
                self.server.empty_cache()
            answers, ran = together(self.at, asks, strangers)
            if len(group) == 1 or ran.most in (None, len(group)):
                break  # that all meet while the metrics are looked at is a matter of moments
        self.observed["server.together"] = max(self.observed["server.together"], ran.most or 0)
        if len(group) > 1:
            self._prove_together(len(group), ran.most)
        elif (ran.most or 0) > 1:
            self._doubt(f"{ran.most} requests ran where one was asked for: others use the server")
        for each, answer in zip(group, answers, strict=True):
            self._cached(each, answer.cached_tokens, alone=len(group) == 1)
        return {
            each.sequence: self._answer(each, answer)
            for each, answer in zip(group, answers, strict=True)
        }

    def _draw(self, request: GroupRequest, tokens: Sequence[Sequence[int]]) -> Draw:
        prompt = self.plan.members[request.sequence].prompt
        return Draw(
            tuple(tokens[request.sequence][:prompt]),
            request.stop - prompt + 1,
            self.temperature,
            self.subject.seed + request.sequence,
        )

    def _longer(self, draw: Draw) -> Draw:
        room = self.subject.max_positions - len(draw.prompt)
        return replace(draw, count=min(2 * draw.count, room))

    def _answer(self, request: GroupRequest, answer: DrawnIds) -> SequenceAnswer:
        self.observed["server.prefill"] += 1
        self.observed["server.decode"] += len(answer.ids) - 1
        first = self.plan.members[request.sequence].prompt - 1
        wanted = torch.tensor(request.rows, dtype=torch.int64) - first
        return SequenceAnswer(
            request.rows,
            torch.from_numpy(answer.ids)[wanted],
            torch.from_numpy(answer.logprobs)[wanted],
        )

    def _prove_together(self, asked: int, most: int | None) -> None:
        if most is None:
            self._doubt(
                "the server does not show how many requests run (SGLang: --enable-metrics), so it "
                "is not known that they ran together"
            )
        elif most != asked:
            self._doubt(
                f"{asked} requests were sent at once, and the server's metrics show at most "
                f"{most} running together: longer ones meet"
            )

    def _cached(self, request: GroupRequest, cached: int | None, *, alone: bool) -> None:
        """Of requests that run together, one may read what another has just written."""
        name = self.plan.members[request.sequence].id
        self.observed["server.cached_tokens"] += cached or 0
        if request.donor is not None and not cached:
            told = "does not say what it" if cached is None else "says that it"
            more = " (vLLM: --enable-prompt-tokens-details)" if cached is None else " nothing"
            self._doubt(
                f"{request.shared} tokens of {name} should come from the prefix cache, and the "
                f"server {told} read{more}"
            )
        elif request.donor is None and request.rows and cached and alone:
            self._doubt(
                f"{name} read {cached} tokens from the prefix cache, and this path is cold: start "
                "the server without one, or so that it can be emptied"
            )

    def _doubt(self, reason: str) -> None:
        self.unproved = self.unproved or reason


def _address(model: NamedServer) -> ServerAddress:
    return ServerAddress(model.url, model.key_variable, model.timeout)


def connected(model: NamedServer) -> Server:
    """The server that a contract names.

    Raises:
        ServerError: it does not answer, or is another.
        UnsupportedError: its key is not there.
    """
    return connect(_address(model), model.api, model.model)


def build(
    model: ServerSubject,
    *,
    execution: str,
    kv_cache: str,
    device: torch.device,
    seed: int,
    base: Path,
) -> ServedModel:
    """The subject, once the server has told what it is.

    Raises:
        SubjectError: it computes in another format than the contract says.
    """
    server = connected(model)
    told = server.facts.shown.get("dtype")
    if told in ("float32", "float16", "bfloat16") and told != execution:
        raise SubjectError(f"the server runs in {told}, and the contract says {execution}")
    return ServedModel(model, server, seed)
