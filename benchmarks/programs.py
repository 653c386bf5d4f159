"""The jitted programs of the package at the sizes of real jobs, from shapes alone: no weight, no sentence is made.

`programs()` lists them, and `families()` one of every family of models. Each is traced for a mesh, whose devices need
not be there, and gives what jax can lower and compile. Models are those of the hub by their published configs.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import transformers
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from expertlens_jax import parallel
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.experts import ranking, response_buffers
from expertlens_jax.experts.concept_sets import ConceptSets, concept_sets
from expertlens_jax.experts.measuring import measure
from expertlens_jax.experts.orders import order_on_device
from expertlens_jax.models import decoding, digests, scoring
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import FAMILIES, family_of
from expertlens_jax.models.model import apply, respond
from expertlens_jax.models.sampling import Sampling
from expertlens_jax.models.sharding import parameter_sharding
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.tokens import tokens_per_batch_of
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.training.pretrain import Recipe, init_state, train_step

# MEN's words (Bruni et al. 2014), each with as many sentences as the issue of a large job has; and their tokens.
NUM_CONCEPTS, SENTENCES_PER_CONCEPT, TOKENS = 751, 100, 32

_NEOX = dict(rotary_pct=0.25, max_position_embeddings=2048)
HF_CONFIGS: Mapping[str, Callable[[], Any]] = {
    "GPT-2": lambda: transformers.GPT2Config(),
    "Pythia-1b": lambda: transformers.GPTNeoXConfig(
        vocab_size=50304, hidden_size=2048, num_hidden_layers=16, num_attention_heads=8, intermediate_size=8192, **_NEOX
    ),
    "Pythia-6.9b": lambda: transformers.GPTNeoXConfig(
        vocab_size=50432,
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        intermediate_size=16384,
        **_NEOX,
    ),
    "Pythia-12b": lambda: transformers.GPTNeoXConfig(
        vocab_size=50688,
        hidden_size=5120,
        num_hidden_layers=36,
        num_attention_heads=40,
        intermediate_size=20480,
        **_NEOX,
    ),
    "Llama-3.2-1B": lambda: transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        intermediate_size=8192,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters=dict(
            rope_type="llama3",
            rope_theta=500000.0,
            factor=32.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
    "Gemma-2-2b": lambda: transformers.Gemma2Config(),
    "OPT-350m": lambda: transformers.OPTConfig(
        vocab_size=50272,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        ffn_dim=4096,
        do_layer_norm_before=False,
        word_embed_proj_dim=512,
    ),
    "OLMoE-1B-7B": lambda: transformers.OlmoeConfig(intermediate_size=1024),
    "Qwen1.5-MoE-A2.7B": lambda: transformers.Qwen2MoeConfig(),
    "Lenslet-5m": lambda: transformers.GPTNeoXConfig(
        vocab_size=8192,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        rotary_pct=0.25,
        max_position_embeddings=128,
    ),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What the caller may choose; None follows the device, as a run does."""

    tokens_per_batch: int | None = None
    platform: str = "tpu"
    device_memory: int = 2**34

    @property
    def tokens(self) -> int:
        """Tokens that a shard of a recorded batch holds."""
        return self.tokens_per_batch or tokens_per_batch_of(self.platform)


@dataclasses.dataclass(frozen=True)
class Program:
    """One jitted program of the package at one size."""

    name: str
    trace: Callable[[Mesh, Sizes], jax.stages.Traced]
    """The traced program, its arguments laid out on a mesh."""
    model: int = 1
    """Over how many devices parameters are split."""

    @property
    def holds_model(self) -> bool:
        """Whether it takes a model's parameters."""
        return any(name in self.name for name in (*HF_CONFIGS, *FAMILIES))


FAMILY_LAYERS = 2
"""Of a family's program: a scan runs every layer, so that its compiled code is the same for any number of them."""


