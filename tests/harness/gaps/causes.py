"""Causes of a gap, each as a plain script of transformers that recorded the rollout otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from gaps import tiny
from torch import Tensor
from transformers import LlamaForCausalLM

from kvparity.rollouts import Rollout, RolloutWriter, read_rollouts

TEMPERATURE, TOP_P = 0.6, 0.9
Values = list[Tensor]
Logprobs = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Given:
    """What a script has: the trainer's folder, one with stale weights, and the drawn tokens."""

    folder: Path
    stale: Path
    rollouts: Sequence[Rollout]

    @property
    def rows(self) -> list[tuple[Tensor, int]]:
        """Ids of each sequence, and how many of them are the prompt."""
        found = []
        for each in self.rollouts:
            assert each.prompt_ids is not None
            assert each.ids is not None
            found.append((torch.from_numpy(each.ids), each.prompt_ids.size))
        return found


@torch.no_grad()
def drawn(folder: Path, path: Path, temperature: float | None, top_p: float | None) -> Path:
    """Tokens that the trainer's model draws at TEMPERATURE from the TOP_P likeliest.

    A rollout at temperature 1 or without top-p could have drawn them, too; recorded as said.
    """
    model, draws = tiny.plain(folder), torch.Generator().manual_seed(1)
    with RolloutWriter(path, {"engine": "plain"}) as writer:
        for prompt in tiny.PROMPTS:
            ids = torch.tensor(prompt)
            for _ in range(tiny.RESPONSE):
                logits = model(input_ids=ids[None], use_cache=False).logits[0, -1].float()
                ranked, order = (logits / TEMPERATURE).softmax(-1).sort(-1, descending=True)
                ranked = ranked * (ranked.cumsum(-1) - ranked < TOP_P)
                ids = torch.cat([ids, order[torch.multinomial(ranked, 1, generator=draws)]])
            response = ids[len(prompt) :].tolist()
            nothing = [-1.0] * len(response)
            writer.write(prompt, response, nothing, temperature=temperature, top_p=top_p)
    return path


def stale(folder: Path, to: Path) -> Path:
    """The same model before an update: every weight 1 % off."""
    model, noise = tiny.plain(folder, torch.float32), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(1 + 0.01 * torch.randn(each.shape, generator=noise))
    model.to(torch.bfloat16).save_pretrained(to)
    return to


def made(folder: Path, base: Path) -> Given:
    """The checkpoint in ``folder``, with what else is made in ``base``."""
    rollouts = list(read_rollouts(drawn(folder, base / "drawn.jsonl", 1.0, None)))
    return Given(folder, stale(folder, base / "stale"), rollouts)


Script = Callable[[Given], Values]


def usual(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _cooler(logits: Tensor) -> Tensor:
    return (logits.float() / TEMPERATURE).log_softmax(-1)


def _top_p(logits: Tensor) -> Tensor:
    """Of the most likely tokens that hold TOP_P, as a sampler that masks the others has it."""
    ranked, order = logits.float().softmax(-1).sort(-1, descending=True)
    kept = (ranked.cumsum(-1) - ranked < TOP_P).float()
    inside = torch.zeros_like(ranked).scatter(-1, order, kept) > 0
    return logits.float().masked_fill(~inside, float("-inf")).log_softmax(-1)


def chosen(rows: Tensor, ids: Tensor, prompt: int) -> Tensor:
    """Of rows ``[T, vocab]`` of logprobs, those of the response."""
    return rows[prompt - 1 : ids.numel() - 1].gather(-1, ids[prompt:, None])[:, 0].float()


@torch.no_grad()
def _each(model: torch.nn.Module, given: Given, logprobs: Logprobs = usual) -> Values:
    return [
        chosen(logprobs(model(input_ids=ids[None], use_cache=False).logits[0]), ids, prompt)
        for ids, prompt in given.rows
    ]


def trainer(given: Given) -> Values:
    """The side that everything is compared with: bfloat16, sdpa, each sequence alone."""
    return _each(tiny.plain(given.folder), given)


def _loaded(dtype: torch.dtype = torch.bfloat16, attention: str = "sdpa") -> Script:
    return lambda given: _each(tiny.plain(given.folder, dtype, attention), given)


def _by(logprobs: Logprobs) -> Script:
    return lambda given: _each(tiny.plain(given.folder), given, logprobs)


def _stale(given: Given) -> Values:
    return _each(tiny.plain(given.stale), given)


def _with_head(model: LlamaForCausalLM, weight: Tensor, given: Given) -> Values:
    found = []
    with torch.no_grad():
        for ids, prompt in given.rows:
            hidden = model.model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
            found.append(chosen(usual(hidden.to(weight.dtype) @ weight.T), ids, prompt))
    return found


def _stale_head(given: Given) -> Values:
    weight = tiny.plain(given.stale).lm_head.weight
    return _with_head(tiny.plain(given.folder), weight, given)


def _wide_head(given: Given) -> Values:
    model = tiny.plain(given.folder)
    return _with_head(model, model.lm_head.weight.float(), given)


def _autocast(given: Given) -> Values:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return _each(tiny.plain(given.folder, torch.float32), given)


def _dropout(given: Given) -> Values:
    model = tiny.plain(given.folder).train()
    found = []
    with torch.random.fork_rng():
        for ids, prompt in given.rows:
            torch.manual_seed(0)
            logits = model(input_ids=ids[None], use_cache=False).logits[0].detach()
            found.append(chosen(usual(logits), ids, prompt))
    return found


def _compiled(given: Given) -> Values:
    return _each(torch.compile(tiny.plain(given.folder)), given)  # type: ignore[arg-type]


@torch.no_grad()
def _padded(given: Given, *, left: bool) -> Values:
    """In one batch; on the left without position ids, which count the pads then."""
    model, width = tiny.plain(given.folder), max(ids.numel() for ids, _ in given.rows)
    pads = [width - ids.numel() for ids, _ in given.rows]
    shapes = [(n, 0) if left else (0, n) for n in pads]
    pad = torch.nn.functional.pad
    ids = torch.stack([pad(x, n) for (x, _), n in zip(given.rows, shapes, strict=True)])
    ones = [pad(torch.ones_like(x), n) for (x, _), n in zip(given.rows, shapes, strict=True)]
    mask = torch.stack(ones)
    more = {} if left else {"position_ids": (mask.cumsum(-1) - 1) * mask}
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **more).logits
    starts = pads if left else [0] * len(pads)
    return [
        chosen(usual(row[start:]), x, prompt)
        for row, start, (x, prompt) in zip(logits, starts, given.rows, strict=True)
    ]


