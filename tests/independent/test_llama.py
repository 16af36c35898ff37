"""A tiny Llama of transformers: the tool against a plain loop over the model, and the scripts.

What the scripts are given comes from the model as its user calls it, from nothing of the tool.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cache_contents
import drift_numbers
import llama_float64
import logprob_bits
import net
import numpy as np
import pytest
import row_bits
import torch
from net import unlike
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from kvparity.record import cache_snapshot, scoring
from kvparity.relations import bits_and_limits
from kvparity.subjects.hf.subject import TransformersSubject

PROMPTS, GENERATED = ([5, 17, 2, 40, 8, 33, 21], [9, 30]), 4
CONFIG = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
EXACT = {"relation": "accuracy", "paths": ["decode"], "limits": {"max_abs_dlogp": 1e-4}}
CHECKS = [
    {"name": "bits", "relation": "invariance", "paths": ["decode", "padded-left"]},
    {"name": "held", "relation": "cache", "paths": ["decode"]},
    {"name": "exact", **EXACT},
]
FLOAT32_INSIDE = 2e-6
"""transformers computes norms, softmax and rotary angles in float32, the tool's oracle with it:
by docs/contracts.md it is good to about 1e-6; logprobs here are of size 1 to 10."""


@dataclass(frozen=True)
class Plain:
    """What plain calls of the model gave: the logits of the compared rows, ids, and the cache."""

    logits: np.ndarray
    targets: np.ndarray
    cache: dict[str, np.ndarray]

    def logprobs(self) -> np.ndarray:
        """torch's log_softmax of the float32 logits, as a user computes them."""
        rows, targets = torch.tensor(self.logits), torch.tensor(self.targets)
        return torch.log_softmax(rows, -1).gather(1, targets[:, None])[:, 0].numpy()