def families() -> tuple[Program, ...]:
    """Recording by every family, two layers of the sizes that its Hugging Face config has by default."""

    def program(model_type: str) -> Program:
        def trace(mesh: Mesh, sizes: Sizes) -> jax.stages.Traced:
            hf = transformers.AutoConfig.for_model(model_type)
            return recording_of(mesh, family_of(hf).translate(hf).first_layers(FAMILY_LAYERS), sizes)

        return Program(f"recording family {model_type}", trace)

    return tuple(map(program, FAMILIES))


def programs() -> tuple[Program, ...]:
    """Every jitted program, those of recording first."""
    recordings = [("GPT-2", 1), ("Pythia-1b", 1), ("Llama-3.2-1B", 1), ("Gemma-2-2b", 1)]
    recordings += [("OPT-350m", 1), ("OLMoE-1B-7B", 1), ("OLMoE-1B-7B", 4), ("Qwen1.5-MoE-A2.7B", 4)]
    recordings += [("Pythia-12b", 1), ("Pythia-12b", 4), ("Pythia-12b", 16)]
    split = {1: "", 4: " over 4", 16: " over 16"}
    return (
        *(
            Program(f"recording {name}{split[model]}", lambda mesh, sizes, n=name: recording(mesh, n, sizes), model)
            for name, model in recordings
        ),
        Program("keeping responses", keeping),
        Program("taking units", taking),
        Program("exchange of sentences for units", exchange),
        Program("ranking", ranking_block),
        Program("logits Pythia-1b", lambda mesh, sizes: logits(mesh, "Pythia-1b", sizes)),
        Program("scoring Pythia-1b", lambda mesh, sizes: next_log_probs(mesh, "Pythia-1b", sizes)),
        Program("generation's prefill Pythia-1b", lambda mesh, _: generating(mesh, "Pythia-1b", "prefill")),
        Program("generation's step Pythia-1b", lambda mesh, _: generating(mesh, "Pythia-1b", "step")),
        Program("generation's loop Pythia-1b", lambda mesh, _: generating(mesh, "Pythia-1b", "decode")),
        Program("training step Lenslet-5m", lambda mesh, _: training(mesh, "Lenslet-5m")),
        Program("fingerprint Pythia-1b", lambda mesh, _: fingerprint(mesh, "Pythia-1b")),
    )


def find_config(name: str) -> TransformerConfig:
    """A model's config."""
    hf = HF_CONFIGS[name]()
    return family_of(hf).translate(hf)


def shaped(mesh: Mesh, shape: tuple[int, ...], dtype: Any, *axes: Any) -> jax.ShapeDtypeStruct:
    """An array that isn't there, split over the mesh's `axes`, or whole on every device."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))


def laid_out(mesh: Mesh, tree: Any, *axes: Any) -> Any:
    """A tree of shapes, each split over the mesh's `axes`, or whole on every device."""
    return jax.tree.map(lambda leaf: shaped(mesh, leaf.shape, leaf.dtype, *axes), tree)


