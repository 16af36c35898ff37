"""The same numbers under the names that frameworks log, by their own formulas, in float64.

Where a framework computes in float32 its log differs in the last digits. Batches, ranks and
micro-batches are not known here: what they average of averages is averaged once. Sources stand at
each function, as ``repository: file``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kvparity.rollouts.metrics import CLAMP, k3
from kvparity.rollouts.tokens import Doubles, Tokens

Named = Mapping[str, float]


def verl(tokens: Tokens) -> Named:
    """verl: verl/utils/debug/metrics.py and verl/trainer/ppo/rollout_corr_helper.py."""
    d = tokens.d
    trainer, rollout = _wide(tokens)
    gap = np.abs(np.exp(trainer) - np.exp(rollout))
    by_sequence = tokens.sums(trainer) / tokens.lengths, tokens.sums(rollout) / tokens.lengths
    log_ppl = by_sequence[1] - by_sequence[0]
    clipped = np.clip(d, -CLAMP, CLAMP)
    sums = np.clip(tokens.sums(d), -CLAMP, CLAMP)
    weights = np.clip(np.exp(clipped), 0.5, 2.0)  # rollout_is_threshold 2.0, and its inverse
    return {
        "training/rollout_probs_diff_max": gap.max(),
        "training/rollout_probs_diff_mean": gap.mean(),
        "training/rollout_probs_diff_std": _std(gap),
        "training/rollout_actor_probs_pearson_corr": _pearson(np.exp(trainer), np.exp(rollout)),
        "rollout_corr/kl": -d.mean(),
        "rollout_corr/k3_kl": k3(d),
        "rollout_corr/training_ppl": np.exp(-by_sequence[0]).mean(),
        "rollout_corr/training_log_ppl": -by_sequence[0].mean(),
        "rollout_corr/rollout_ppl": np.exp(-by_sequence[1]).mean(),
        "rollout_corr/rollout_log_ppl": -by_sequence[1].mean(),
        "rollout_corr/log_ppl_diff": log_ppl.mean(),
        "rollout_corr/log_ppl_abs_diff": np.abs(log_ppl).mean(),
        "rollout_corr/log_ppl_diff_max": log_ppl.max(),
        "rollout_corr/log_ppl_diff_min": log_ppl.min(),
        "rollout_corr/ppl_ratio": np.exp(log_ppl).mean(),
        "rollout_corr/chi2_token": np.exp(2 * clipped).mean() - 1,
        "rollout_corr/chi2_seq": np.exp(2 * sums).mean() - 1,
        "rollout_corr/rollout_is_eff_sample_size": weights.mean() ** 2 / (weights**2).mean(),
    }


def trl(tokens: Tokens) -> Named:
    """TRL: trl/trainer/grpo_trainer.py; ratios before truncation or masking."""
    d = tokens.d
    ratio = np.exp(d)
    return {
        "sampling/sampling_logp_difference/mean": np.abs(d).mean(),
        "sampling/sampling_logp_difference/max": np.abs(d).max(),
        "sampling/importance_sampling_ratio/min": ratio.min(),
        "sampling/importance_sampling_ratio/mean": ratio.mean(),
        "sampling/importance_sampling_ratio/max": ratio.max(),
    }


def nemo_rl(tokens: Tokens) -> Named:
    """NeMo-RL: nemo_rl/algorithms/loss_functions.py, docs/guides/grpo.md."""
    d = tokens.d
    trainer, rollout = _wide(tokens)
    mixture = np.log(0.5 * np.exp(trainer) + 0.5 * np.exp(rollout))
    divergence = 0.5 * k3(mixture - rollout) + 0.5 * k3(mixture - trainer)
    return {
        "token_mult_prob_error": np.exp(np.abs(d)).mean(),
        "gen_kl_error": k3(d),
        "policy_kl_error": k3(-d),
        "js_divergence_error": divergence,
        "sampling_importance_ratio": np.exp(d).mean(),
    }


def slime(tokens: Tokens) -> Named:
    """slime: slime/backends/megatron_utils/loss.py, the mean over samples of each sample's mean."""
    d = tokens.d
    return {
        "train/train_rollout_logprob_abs_diff": _mean_of_means(tokens, np.abs(d)),
        "train/train_rollout_kl": _mean_of_means(tokens, np.expm1(d) - d),
    }


