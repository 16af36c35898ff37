"""Metrics against loops over tokens, and frameworks' names against formulas from their sources."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import mean

import numpy as np
import pytest
import torch

from kvparity.rollouts.metrics import CLAMP, Core, metrics
from kvparity.rollouts.names import FRAMEWORKS, named
from kvparity.rollouts.tokens import ScoredSequence, Tokens


def _tokens(seed: int = 0, lengths: tuple[int, ...] = (7, 1, 12), spread: float = 0.3) -> Tokens:
    random = np.random.default_rng(seed)

    def one(name: int, n: int) -> ScoredSequence:
        rollout = -random.exponential(2.0, n).astype(np.float32)
        trainer = np.minimum(rollout + random.normal(0, spread, n), 0).astype(np.float32)
        trainer[::3] = rollout[::3]
        ints = np.arange(n, dtype=np.int32)
        return ScoredSequence(str(name), rollout, trainer, ints, ints)

    return Tokens.of(one(name, n) for name, n in enumerate(lengths))


def _ess(logs: list[float]) -> float:
    weights = [math.exp(max(-CLAMP, min(CLAMP, it))) for it in logs]
    return sum(weights) ** 2 / sum(it * it for it in weights) / len(weights)


def _by_loop(d: list[float], sums: list[float]) -> Core:
    return Core(
        mean_abs_d=mean(abs(it) for it in d),
        max_abs_d=max(abs(it) for it in d),
        k1=mean(-it for it in d),
        k3=mean(math.expm1(it) - it for it in d),
        ess_tokens=_ess(d),
        ess_sequences=_ess(sums),
    )


def _near(found: Core | None, wanted: Core) -> None:
    assert found is not None
    assert vars(found) == pytest.approx(vars(wanted), rel=1e-12)


@pytest.mark.parametrize("spread", [0.0, 1e-4, 0.3])
def test_metrics_are_those_of_a_loop(spread: float) -> None:
    tokens = _tokens(spread=spread)
    d = [float(t) - float(r) for t, r in zip(tokens.trainer, tokens.rollout, strict=True)]
    cut = tokens.starts.tolist()
    parts = [d[a:b] for a, b in pairwise(cut)]
    found = metrics(tokens)
    assert (found.tokens, found.sequences) == (20, 3)
    _near(found.all, _by_loop(d, [sum(part) for part in parts]))
    worst = max(range(20), key=lambda at: abs(d[at]))
    assert found.worst == worst
    kept = [[it for it in part if it is not d[worst]] for part in parts]
    kept = [part for part in kept if part]
    rest = [it for part in kept for it in part]
    assert len(rest) == 19
    _near(found.without_worst, _by_loop(rest, [sum(part) for part in kept]))
    assert found.mean_d == pytest.approx(mean(d))
    assert found.equal_bits == sum(it == 0 for it in d) / 20
    assert found.outside_clip == pytest.approx(sum(not 0.8 <= math.exp(it) <= 1.2 for it in d) / 20)
    middle = sorted(abs(it) for it in d)[9:11]
    assert dict(found.abs_percentiles)[50.0] == pytest.approx(mean(middle))
    middle = sorted(d)[9:11]
    assert dict(found.ratio_percentiles)[50.0] == pytest.approx(math.exp(mean(middle)))


def test_a_clamp_that_acted_is_counted() -> None:
    """Every token is 21 nats off: ESS says 1, and the counts say why."""
    rollout = np.full(4, -1.0, dtype=np.float32)
    ints = np.arange(4, dtype=np.int32)
    tokens = Tokens.of([ScoredSequence("a", rollout, rollout - 21, ints, ints)])
    found = metrics(tokens)
    assert found.all.ess_tokens == pytest.approx(1.0)
    assert (found.clamped_tokens, found.clamped_sequences) == (4, 1)
    assert metrics(_tokens()).clamped_tokens == 0


def test_zeros_of_two_signs_differ() -> None:
    ints = np.arange(1, dtype=np.int32)
    zero = np.zeros(1, dtype=np.float32)
    assert metrics(Tokens.of([ScoredSequence("a", zero, -zero, ints, ints)])).equal_bits == 0.0
    alone = metrics(Tokens.of([ScoredSequence("a", zero, zero, ints, ints)]))
    assert alone.equal_bits == 1.0
    assert alone.without_worst is None
    with pytest.raises(ValueError, match="no token is compared"):
        metrics(Tokens.of([]))


def _padded(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Trainer, rollout and mask as frameworks have them, [sequences, width], float64."""
    shape = (len(tokens.names), int(tokens.lengths.max()))
    trainer, rollout, mask = (torch.zeros(shape, dtype=torch.float64) for _ in range(3))
    for at, (start, stop) in enumerate(pairwise(tokens.starts)):
        n = int(stop - start)
        trainer[at, :n] = torch.from_numpy(tokens.trainer[start:stop])
        rollout[at, :n] = torch.from_numpy(tokens.rollout[start:stop])
        mask[at, :n] = 1
    return trainer, rollout, mask


