"""A tiny seeded checkpoint, and a rollout that its own logits draw."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from kvparity.rollouts import RolloutWriter

VOCABULARY = 64
PROMPTS = ((3, 9, 17, 2, 40), (5, 8), (33, 1, 60, 12, 7, 7, 20))
RESPONSE = 9


def checkpoint(
    folder: Path, *, dropout: float = 0.0, seed: int = 0, vocabulary: int = VOCABULARY
) -> Path:
    """A Llama of two layers with a head that is tied to its embedding, as a folder."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def mixture(folder: Path) -> Path:
    """A Mixtral of two layers with eight experts, of which a token takes two."""
    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MixtralForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def plain(
    folder: Path, dtype: torch.dtype = torch.bfloat16, attention: str = "sdpa"
) -> LlamaForCausalLM:
    """The model as a script loads it."""
    load = AutoModelForCausalLM.from_pretrained
    model: LlamaForCausalLM = load(folder, dtype=dtype, attn_implementation=attention)
    return model.eval()


@torch.no_grad()
def script(
    model: torch.nn.Module, ids: torch.Tensor, prompt: int, temperature: float = 1.0
) -> torch.Tensor:
    """Logprobs of the response, float32, by one forward."""
    logits = model(input_ids=ids[None], use_cache=False).logits[0, prompt - 1 : -1]
    rows = (logits.float() / temperature).log_softmax(-1)
    return rows.gather(-1, ids[prompt:, None])[:, 0]


def rollout(folder: Path, path: Path, *, temperature: float = 1.0) -> Path:
    """Drawn token by token without a cache, with the logprobs of a forward pass of the whole."""
    model = plain(folder)
    draws = torch.Generator().manual_seed(1)
    with RolloutWriter(path, {"engine": "plain"}) as writer:
        for prompt in PROMPTS:
            ids = torch.tensor(prompt)
            for _ in range(RESPONSE):
                with torch.no_grad():
                    logits = model(input_ids=ids[None], use_cache=False).logits[0, -1].float()
                shares = (logits / temperature).softmax(-1)
                ids = torch.cat([ids, torch.multinomial(shares, 1, generator=draws)])
            values = script(model, ids, len(prompt), temperature)
            writer.write(prompt, ids[len(prompt) :], values, temperature=temperature)  # type: ignore[arg-type]
    return path
