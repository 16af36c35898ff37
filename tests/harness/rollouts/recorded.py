"""One small rollout, in every layout that kvparity reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

VOCABULARY = 12


@dataclass(frozen=True)
class Drawn:
    """A sequence with the logprobs of both sides; every number is a float32."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    mask: tuple[int, ...]
    rollout: tuple[float, ...]
    trainer: tuple[float, ...]


def _exact(*values: float) -> tuple[float, ...]:
    return tuple(np.array(values, dtype=np.float32).tolist())


SEQUENCES = (
    Drawn((3, 1), (4, 1, 5), (1, 1, 1), _exact(-1.1, -0.2, -3.3), _exact(-1.2, -0.2, -3.1)),
    Drawn((2, 7, 1), (8, 0), (1, 1), _exact(-2.5, -0.7), _exact(-2.5, -0.9)),
    Drawn((9,), (6, 6, 2, 11), (1, 0, 0, 1), _exact(-1.5, -9, -8, -4), _exact(-1, -9, -8, -4)),
)


def _padded(rows: list[list[float]], left: int = 0, right: int = 0) -> list[list[float]]:
    width = max(len(row) for row in rows)
    return [
        [0] * (width - len(row)) * left + row + [0] * (width - len(row)) * right for row in rows
    ]


def _left(rows: list[list[float]]) -> list[list[float]]:
    return _padded(rows, left=1)


def _right(rows: list[list[float]]) -> list[list[float]]:
    return _padded(rows, right=1)


def _column(name: str) -> list[list[float]]:
    return [list(getattr(each, name)) for each in SEQUENCES]


def _ones(name: str) -> list[list[float]]:
    return [[1] * len(getattr(each, name)) for each in SEQUENCES]


def _token_export() -> list[object]:
    return [
        {
            "schema_version": 1,
            "step": 4,
            "rank": 0,
            "export_sequence_idx": at,
            "token_ids": [*each.prompt, *each.response],
            "position_ids": list(range(len(each.prompt) + len(each.response))),
            "loss_mask": [False] * len(each.prompt) + [bool(it) for it in each.mask],
            "inference_logprobs": [0.0] * len(each.prompt) + list(each.rollout),
            "trainer_logprobs": [0.0] * len(each.prompt) + list(each.trainer),
            "mismatch_kl": [None] * (len(each.prompt) + len(each.response)),
        }
        for at, each in enumerate(SEQUENCES)
    ]


def _micro_batch() -> dict[str, object]:
    export = _token_export()
    flat = {"input_ids": "token_ids", "loss_mask": "loss_mask", "position_ids": "position_ids"}
    flat["inference_logprobs"] = "inference_logprobs"
    return {
        name: [[it for each in export for it in each[other]]]  # type: ignore[index]
        for name, other in flat.items()
    }


def _tokens(each: Drawn) -> dict[str, object]:
    return {
        "prompt_ids": list(each.prompt),
        "prompt_mask": [0] * len(each.prompt),
        "completion_ids": list(each.response),
        "completion_mask": list(each.mask),
        "completion_logprobs": list(each.rollout),
        "routed_experts": routes(each),
    }


def routes(each: Drawn) -> list[list[list[int]]]:
    """Two experts of one layer for all tokens but the last, as engines record them."""
    return [[[at % 3, 3]] for at in range(len(each.prompt) + len(each.response) - 1)]


def _slime() -> dict[str, object]:
    samples = [
        {
            "index": at,
            "tokens": [*each.prompt, *each.response],
            "response_length": len(each.response),
            "loss_mask": list(each.mask),
            "rollout_log_probs": list(each.rollout),
            "rollout_routed_experts": routes(each),
            "weight_versions": ["7"],
            "status": "completed",
        }
        for at, each in enumerate(SEQUENCES)
    ]
    return {"rollout_id": 0, "samples": samples}


def _slime_train() -> dict[str, object]:
    tokens = [[*each.prompt, *each.response] for each in SEQUENCES]
    data = {
        "tokens": tokens,
        "response_lengths": [len(each.response) for each in SEQUENCES],
        "total_lengths": [len(row) for row in tokens],
        "loss_masks": _column("mask"),
        "rollout_log_probs": _column("rollout"),
        "log_probs": _column("trainer"),
    }
    return {"rollout_id": 0, "rank": 0, "rollout_data": data}


def _verl() -> dict[str, object]:
    seen = zip(_left(_ones("prompt")), _right(_ones("response")), strict=True)
    return {
        "prompts": _left(_column("prompt")),
        "responses": _right(_column("response")),
        "response_mask": _right(_column("mask")),
        "attention_mask": [[*prompt, *response] for prompt, response in seen],
        "rollout_log_probs": _right(_column("rollout")),
        "old_log_probs": _right(_column("trainer")),
    }


def _trl_batch() -> dict[str, object]:
    return {
        "prompt_ids": _left(_column("prompt")),
        "prompt_mask": _left(_ones("prompt")),
        "completion_ids": _right(_column("response")),
        "completion_mask": _right(_column("mask")),
        "sampling_per_token_logps": _right(_column("rollout")),
        "old_per_token_logps": _right(_column("trainer")),
    }


def _openrlhf() -> dict[str, object]:
    rows = [
        _left(_column("prompt"))[at] + _right(_column("response"))[at]
        for at in range(len(SEQUENCES))
    ]
    before = len(_left(_column("prompt"))[0]) - 1
    return {
        "sequences": rows,
        "attention_mask": _verl()["attention_mask"],
        "action_mask": [[0] * before + row for row in _right(_column("mask"))],
        "rollout_log_probs": [[0.0] * before + row for row in _right(_column("rollout"))],
        "action_log_probs": [[0.0] * before + row for row in _right(_column("trainer"))],
    }