class Loop:
    """The model of a checkpoint, called by hand."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            checkpoint, attn_implementation="eager", dtype=torch.float32
        )
        known = inspect.signature(self.model.forward).parameters
        self.name = "cache" if "cache" in known else "past_key_values"  # before transformers 5.24

    @torch.inference_mode()
    def alone(self, ran: net.Ran, *, decode: bool) -> Plain:
        """Each sequence whole, or its prompt and then token by token."""
        rows, cached = [], []
        for own, prompt in zip(ran.ids, PROMPTS, strict=True):
            ids = torch.tensor([own])
            cuts = [0, *range(len(prompt), len(own))] if decode else [0, len(own)]
            cache, parts = None, []
            for start, stop in pairwise(cuts):
                found = self.model(ids[:, start:stop], use_cache=True, **{self.name: cache})
                cache = found[self.name]
                parts.append(found.logits[0])
            rows.append(torch.cat(parts)[len(prompt) - 1 : len(own) - 1])
            # Decode does not feed the last token back.
            last = len(own) - 1
            both = [(each.keys[0, :, :last], each.values[0, :, :last]) for each in cache.layers]
            cached.append([[x.transpose(0, 1) for x in pair] for pair in both])
        k, v = (
            torch.cat([torch.stack([layer[part] for layer in each]) for each in cached], 1)
            for part in (0, 1)
        )
        return self._plain(ran, torch.cat(rows), {"k": k.numpy(), "v": v.numpy()})

    @torch.inference_mode()
    def padded(self, ran: net.Ran) -> Plain:
        """All sequences side by side, pads on the left, the prompts first and then the tokens."""
        width = max(len(prompt) for prompt in PROMPTS)
        pads = [width - len(prompt) for prompt in PROMPTS]
        ids = torch.tensor([[0] * pad + list(own) for pad, own in zip(pads, ran.ids, strict=True)])
        real = torch.tensor([[0] * pad + [1] * len(own)
                             for pad, own in zip(pads, ran.ids, strict=True)])  # fmt: skip
        places = (real.cumsum(1) - 1).clamp(min=0)
        cuts, cache, parts = [0, *range(width, width + GENERATED)], None, []
        for start, stop in pairwise(cuts):
            found = self.model(
                ids[:, start:stop],
                attention_mask=real[:, :stop],
                position_ids=places[:, start:stop],
                use_cache=True,
                **{self.name: cache},
            )
            cache = found[self.name]
            parts.append(found.logits[:, -1:])
        return self._plain(ran, torch.cat(parts, 1).flatten(0, 1), {})

    def _plain(self, ran: net.Ran, rows: torch.Tensor, cache: dict[str, np.ndarray]) -> Plain:
        pairs = zip(ran.ids, PROMPTS, strict=True)
        targets = [each for own, prompt in pairs for each in own[len(prompt) :]]
        return Plain(rows.numpy(), np.array(targets), cache)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(4)
    LlamaForCausalLM(LlamaConfig(**CONFIG, initializer_range=0.3)).save_pretrained(folder)
    return folder


def verified(folder: Path, checkpoint: Path) -> net.Ran:
    document = {
        "version": 1,
        "name": "llama",
        "seed": 2,
        "subject": {
            "kind": "transformers",
            "checkpoint": str(checkpoint),
            "attention": "eager",
            "cache": "dynamic",
        },
        "numerics": {"execution": "float32", "temperatures": [1.0]},
        "workloads": [{"name": "w", "prompts": list(PROMPTS), "generate": GENERATED}],
        "checks": CHECKS,
        "controls": ["unequal-lengths"],
    }
    return net.verify(folder, document)


@pytest.fixture(scope="module")
def ran(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> net.Ran:
    return verified(tmp_path_factory.mktemp("run"), checkpoint)


@dataclass(frozen=True)
class Calls:
    """What the plain loop gave, by path, and where its model lies."""

    checkpoint: Path
    by_path: dict[str, Plain]


@pytest.fixture(scope="module")
def calls(checkpoint: Path, ran: net.Ran) -> Calls:
    loop = Loop(checkpoint)
    sides = {name: loop.alone(ran, decode=name == "decode") for name in ("prefill", "decode")}
    return Calls(checkpoint, {**sides, "padded-left": loop.padded(ran)})


def bits(ran: net.Ran, calls: Calls) -> list[str]:
    """Counts, place and bits of logprobs and rows, and what they would do to training."""
    found = []
    for path in ("decode", "padded-left"):
        case = ran.case(relation="invariance", path=path)
        left, right = calls.by_path["prefill"], calls.by_path[path]
        scored = [each.logprobs() for each in (left, right)]
        said = logprob_bits.answer(*({"logprobs": each} for each in scored))
        rows = row_bits.answer(*({"rows": each.logits} for each in (left, right)))
        off = sorted({*said["rows"], *rows["differing"]})
        found += unlike("verdict", case["verdict"], "differs" if off else "holds")
        for name in ("tokens", "differing_tokens", "max_ulp"):
            found += unlike(name, case[name], said[name])
        found += unlike("rows", case["differing_rows"], rows["differing_rows"])
        numbers = drift_numbers.answer(scored[1].tolist(), scored[0].tolist())
        found += net.numbers(case, numbers)
        if off and case["verdict"] == "differs":
            first, (sequence, number) = case["first_divergence"], divmod(off[0], GENERATED)
            place = f"w/{sequence}", len(PROMPTS[sequence]) + number, right.targets[off[0]]
            told = tuple(first[name] for name in ("sequence", "position", "token"))
            found += unlike("place", told, place)
            told = [first["reference_bits"], first["candidate_bits"]]
            patterns = [f"0x{each.view(np.uint32)[off[0]]:08x}" for each in scored]
            found += unlike("bits", told, patterns)
            kept = ran.kept(case)
            for name, values in zip(("reference", "candidate"), scored, strict=True):
                same = kept[f"{name}.values"][:, 0].tobytes() == values.tobytes()
                found += unlike(f"kept {name}", same, True)
            found += net.evidence(kept, said["rows"], rows["differing"], 0)
    return found


def contents(ran: net.Ran, calls: Calls) -> list[str]:
    """How many keys and values differ, which first, and by its digests every place."""
    case = ran.case(relation="cache")
    said = cache_contents.answer(*(calls.by_path[name].cache for name in ("prefill", "decode")))
    found = unlike("verdict", case["verdict"], "differs" if said["differing"] else "holds")
    for name in ("compared", "differing"):
        found += unlike(name, case["cache"][name], said[name])
    found += unlike("positions", case["differing_tokens"], said["differing_positions"])
    kept = ran.kept(case)
    # The tool has a row for the last token, too, which only prefill stores.
    both = kept["reference.is_held"] & kept["candidate.is_held"]
    rows = {int(p): number for number, p in enumerate(np.flatnonzero(both.any(0)))}
    off = np.argwhere((kept["reference.held"] != kept["candidate.held"]) & both[..., None])
    told = sorted([rows[int(p)], int(layer), "kv"[part]] for layer, p, part in off)
    return found + unlike("places", told, sorted(said["places"]))


def float64(ran: net.Ran, calls: Calls) -> list[str]:
    """What the tool held decode against is what a naive Llama in float64 gives."""
    case = ran.case(relation="accuracy")
    weights = load_file(str(calls.checkpoint / "model.safetensors"))
    config = json.loads((calls.checkpoint / "config.json").read_text())
    exact = []
    for own, prompt in zip(ran.ids, PROMPTS, strict=True):
        rows = llama_float64.logits(weights, config, own)[len(prompt) - 1 : -1]
        exact += logprob_bits.logprobs(rows, np.array(own[len(prompt) :]), 1.0).tolist()
    kept = ran.kept(case)
    off = float(np.abs(kept["exact"] - exact).max())
    found = [] if off <= FLOAT32_INSIDE else [f"float64: the tool is {off} from the script"]
    same = kept["value"].tobytes() == calls.by_path["decode"].logprobs().tobytes()
    return found + unlike("kept values", same, True)


Agreement = Callable[[net.Ran, Calls], list[str]]


@pytest.mark.parametrize("agreement", [bits, contents, float64], ids=lambda each: each.__name__)
def test_tool_and_scripts_agree(ran: net.Ran, calls: Calls, agreement: Agreement) -> None:
    assert agreement(ran, calls) == []


def test_there_is_something_to_agree_on(ran: net.Ran) -> None:
    """CPU libraries give decode other bits: some of the tokens, rows, keys and values, not all."""
    case, cache = ran.case(relation="invariance", path="decode"), ran.case(relation="cache")
    assert case["differing_rows"] > 0
    assert 0 < cache["cache"]["differing"] < cache["cache"]["compared"]


right_bits, right_digest, right_digests = (
    bits_and_limits.differing,
    scoring.row_digest,
    cache_snapshot._digests,
)
right_oracle = TransformersSubject.oracle


def half_a_row(x: torch.Tensor) -> torch.Tensor:
    return right_digest(x[:, :1].contiguous())


def next_rows(self: Any, member: Any, ids: Any, rows: range) -> torch.Tensor:
    return right_oracle(self, member, ids, range(rows.start + 1, rows.stop + 1))


CHANGES: dict[str, tuple[Any, str, Any, Agreement]] = {
    "only-some-bits": (
        bits_and_limits,
        "differing",
        lambda a, b: right_bits(a, b) & (a < -2.0),
        bits,
    ),
    "half-a-row": (scoring, "row_digest", half_a_row, bits),
    "values-not-digested": (
        cache_snapshot,
        "_digests",
        lambda k, v: right_digests(k, 0 * v),
        contents,
    ),
    "oracle-of-the-next-row": (TransformersSubject, "oracle", next_rows, float64),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tool_disagrees(
    change: str, checkpoint: Path, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of this net, as in ``test_the_net_sees``."""
    place, name, by, agreement = CHANGES[change]
    monkeypatch.setattr(place, name, by)
    assert agreement(verified(tmp_path, checkpoint), calls) != []
