"""An unmodified model of transformers: generate() against one forward pass, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from kvparity_kernels import invariant
from kvparity_kernels import launch as _settled  # noqa: F401 - before transformers imports Triton
from kvparity_kernels.overrides import Invariant

CONFIG = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
PROMPT, NEW = 40, 24

# What a Qwen3 calls in inference mode, and whose torch original follows the number of rows on
# every x86 CPU tried: those need no planting to be seen when they are left out.
OVERRIDDEN = ("linear", "bmm", "_softmax", "mean.dim")
EVEN = ("silu", "rsqrt", "pow.Tensor_Scalar", "cos", "sin")
FOLLOW_THE_ROWS = ("linear", "bmm")


@cache
def model(
    kind: str = "qwen3",
    dtype: torch.dtype = torch.float32,
    attention: str = "eager",
    width: int = 0,
) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    more = {"intermediate_size": width} if width else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(kind, **(CONFIG | more)),
            attn_implementation=attention,
            dtype=dtype,
        ).eval()


def differing(lm: Any, prompt: int = PROMPT, new: int = NEW) -> int:
    """Of ``new`` tokens, how many have a bit of their logits that generate() and rescoring see
    differently."""
    ids = torch.randint(0, 512, (1, prompt), generator=torch.Generator().manual_seed(prompt))
    with torch.inference_mode():
        out = lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        rollout: Tensor = torch.cat(out.logits)
        rescore: Tensor = lm(out.sequences).logits[0, prompt - 1 : -1].to(rollout.dtype)
    assert rollout.shape == rescore.shape == (new, 512)
    assert rollout.isfinite().all()
    view = torch.int32 if rollout.dtype == torch.float32 else torch.int16
    return int((rollout.view(view) != rescore.contiguous().view(view)).any(1).sum())


@pytest.mark.parametrize("prompt", [3, PROMPT, 130])
def test_generate_agrees_with_a_full_rescore(prompt: int) -> None:
    lm = model()
    with invariant() as report:
        assert differing(lm, prompt) == 0
    assert set(report.overridden) == set(OVERRIDDEN)
    assert set(report.even) == set(EVEN)
    assert not report.passed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_models(dtype: torch.dtype) -> None:
    lm = model(dtype=dtype)
    with invariant():
        assert differing(lm) == 0


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "gemma2"])
def test_other_models(kind: str) -> None:
    lm = model(kind, width=120)  # no whole number of vectors
    with invariant() as report:
        assert differing(lm, new=6) == 0
    assert not report.passed


def test_without_the_mode_tokens_differ() -> None:
    """Torch's linear layers follow the number of rows, here as elsewhere."""
    assert differing(model()) > 0


def torchs(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Torch's own operation: the override is left out."""
    return func(*args, **kwargs)


def follows_the_rows(func: Any, *args: Any, **kwargs: Any) -> Any:
    """What an original that follows the number of rows would do: another last bit for many."""
    y = func(*args, **kwargs)
    tokens = y.shape[2 if y.dim() == 4 and y.shape[1] == CONFIG["num_attention_heads"] else 1]
    return y if tokens == 1 else torch.nextafter(y, torch.full_like(y, torch.inf))


def left_out(name: str, original: Callable[..., Any]) -> int:
    planted: Mapping[str, Callable[..., Any]] = {name: original}
    lm = model()
    with Invariant(planted=planted) as report:
        found = differing(lm)
    assert name not in report.overridden
    assert name not in report.even
    return found


@pytest.mark.parametrize("name", FOLLOW_THE_ROWS)
def test_leaving_an_override_out_is_seen(name: str) -> None:
    assert left_out(name, torchs) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OVERRIDDEN, *EVEN])
def test_leaving_an_override_out_is_seen_where_the_original_follows_the_rows(name: str) -> None:
    """For originals that on this CPU and at these shapes happen not to."""
    assert left_out(name, follows_the_rows) > 0


def test_sdpa_is_answered() -> None:
    """A model with its default attention, and the control that would be seen."""
    lm = model(attention="sdpa")
    with invariant() as report:
        assert differing(lm, 12, 6) == 0
    assert report.overridden["scaled_dot_product_attention"] > 0
    with Invariant(planted={"scaled_dot_product_attention": follows_the_rows}):
        assert differing(lm, 12, 6) > 0


def test_a_mixture_of_experts_is_answered() -> None:
    lm = model("mixtral", attention="sdpa")
    assert differing(lm, 12, 6) > 0  # the control
    with invariant() as report:
        assert differing(lm, 12, 6) == 0
    assert report.overridden.keys() & {"_grouped_mm", "index_add"}
    assert not report.passed