def parameters(mesh: Mesh, config: TransformerConfig, dtype: Any = jnp.bfloat16) -> Any:
    """A model's parameters, split as `load_model` splits them."""
    token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    network = Transformer(config, dtype=dtype)
    shapes = jax.eval_shape(lambda key: network.init(key, token, mask, mask)["params"], jax.random.key(0))

    def lay_out(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = parameter_sharding("/".join(key.key for key in path), leaf.shape, mesh)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map_with_path(lay_out, shapes)


def batch(mesh: Mesh, tokens_per_batch: int) -> list[jax.ShapeDtypeStruct]:
    """Token ids, attention mask and pool mask of a batch of sentences of `TOKENS` tokens, as `tokens.batches` cuts."""
    multiple = mesh.shape[parallel.MODEL]
    rows = max(tokens_per_batch // TOKENS // multiple, 1) * multiple * mesh.shape[parallel.DATA]
    return [shaped(mesh, (rows, TOKENS), dtype, parallel.DATA) for dtype in (jnp.int32, bool, bool)]


def recording(mesh: Mesh, name: str, sizes: Sizes) -> jax.stages.Traced:
    """Responses of the default sites to a batch, in bfloat16."""
    return recording_of(mesh, find_config(name), sizes)


def recording_of(mesh: Mesh, config: TransformerConfig, sizes: Sizes) -> jax.stages.Traced:
    """The same of a config."""
    split = mesh if mesh.shape[parallel.MODEL] > 1 else None
    network = Transformer(config, Taps(config.default_sites()), jnp.bfloat16, mesh=split)
    arrays = batch(mesh, sizes.tokens)
    return respond.trace(network, parameters(mesh, config), *arrays, None, np.int32(0), config.num_layers)


def logits(mesh: Mesh, name: str, sizes: Sizes) -> jax.stages.Traced:
    """What `model(token_ids)` computes."""
    config = find_config(name)
    network = Transformer(config, dtype=jnp.bfloat16)
    return apply.trace(network, parameters(mesh, config), *batch(mesh, 512)[:2], None)


def next_log_probs(mesh: Mesh, name: str, sizes: Sizes) -> jax.stages.Traced:
    """What scoring computes."""
    config = find_config(name)
    network = Transformer(config, dtype=jnp.bfloat16)
    return scoring.next_log_probs.trace(network, parameters(mesh, config), *batch(mesh, 4096)[:2], None)


def generating(mesh: Mesh, name: str, part: str) -> jax.stages.Traced:
    """`prefill`, `step` or `decode` of 64 prompts a device, of 32 tokens and as many new ones."""
    config, slots = find_config(name), 2 * TOKENS
    network, params = Transformer(config, dtype=jnp.bfloat16, keeps=True), parameters(mesh, config)
    rows = 64 * mesh.shape[parallel.DATA]
    request = decoding.Request(
        draws=shaped(mesh, (rows,), jnp.int32, parallel.DATA),
        prompt_ids=shaped(mesh, (rows, TOKENS), jnp.int32, parallel.DATA),
        mask=shaped(mesh, (rows, slots), bool, parallel.DATA),
        end_ids=shaped(mesh, (1,), jnp.int32),
        sampling=Sampling(key=jax.random.key(0), temperature=1.0, top_p=None, top_k=None),
    )
    real = shaped(mesh, (rows,), bool, parallel.DATA)
    state = jax.eval_shape(lambda real: decoding.start_state(real, TOKENS), real)
    run = network, params, None, request
    if part == "prefill":
        return decoding.prefill.trace(*run, _state_laid_out(mesh, state))
    state = _state_laid_out(mesh, jax.eval_shape(lambda *run: decoding.prefill(network, *run), *run[1:], state))
    if part == "step":
        return decoding.step.trace(*run, state)
    return decoding.decode.trace(*run, state, np.int32(TOKENS))


def _state_laid_out(mesh: Mesh, state: decoding.State) -> decoding.State:
    """Rows split over devices; the cache's rows come after its layers, and scalars are whole."""

    def lay_out(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        axes = ((), (parallel.DATA,), (parallel.DATA,))[min(leaf.ndim, 2)]
        return shaped(mesh, leaf.shape, leaf.dtype, *((None, parallel.DATA) if leaf.ndim > 2 else axes))

    return jax.tree.map(lay_out, state)


def training(mesh: Mesh, name: str) -> jax.stages.Traced:
    """A step of AdamW on 16 x 128 tokens a device."""
    config, recipe = find_config(name), Recipe(steps=1000, warmup_steps=100, peak_rate=1e-3)
    state = jax.eval_shape(lambda key: init_state(config, recipe, key), jax.random.key(0))
    blocks = shaped(mesh, (16 * mesh.size, 129), jnp.int32, mesh.axis_names)
    return train_step.trace(laid_out(mesh, state), blocks, config, recipe)


def fingerprint(mesh: Mesh, name: str) -> jax.stages.Traced:
    """The digest of a model's weights."""
    return digests.bit_sums.trace(jax.tree.leaves(parameters(mesh, find_config(name))))


def men_sentences(mesh: Mesh) -> tuple[int, int]:
    """Sentences of the MEN job, and how many rows each device keeps of them."""
    sentences = NUM_CONCEPTS * SENTENCES_PER_CONCEPT
    return sentences, -(-sentences // (mesh.size * 64)) * 64


def units_at_once(sizes: Sizes, sets: ConceptSets) -> int:
    """Units that a device ranks at once: the package's rule for an accelerator of this memory."""
    most = ranking.units_in(sizes.device_memory // 8, sets.num_all, sets)
    return min(-(-most // 128) * 128, 3200)  # as many as `planning.most_results` lets wait to be written


def keeping(mesh: Mesh, sizes: Sizes) -> jax.stages.Traced:
    """A batch's responses of one layer of Pythia-12b put among a device's own."""
    _, rows = men_sentences(mesh)
    config = find_config("Pythia-12b")
    channels = config.site_channels()
    units = sum(channels[site] for site in config.default_sites())
    values = shaped(mesh, (mesh.size * rows, units), jnp.float32, mesh.axis_names)
    arrived = shaped(mesh, (64 * mesh.size, units), jnp.float32, mesh.axis_names)
    return response_buffers.put_rows(mesh).trace(values, arrived, jnp.int32(0))


def taking(mesh: Mesh, sizes: Sizes) -> jax.stages.Traced:
    """A block of units taken out of each device's own rows of one layer of Pythia-12b."""
    _, rows = men_sentences(mesh)
    config = find_config("Pythia-12b")
    units = sum(config.site_channels()[site] for site in config.default_sites())
    values = shaped(mesh, (mesh.size * rows, units), jnp.float32, mesh.axis_names)
    return response_buffers.take_columns(mesh).trace(values, jnp.int32(0), mesh.size * units_at_once(sizes, men_sets()))


def exchange(mesh: Mesh, sizes: Sizes) -> jax.stages.Traced:
    """The all-to-all that turns rows split over all devices into units split over all devices."""
    sentences, rows = men_sentences(mesh)
    width = mesh.size * units_at_once(sizes, men_sets())
    columns = shaped(mesh, (mesh.size * rows, width), jnp.float32, mesh.axis_names)
    return response_buffers.exchange(mesh).trace(columns, shaped(mesh, (sentences,), jnp.int32))


def men_sets() -> ConceptSets:
    """MEN's concepts, each against the sentences of all others."""
    sentences = NUM_CONCEPTS * SENTENCES_PER_CONCEPT
    positives = np.arange(sentences, dtype=np.int32).reshape(NUM_CONCEPTS, SENTENCES_PER_CONCEPT)
    weight = np.full(NUM_CONCEPTS, 2.5 / (NUM_CONCEPTS - 1), np.float32)
    corrections = np.full(positives.shape, -1, np.float32)
    return concept_sets(Contrast(positives, np.ones(sentences, bool), positives, corrections, weight))


def ranking_block(mesh: Mesh, sizes: Sizes) -> jax.stages.Traced:
    """A block of units on each device, sorted and measured for MEN's concepts, as `jax.pmap` would."""
    sets = men_sets()
    block = shaped(mesh, (mesh.size, sets.num_all, units_at_once(sizes, sets)), jnp.float32, mesh.axis_names)
    rows = PartitionSpec(mesh.axis_names)

    def own(block: jax.Array, sets: ConceptSets) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], measure(order_on_device(block[0], sets), sets))

    mapped = jax.shard_map(own, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows, check_vma=False)
    return jax.jit(mapped).trace(block, laid_out(mesh, sets))
