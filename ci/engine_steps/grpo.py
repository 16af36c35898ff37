"""One step of TRL's GRPO trainer, run in an environment of its own: URL CHECKPOINT OUT."""

SCRIPT = """
import json, sys, tempfile, urllib.request
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

url, checkpoint, out = sys.argv[1:]

def ask(ids):
    body = {"model": "m", "prompt": ids, "max_tokens": 32, "temperature": 1.0, "logprobs": 1,
            "ignore_eos": True, "return_token_ids": True}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.loads(answer.read())["choices"][0]

def rollout(prompts, trainer):
    ids = [tokenizer(each)["input_ids"] for each in prompts]
    found = [ask(each) for each in ids]
    return {"prompt_ids": ids, "completion_ids": [each["token_ids"] for each in found],
            "logprobs": [each["logprobs"]["token_logprobs"] for each in found]}

class Recording(GRPOTrainer):
    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        kept = {name: batch[name] for name in (*names, "sampling_per_token_logps")}
        whole = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        seen = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        count = batch["completion_ids"].shape[1]
        with torch.no_grad():
            found = self._get_per_token_logps_and_entropies(self.model, whole, seen, count)
        kept["old_per_token_logps"] = found[0]
        torch.save({name: value.cpu() for name, value in kept.items()}, out)
        return batch

tokenizer = AutoTokenizer.from_pretrained(checkpoint)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(0)
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
with tempfile.TemporaryDirectory() as folder:
    settings = GRPOConfig(output_dir=folder, max_steps=1, per_device_train_batch_size=4,
                          num_generations=4, max_completion_length=32, use_cpu=True, bf16=False,
                          report_to=[], use_vllm=False, save_strategy="no")
    data = Dataset.from_dict({"prompt": ["t1 t2 t3 t4 t5", "t9 t8 t7"]})
    Recording(model, lambda completions, **more: [float(len(each)) for each in completions],
              args=settings, train_dataset=data, processing_class=tokenizer,
              rollout_func=rollout).train()
"""