def test_names_are_those_of_the_frameworks() -> None:
    """Each formula over padded tensors with a mask, as the sources have it."""
    tokens = _tokens(seed=3)
    t, r, m = _padded(tokens)
    on = m.bool()
    d, n = (t - r)[on], m.sum(-1)

    def each(x: torch.Tensor) -> torch.Tensor:
        return (x * m).sum(-1) / n

    k3 = torch.exp(t - r) - (t - r) - 1
    p, q = torch.exp(t)[on], torch.exp(r)[on]
    weights = torch.exp(d).clamp(0.5, 2.0)
    ppl = each(r) - each(t)
    sums = ((t - r) * m).sum(-1)
    mix = torch.log(0.5 * p + 0.5 * q)

    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.exp(a - b) - (a - b) - 1

    wanted = {
        "training/rollout_probs_diff_max": (p - q).abs().max(),
        "training/rollout_probs_diff_mean": (p - q).abs().mean(),
        "training/rollout_probs_diff_std": (p - q).abs().std(),
        "training/rollout_actor_probs_pearson_corr": torch.corrcoef(torch.stack([p, q]))[0][1],
        "rollout_corr/kl": (r - t)[on].mean(),
        "rollout_corr/k3_kl": k3[on].mean(),
        "rollout_corr/training_ppl": torch.exp(-each(t)).mean(),
        "rollout_corr/training_log_ppl": (-each(t)).mean(),
        "rollout_corr/rollout_ppl": torch.exp(-each(r)).mean(),
        "rollout_corr/rollout_log_ppl": (-each(r)).mean(),
        "rollout_corr/log_ppl_diff": ppl.mean(),
        "rollout_corr/log_ppl_abs_diff": ppl.abs().mean(),
        "rollout_corr/log_ppl_diff_max": ppl.max(),
        "rollout_corr/log_ppl_diff_min": ppl.min(),
        "rollout_corr/ppl_ratio": torch.exp(ppl).mean(),
        "rollout_corr/chi2_token": torch.exp(d).square().mean() - 1,
        "rollout_corr/chi2_seq": torch.exp(2 * sums).mean() - 1,
        "rollout_corr/rollout_is_eff_sample_size": 1 / (weights / weights.mean()).square().mean(),
        "sampling/sampling_logp_difference/mean": d.abs().mean(),
        "sampling/sampling_logp_difference/max": d.abs().max(),
        "sampling/importance_sampling_ratio/min": d.exp().min(),
        "sampling/importance_sampling_ratio/mean": d.exp().mean(),
        "sampling/importance_sampling_ratio/max": d.exp().max(),
        "token_mult_prob_error": d.abs().exp().mean(),
        "gen_kl_error": k3[on].mean(),
        "policy_kl_error": (torch.exp(-d) + d - 1).mean(),
        "js_divergence_error": 0.5 * (kl(mix, r[on]) + kl(mix, t[on])).mean(),
        "sampling_importance_ratio": d.exp().mean(),
        "train/train_rollout_logprob_abs_diff": each((t - r).abs()).mean(),
        "train/train_rollout_kl": each(k3).mean(),
        "mismatch_kl": each(k3).mean(),
        "logprob_abs_error": d.abs().mean(),
        "logprob_bit_mismatch": (d != 0).double().mean(),
        "mismatch_k3_stable": (torch.expm1(d) - d).mean(),
        "policy/rollout_train_logprobs_abs_diff_mean": d.abs().mean(),
        "policy/rollout_train_logprobs_abs_diff_std": d.abs().std(),
        "policy/rollout_train_logprobs_abs_diff_max": d.abs().max(),
        "policy/rollout_train_logprobs_abs_diff_min": d.abs().min(),
        "vllm_kl": (r - t)[on].mean(),
        "debug/vllm_vs_local_logprob_diff_mean": d.abs().mean(),
        "debug/vllm_vs_local_logprob_diff_max": d.abs().max(),
        "debug/vllm_vs_local_logprob_diff_std": d.abs().std(),
        "debug/vllm_local_reverse_kl": (torch.exp(r) * (r - t))[on].mean(),
        "rollout_train_extreme_frac_tau2": (d.abs() > math.log(2)).double().mean(),
        "optim/kl_sample_train_v1": (r - t)[on].mean(),
        "optim/kl_sample_train_v2": 0.5 * (t - r)[on].square().mean(),
        "optim/entropy": -r[on].mean(),
    }
    found = {name: it for framework in FRAMEWORKS for name, it in named(framework, tokens).items()}
    assert found == pytest.approx({name: float(it) for name, it in wanted.items()}, rel=1e-9)
