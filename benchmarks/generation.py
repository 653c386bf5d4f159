"""Tokens a second of generation, against Hugging Face PyTorch on the same weights, prompts and machine.

    python benchmarks/generation.py --rows 8 --prompt_tokens 32 --new_tokens 32

The model has GPT-2's shape (124 million parameters) and random weights. Both decode greedily and to the end,
and both keep a cache of keys and values. They take turns, so that what else the machine does falls on both;
each one's first run, which compiles, is told apart, and the best of the others counts.
"""

import pathlib
import tempfile
import time

import jax
import numpy as np
import tokenizers
import torch
import transformers
from absl import app, flags

import expertlens_jax as el
from expertlens_jax.models.generation import generate

ROWS = flags.DEFINE_integer("rows", 8, "Prompts.")
PROMPT_TOKENS = flags.DEFINE_integer("prompt_tokens", 32, "Tokens a prompt.")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 32, "Tokens to generate a prompt.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed runs of each.")


def save_gpt2(directory: pathlib.Path) -> transformers.PreTrainedModel:
    """A random GPT-2 and a tokenizer whose words are numbers, in a directory; the PyTorch model."""
    torch.manual_seed(0)
    reference = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    reference.save_pretrained(directory)
    vocabulary = {str(i) if i else "[PAD]": i for i in range(reference.config.vocab_size)}
    words = tokenizers.models.WordLevel(vocabulary, unk_token="[PAD]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(directory)
    reference.generation_config.eos_token_id = None  # neither ends early
    return reference


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        reference = save_gpt2(pathlib.Path(directory))
        model = el.load_model(directory)
    prompt_ids = np.random.default_rng(0).integers(1000, 50_000, (ROWS.value, PROMPT_TOKENS.value))
    prompts = [" ".join(map(str, row)) for row in prompt_ids]

    def ours() -> np.ndarray:
        return np.stack(generate(model, prompts, max_new_tokens=NEW_TOKENS.value, temperature=0).token_ids)

    def theirs() -> np.ndarray:
        inputs = torch.tensor(prompt_ids)
        with torch.no_grad():
            output = reference.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                do_sample=False,
                max_new_tokens=NEW_TOKENS.value,
                pad_token_id=0,
            )
        return output[:, PROMPT_TOKENS.value :].numpy()

    seconds: dict[str, list[float]] = {"expertlens_jax": [], "transformers": []}
    outputs = {}
    for _ in range(1 + REPEATS.value):
        for name, run in ("expertlens_jax", ours), ("transformers", theirs):
            start = time.perf_counter()
            outputs[name] = run()
            seconds[name].append(time.perf_counter() - start)
    same = (outputs["expertlens_jax"] == outputs["transformers"]).all()

    num_tokens = ROWS.value * NEW_TOKENS.value
    rates = {name: num_tokens / min(times[1:]) for name, times in seconds.items()}
    versions = {"expertlens_jax": f"jax {jax.__version__}", "transformers": f"torch {torch.__version__}"}
    platform, threads = jax.devices()[0].platform, torch.get_num_threads()
    print(f"GPT-2 (124M) with random weights, float32; jax on {platform}, torch on {threads} CPU threads")
    print(f"{ROWS.value} prompts of {PROMPT_TOKENS.value} tokens, {NEW_TOKENS.value} new ones each")
    for name, rate in rates.items():
        first = seconds[name][0]
        print(f"{name:>15} ({versions[name]}): {rate:.1f} tokens/s; the first run took {first:.1f} s")
    print(f"ratio {rates['expertlens_jax'] / rates['transformers']:.2f}; same tokens: {'yes' if same else 'no'}")


if __name__ == "__main__":
    app.run(main)
