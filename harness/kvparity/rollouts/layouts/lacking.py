"""Layouts that are known, and lack what a comparison needs: what, and how to record it."""

from __future__ import annotations

from kvparity.rollouts.layouts.base import FileLayout


def _lacking(name: str, keys: str, lacks: str) -> FileLayout:
    return FileLayout(name, frozenset(keys.split()), None, {}, lacks)


LAYOUTS = (
    _lacking(
        "verl rollout_data_dir",
        "input output step",
        "it holds texts, no token ids and no logprobs. Save the batch's tensors instead: "
        "torch.save({name: data.batch[name] for name in ('prompts', 'responses', "
        "'attention_mask', 'response_mask', 'rollout_log_probs', 'old_log_probs')}, 'batch.pt'), "
        "with actor_rollout_ref.rollout.calculate_log_probs=True",
    ),
    _lacking(
        "TRL log_completions",
        "prompt completion advantage",
        "it holds texts, no token ids and no logprobs. Write them with kvparity.rollouts."
        "RolloutWriter where _generate_and_score_completions returns",
    ),
    _lacking(
        "TRL server of old versions",
        "completion_ids",
        "it has no logprobs and no prompt_ids: trl vllm-serve returns them since 0.24",
    ),
)
