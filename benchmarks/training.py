"""A training step of Lenslet's size against optax's own loss, and against transformers in PyTorch.

    python benchmarks/training.py [--hidden 256] [--rows 16] [--steps 10]

The same model (GPT-NeoX, 4 layers, 8,192 tokens, context 128), random weights and tokens, AdamW, float32. Steps of the
three sides take turns; the median of each is told, and ratios.
"""

import argparse
import time

import jax
import numpy as np
import optax
import torch
import transformers

from expertlens_jax.models.families import family_of
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.training.pretrain import Recipe, init_state, train_step


def main() -> None:
    """Times all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    hf_config = transformers.AutoConfig.for_model(
        "gpt_neox",
        vocab_size=8192,
        max_position_embeddings=128,
        hidden_size=args.hidden,
        num_attention_heads=4,
        intermediate_size=4 * args.hidden,
        num_hidden_layers=4,
        tie_word_embeddings=True,
    )
    config = family_of(hf_config).translate(hf_config)
    recipe = Recipe(steps=1000, warmup_steps=10, peak_rate=1e-3)
    blocks = np.random.default_rng(0).integers(0, 8192, (args.rows, 129)).astype(np.int32)

    # Ours.
    state = init_state(config, recipe, jax.random.key(0))

    def ours() -> None:
        nonlocal state
        state, measured = train_step(state, blocks, config, recipe)
        jax.block_until_ready(measured)

    # The same with optax's cross-entropy, differentiated as it stands.
    transformation = recipe.transformation()
    plain = init_state(config, recipe, jax.random.key(0))
    params, optimizer = plain.params, plain.optimizer

    @jax.jit
    def plain_step(params, optimizer):  # noqa: ANN001, ANN202
        def loss(params):  # noqa: ANN001, ANN202
            mask = np.ones((args.rows, 128), bool)
            logits = Transformer(config).apply({"params": params}, blocks[:, :-1], mask, mask)
            return optax.softmax_cross_entropy_with_integer_labels(logits, blocks[:, 1:]).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, optimizer = transformation.update(gradient, optimizer, params)
        return optax.apply_updates(params, updates), optimizer, value

    def theirs_in_optax() -> None:
        nonlocal params, optimizer
        params, optimizer, value = plain_step(params, optimizer)
        jax.block_until_ready(value)

    # transformers in PyTorch.
    model = transformers.AutoModelForCausalLM.from_config(hf_config)
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    inputs, targets = torch.tensor(blocks[:, :-1]).long(), torch.tensor(blocks[:, 1:]).long()

    def theirs_in_torch() -> None:
        adamw.zero_grad()
        logits = model(inputs).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()

    sides = {"expertlens_jax": ours, "with optax's loss": theirs_in_optax, "transformers, PyTorch": theirs_in_torch}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.steps + 2):
        for name, step in sides.items():
            start = time.perf_counter()
            step()
            if turn >= 2:  # compiled, and warm
                seconds[name].append(time.perf_counter() - start)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    tokens = args.rows * 128
    for name, value in median.items():
        ratio = value / median["expertlens_jax"]
        print(
            f"{name:24}{value:8.3f} s a step, {tokens / value:8,.0f} tokens/s, expertlens_jax is {ratio:.2f} x as fast"
        )


if __name__ == "__main__":
    main()