def vllm_rollout(each: Drawn) -> dict[str, object]:
    """A request and its answer."""
    logprobs = {"tokens": ["?"] * len(each.response), "token_logprobs": list(each.rollout)}
    choice = {
        "index": 0,
        "text": "?",
        "token_ids": list(each.response),
        "prompt_token_ids": list(each.prompt),
        "logprobs": logprobs,
    }
    request = {"prompt": list(each.prompt), "temperature": 0.7, "logprobs": 1}
    return {"request": request, "response": {"choices": [choice]}}


def vllm_scores(each: Drawn) -> dict[str, object]:
    """The whole text as a prompt, with the logprobs of the trainer."""
    ids = [*each.prompt, *each.response]
    values = [-5.0] * len(each.prompt) + list(each.trainer)
    scored = [
        {str(token): {"logprob": value, "rank": 1}, "99": {"logprob": -1.0, "rank": 2}}
        for token, value in zip(ids, values, strict=True)
    ]
    choice = {"index": 0, "token_ids": [1], "logprobs": None, "prompt_token_ids": ids}
    choice["prompt_logprobs"] = [None, *scored[1:]]
    return {"request": {"prompt": ids, "prompt_logprobs": 0}, "response": {"choices": [choice]}}


def _vllm_chat(each: Drawn) -> dict[str, object]:
    content = [
        {"token": f"token_id:{token}", "logprob": value}
        for token, value in zip(each.response, each.rollout, strict=True)
    ]
    choice = {"index": 0, "message": {}, "logprobs": {"content": content}}
    return {"choices": [choice], "prompt_token_ids": list(each.prompt)}


def _vllm_generate(each: Drawn) -> dict[str, object]:
    content = [
        {"token_id": token, "logprob": value}
        for token, value in zip(each.response, each.rollout, strict=True)
    ]
    weights = [{"version": "7", "start": 0, "end": len(content)}]
    choice = {"index": 0, "logprobs": {"content": content}, "weight_versions": weights}
    request = {"token_ids": list(each.prompt), "sampling_params": {"temperature": 0.7}}
    return {"request": request, "response": {"choices": [choice]}}


def sglang_rollout(each: Drawn) -> dict[str, object]:
    """A request and its answer."""
    drawn = zip(each.rollout, each.response, strict=True)
    answer = {
        "output_ids": list(each.response),
        "meta_info": {"output_token_logprobs": [[value, token, None] for value, token in drawn]},
    }
    return {"request": {"input_ids": list(each.prompt)}, "response": answer}


def sglang_scores(each: Drawn) -> dict[str, object]:
    """The whole text as a prompt; the last id of the vocabulary is reported as 0."""
    ids = [*each.prompt, *each.response]
    values = [None] + [-5.0] * (len(each.prompt) - 1) + list(each.trainer)
    said = [0 if token == VOCABULARY - 1 else token for token in ids]
    answer = {
        "output_ids": [1],
        "meta_info": {
            "output_token_logprobs": [[-1.0, 1, None]],
            "input_token_logprobs": [[v, i, None] for v, i in zip(values, said, strict=True)],
        },
    }
    return {"request": {"input_ids": ids, "logprob_start_len": 0}, "response": answer}


def _tinker(each: Drawn) -> dict[str, object]:
    fields = {
        "target_tokens": {"data": list(each.response)},
        "logprobs": {"data": list(each.rollout)},
        "mask": {"data": list(each.mask)},
    }
    return {"loss_fn_inputs": fields}


def _each(write: Callable[[Drawn], dict[str, object]]) -> Callable[[], object]:
    return lambda: [write(each) for each in SEQUENCES]


LAYOUTS: Mapping[str, Callable[[], object]] = MappingProxyType(
    {
        "prime-rl token export": _token_export,
        "prime-rl micro batch": _micro_batch,
        "prime-rl tokens": _each(_tokens),
        "verifiers trajectory": lambda: {"trajectory": [{"tokens": _tokens(e)} for e in SEQUENCES]},
        "slime rollout": _slime,
        "slime train shard": _slime_train,
        "verl batch": _verl,
        "TRL server": lambda: {
            "prompt_ids": _column("prompt"),
            "completion_ids": _column("response"),
            "logprobs": _column("rollout"),
        },
        "TRL batch": _trl_batch,
        "SkyRL generator output": lambda: {
            "prompt_token_ids": _column("prompt"),
            "response_ids": _column("response"),
            "loss_masks": _column("mask"),
            "rollout_logprobs": _column("rollout"),
        },
        "OpenRLHF experience": _openrlhf,
        "tinker datum": _each(_tinker),
        "vLLM answers": _each(_vllm_chat),
        "vLLM answers, with requests": _each(vllm_rollout),
        "vLLM answers, with requests ": _each(_vllm_generate),
        "SGLang answers, with requests": _each(sglang_rollout),
    }
)
"""What a file of each layout holds. A name with a space at its end is a second form of one."""


def written(document: object, path: Path) -> Path:
    """As JSON, or as JSON Lines by the file's name."""
    if path.suffix == ".jsonl":
        assert isinstance(document, list)
        path.write_text("".join(json.dumps(each) + "\n" for each in document))
    else:
        path.write_text(json.dumps(document))
    return path