@torch.no_grad()
def _packed(given: Given) -> Values:
    """In one row, whose positions go on from one sequence to the next."""
    ids = torch.cat([each for each, _ in given.rows])
    rows = usual(tiny.plain(given.folder)(input_ids=ids[None], use_cache=False).logits[0])
    parts = rows.split([each.numel() for each, _ in given.rows])
    return [chosen(part, x, prompt) for part, (x, prompt) in zip(parts, given.rows, strict=True)]


def other_experts(given: Given) -> tuple[Values, list[Tensor]]:
    """Experts chosen by scores with a bias that the trainer does not have, as one that balances
    load; their weights are of the scores alone. And the choices, ``[T, layers, k]``."""
    bias = 0.1 * torch.randn(8, generator=torch.Generator().manual_seed(3))
    topk, seen = torch.topk, list[Tensor]()

    def biased(scores: Tensor, k: int, dim: int) -> tuple[Tensor, Tensor]:
        seen.append(topk(scores + bias, k, dim).indices)
        return scores.gather(dim, seen[-1]), seen[-1]

    with patch("torch.topk", biased):
        values = trainer(given)
    layers = len(seen) // len(given.rows)
    return values, [torch.stack(seen[at : at + layers], 1) for at in range(0, len(seen), layers)]


def routed(given: Given) -> Given:
    """With the experts that the rollout took."""
    routes = [each.to(torch.int32).numpy() for each in other_experts(given)[1]]
    both = zip(given.rollouts, routes, strict=True)
    return replace(given, rollouts=[replace(each, routes=found) for each, found in both])


@dataclass(frozen=True, eq=False)
class Cause:
    """``factor``: what --explain must rank first; STALE in it stands for the stale folder.
    ``mixture``: of a model that has experts. ``patterns``: what the numbers alone suggest."""

    name: str
    script: Script
    factor: str
    compiled: bool = False
    mixture: bool = False
    temperature: float | None = 1.0
    top_p: float | None = None
    patterns: tuple[str, ...] = ()


def sampled(each: Rollout, temperature: float | None, top_p: float | None) -> Rollout:
    """Recorded as drawn so."""
    return replace(each, sampling=replace(each.sampling, temperature=temperature, top_p=top_p))


@cache
def _ran(cause: Cause, given: Given) -> Values:
    return cause.script(given)


def recorded(cause: Cause, given: Given) -> list[Rollout]:
    """The rollout with the logprobs of the cause's script."""
    return [
        replace(sampled(each, cause.temperature, cause.top_p), logprobs=found.numpy())
        for each, found in zip(given.rollouts, _ran(cause, given), strict=True)
    ]


STALE, SAMPLER = "STALE", "logprobs after temperature and top-p"
CAUSES = (
    Cause("rollout eager, trainer sdpa", _loaded(attention="eager"), "attention eager"),
    Cause("float32 rollout, bfloat16 trainer", _loaded(torch.float32), "dtype float32"),
    Cause(
        "logprobs after temperature 0.6",
        _by(_cooler),
        SAMPLER,
        temperature=TEMPERATURE,
        patterns=("temperature",),
    ),
    Cause("top-p 0.9 renormalised", _by(_top_p), SAMPLER, top_p=TOP_P, patterns=("offset",)),
    Cause(
        "left padding without position_ids",
        lambda given: _padded(given, left=True),
        "padded left, positions counted through pads",
    ),
    Cause("packing without resets", _packed, "packed, positions counted through"),
    Cause("stale lm_head", _stale_head, f"head of {STALE}"),
    Cause("stale weights", _stale, f"weights of {STALE}"),
    Cause("dropout left on", _dropout, "train mode (dropout)"),
    Cause("autocast", _autocast, "autocast bfloat16 over float32"),
    Cause("float32 head", _wide_head, "head float32"),
    Cause("compiled", _compiled, "compiled", compiled=True),
    Cause(
        "no upcast before log_softmax",
        _by(lambda logits: logits.log_softmax(-1)),
        "log_softmax of logits",
    ),
    Cause("micro batch of several", lambda given: _padded(given, left=False), "padded right"),
    Cause(
        "experts chosen by other scores",
        lambda given: other_experts(given)[0],
        "routes recorded",
        mixture=True,
    ),
)