def prime_rl(tokens: Tokens) -> Named:
    """prime-rl: src/prime_rl/trainer/rl/loss.py and mismatch.py."""
    d = tokens.d
    each = np.expm1(d) - d
    return {
        "mismatch_kl": _mean_of_means(tokens, each),
        "logprob_abs_error": np.abs(d).mean(),
        "logprob_bit_mismatch": 1 - tokens.equal.mean(),
        "mismatch_k3_stable": each.mean(),
    }


def skyrl(tokens: Tokens) -> Named:
    """SkyRL: skyrl_train/trainer.py."""
    size = np.abs(tokens.d)
    return {
        "policy/rollout_train_logprobs_abs_diff_mean": size.mean(),
        "policy/rollout_train_logprobs_abs_diff_std": _std(size),
        "policy/rollout_train_logprobs_abs_diff_max": size.max(),
        "policy/rollout_train_logprobs_abs_diff_min": size.min(),
    }


def openrlhf(tokens: Tokens) -> Named:
    """OpenRLHF: openrlhf/models/loss.py."""
    return {"vllm_kl": -tokens.d.mean()}


def open_instruct(tokens: Tokens) -> Named:
    """open-instruct: open_instruct/grpo_fast.py."""
    d = tokens.d
    rollout = _wide(tokens)[1]
    return {
        "debug/vllm_vs_local_logprob_diff_mean": np.abs(d).mean(),
        "debug/vllm_vs_local_logprob_diff_max": np.abs(d).max(),
        "debug/vllm_vs_local_logprob_diff_std": _std(np.abs(d)),
        "debug/vllm_local_reverse_kl": (np.exp(rollout) * -d).mean(),
    }


def areal(tokens: Tokens) -> Named:
    """AReaL: pull request 1207."""
    return {"rollout_train_extreme_frac_tau2": (np.abs(tokens.d) > np.log(2)).mean()}


def tinker(tokens: Tokens) -> Named:
    """tinker-cookbook: tinker_cookbook/rl/metrics.py."""
    d = tokens.d
    return {
        "optim/kl_sample_train_v1": -d.mean(),
        "optim/kl_sample_train_v2": 0.5 * (d**2).mean(),
        "optim/entropy": -_wide(tokens)[1].mean(),
    }


FRAMEWORKS: Mapping[str, Callable[[Tokens], Named]] = {
    "verl": verl,
    "trl": trl,
    "nemo-rl": nemo_rl,
    "slime": slime,
    "prime-rl": prime_rl,
    "skyrl": skyrl,
    "openrlhf": openrlhf,
    "open-instruct": open_instruct,
    "areal": areal,
    "tinker": tinker,
}
"""By the name that ``--names`` takes."""


def named(framework: str, tokens: Tokens) -> dict[str, float]:
    """Plain floats, in the order of the framework's own log."""
    with np.errstate(all="ignore"):  # what is too large is inf, of one token or a constant nan
        return {name: float(value) for name, value in FRAMEWORKS[framework](tokens).items()}


def _wide(tokens: Tokens) -> tuple[Doubles, Doubles]:
    return tokens.trainer.astype(np.float64), tokens.rollout.astype(np.float64)


def _mean_of_means(tokens: Tokens, values: Doubles) -> float:
    return float((tokens.sums(values) / tokens.lengths).mean())


def _std(values: Doubles) -> float:
    """As ``torch.std``: unbiased; 0 of one value, where torch has NaN."""
    return float(values.std(ddof=1)) if values.size > 1 else 0.0


def _pearson(a: Doubles, b: Doubles) -> float:
    """NaN where a side is constant, as ``torch.corrcoef`` has it."""
    return float(np.corrcoef(a, b)[0, 1]) if a.size > 1 else float("nan")
