"""Loads a checkpoint: a Hugging Face directory, or a repository of the hub, becomes a tapped model."""

import dataclasses
import functools
import json
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from types import SimpleNamespace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import transformers
from jax.sharding import Mesh

from expertlens_jax import parallel
from expertlens_jax.cache_directory import cache_root
from expertlens_jax.errors import CheckpointError, ExpertLensError, ExpertLensWarning, UnsupportedModelError
from expertlens_jax.models import cache, hub
from expertlens_jax.models.adapters import Adapter, has_adapter, merge_adapter, read_adapter
from expertlens_jax.models.checkpoint import parameter_sources, plan_parameters, read_parameters, zero_beyond
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import FAMILIES, family_of, quantisation_of
from expertlens_jax.models.families.family import OTHER_HEADS, Family, headless, without_language_head
from expertlens_jax.models.families.fields import check_fields
from expertlens_jax.models.model import Model
from expertlens_jax.models.packaged import check_spelling, packaged_directory, packaged_models
from expertlens_jax.models.quantised import Quantisation, check_embeddings
from expertlens_jax.models.streaming import Offload, check_loaded
from expertlens_jax.models.tensor_names import settle_head, warn_of_own_head, with_own_head
from expertlens_jax.models.tokenizer import read_end_ids, read_tokenizer
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.weights import ADAPTER_CONFIG, open_weights, weight_paths

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
OTHER_DTYPES = {
    "float16": " Checkpoints in float16 are read, into either: float32 holds their numbers exactly, and bfloat16 takes "
    "as little memory. Nothing is computed in float16, since residual streams grow beyond its largest number, 65,504."
}
"""What to do instead, for those that are asked for and refused."""


def load_model(
    path_or_id: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str = "float32",
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    mesh: Mesh | None = None,
    offload: Offload | None = None,
    use_cache: bool | None = None,
    name: str | None = None,
    base: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a model and its tokenizer: one that ships with the package, a local directory, or one of the hub.

        model = el.load_model("lenslet-2m", revision="step256")  # nothing to download
        model = el.load_model("EleutherAI/pythia-1b", revision="step512")

    From the hub only the files that are needed are fetched: config and tokenizer first, and the weights only
    when these are found to be supported. Weights are safetensors or, where there are none, PyTorch's
    (`.bin`), which needs torch; whole or in shards; or the file that the config names. They stream tensor by tensor
    into their dtype and onto their devices: see `checkpoint.read_parameters`. No code of a repository is ever run.
    Quantised weights are read as the numbers that they stand for, which are computed with as any others: see
    `quantised.FORMATS`.

    An adapter of low rank (LoRA), as peft saves it, is merged into the model that it says it was trained on, or into
    the one that stands beside it: see `adapters.merge_adapter`. Of a classifier with a decoder's backbone, and of a
    base model saved by itself, the output is the last hidden state.

    Converted parameters are cached with orbax, keyed by the content of the source files and the dtype, and read
    back onto any mesh. That pays where the source is dearer to read than what is made of it: `.bin` files (torch is
    needed only once), or float32 loaded as bfloat16 (half the bytes); otherwise reading back takes about as long as
    converting. It costs the disk the parameters' size, and a local checkpoint the time to hash it; hence the
    default for `use_cache`. In a program of several processes nothing is cached.

    Args:
      path_or_id: a directory, as `save_pretrained` writes it: `config.json`, weights and a fast tokenizer.
        What doesn't exist as a path is the name of a packaged model (`packaged.packaged_models`), or else taken for
        a repository's id, `owner/name`. A directory here goes before both; `./name` says that it is meant.
      revision: of the repository: a branch, tag or commit (Pythia's training steps are branches, "step512"); of a
        packaged model, one of the training steps it ships with.
      dtype: "float32" or "bfloat16", of parameters and activations, whatever the checkpoint's; norms, the attention's
        softmax and pooled responses are float32 always.
      cache_dir: where downloads, and with them converted parameters, are kept. By default the former stand
        where huggingface_hub keeps them and the latter where `cache_directory.cache_root` says: EXPERTLENS_CACHE, or
        ~/.cache/expertlens_jax.
      token: of the hub, for gated and private repositories; default the one logged in with (`hf auth login`).
      mesh: `(data, model)`, as `parallel.make_mesh(model=4)` gives it: parameters are split over its `model`
        axis (see `sharding.py`), and never whole on any device. Default: all on one device.
      offload: "host" or "disk" for a model that the device can't hold: its layers stay in the host's memory, or in the
        checkpoint's files, and come to the device one at a time, the next while one computes. All that reads the model
        works so, with the same numbers: record, trace, steer, intervene, score, generate. What goes back through its
        layers doesn't (attribution, learned steering), and is refused. Each batch takes as long as the weights' way at
        least, so give large ones (`tokens_per_batch`); a generated token is a batch of its own. Default: all on the
        device.
      use_cache: whether to keep converted parameters; None does so for the hub only.
      name: what tables, figures and messages call the model; default the hub's id with the revision, or a directory's
        last folder, which tells no fine-tune from another ("checkpoint-500"). What tells models apart is
        `Model.digest`, whatever they are called.
      base: of an adapter: the model that it changes, as `path_or_id`; default what its `adapter_config.json` names.

    Raises:
      CheckpointError: no such directory, repository, revision or file; files that are damaged or don't fit
        each other; an adapter that can't be merged, or whose base model isn't there; a repository that can't be
        reached; an unknown dtype.
      UnsupportedModelError: no family translates its `model_type`, or a field of its config.
      TokenizationError: there is no fast tokenizer, or nothing it could pad with; see `tokenizer.read_tokenizer`.

    Warns:
      ExpertLensWarning: a directory here has a packaged model's name, or one that the hub may have; the files of the
        tokenizer contradict each other; the config has fields that nobody reads, or ties a head that the checkpoint
        has apart; or the directory holds two sets of weights.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m", revision="step256")
    >>> model.config.num_layers, model.config.num_heads, model.dtype
    (4, 4, 'float32')
    """
    if dtype not in DTYPES:
        advice = OTHER_DTYPES.get(dtype, "")
        raise CheckpointError(f"dtype {dtype!r} was given; wanted one of {', '.join(DTYPES)}.{advice}")
    if mesh is not None:
        mesh = _usable_mesh(mesh)
    _check_offload(offload, mesh, use_cache)
    place = _find(path_or_id, revision, cache_dir, token)
    adapter, of_base = _find_adapter(place, base, cache_dir, token)
    family, config, quantisation = _read_config(of_base.directory)
    if adapter is not None and adapter.classifies:
        family, config = headless(family, config, OTHER_HEADS, *(rf"{re.escape(name)}.*" for name in family.head_names))
    of_tokenizer = place if place.has_tokenizer else of_base
    if of_tokenizer.snapshot is not None:
        hub.fetch_tokenizer(of_tokenizer.snapshot)
    tokenizer = read_tokenizer(of_tokenizer.directory)
    if of_base.snapshot is not None:
        hub.fetch_weights(of_base.snapshot)

    if use_cache is None:
        use_cache = of_base.snapshot is not None and offload is None
    source = Source(of_base.directory, family, config, adapter, quantisation)
    if use_cache and jax.process_count() == 1:
        config, params = _cached_parameters(source, dtype, mesh, cache_root(cache_dir))
    else:
        config, params = _read_parameters(source, dtype, mesh, offload)
    return Model(
        name=place.called if name is None else name,
        family=family,
        config=config,
        params=params,
        tokenizer=tokenizer,
        dtype=dtype,
        end_ids=read_end_ids(of_base.directory),
    )


def randomize_weights(model: Model, seed: int) -> Model:
    """Return the same network with random weights, drawn as its family draws them before training.

    Kernels and embeddings are normal with the config's `initializer_range`, biases zero, norms one. This is
    the control that asks what training, as opposed to architecture and sentences, gives to the responses.

    Args:
      model: whose architecture, dtype, tokenizer and layout over devices to keep.
      seed: of the weights.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> control = el.randomize_weights(model, seed=0)
    >>> control.config == model.config, control.digest == model.digest
    (True, False)
    """
    check_loaded(model.params, model.name, "drawing weights anew")
    leaves, structure = jax.tree.flatten(model.params)
    draw = _drawing(model.config, model.dtype, structure, tuple(leaf.sharding for leaf in leaves))
    return model.replace(params=draw(jax.random.key(seed)), name=f"{model.name}-random{seed}")


@functools.lru_cache(maxsize=4)  # a suite draws the weights of one network in many places
def _drawing(
    config: TransformerConfig,
    dtype: str,
    structure: jax.tree_util.PyTreeDef,
    layout: tuple[jax.sharding.Sharding, ...],
) -> Callable[[jax.Array], Mapping[str, Any]]:
    """Return a compiled function of a key that draws a network's parameters, laid out over devices."""
    network = Transformer(config, dtype=DTYPES[dtype])
    token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    shardings = jax.tree.unflatten(structure, layout)

    def draw(key: jax.Array) -> Mapping[str, Any]:
        return zero_beyond(network.init(key, token, mask, mask)["params"], config)

    return jax.jit(draw, out_shardings=shardings)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a model or an adapter is: a directory here, which may be of a repository's snapshot."""

    directory: pathlib.Path
    names: Collection[str]
    """Its files; of a repository, those that could be fetched too."""
    called: str
    snapshot: hub.Snapshot | None = None

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer among the files."""
        return any(name in self.names for name in ("tokenizer.json", *hub.SLOW_TOKENIZER))


@dataclasses.dataclass(frozen=True)
class Source:
    """What parameters are read from, and how."""

    directory: pathlib.Path
    family: Family
    config: TransformerConfig
    adapter: Adapter | None
    quantisation: Quantisation | None = None

    @property
    def files(self) -> list[pathlib.Path]:
        """All files that the parameters follow from."""
        return weight_paths(self.directory) + ([] if self.adapter is None else self.adapter.files)


def _find(
    path_or_id: str | os.PathLike[str],
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
) -> Place:
    """Return the place that is meant: a directory here, a packaged model's, or a repository's."""
    local = _local_directory(path_or_id, revision)
    if local is not None:
        return Place(local, [path.name for path in local.iterdir()], local.resolve().name)
    called = f"{path_or_id}@{revision}" if revision else str(path_or_id)
    packaged = packaged_directory(str(path_or_id), revision)
    if packaged is not None:
        return Place(packaged, [path.name for path in packaged.iterdir()], called)
    snapshot = hub.open_snapshot(str(path_or_id), revision=revision, cache_dir=cache_dir, token=token)
    return Place(snapshot.directory, snapshot.names, called, snapshot)


def _find_adapter(
    place: Place,
    base: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
) -> tuple[Adapter | None, Place]:
    """Return the adapter that a place holds, if any, and where the model is that it changes.

    The model is there too, or at the place of its base model.
    """
    if not has_adapter(place.names):
        if base is not None:
            raise CheckpointError(f"base={str(base)!r} was given, and {place.called} holds no adapter that changes it.")
        return None, place
    if place.snapshot is not None and ADAPTER_CONFIG in place.names:
        hub.fetch(place.snapshot, [ADAPTER_CONFIG])
    beside = "config.json" in place.names
    repository = place.snapshot is not None
    where = f"{place.snapshot.repo}{hub.at(place.snapshot.revision)}" if repository and not beside else None
    where = where or (place.snapshot.repo if repository else str(place.directory))
    adapter = read_adapter(where, place.directory, place.names)
    wanted, revision = (base, None) if base is not None else (adapter.base, adapter.settings.get("revision"))
    if base is None and beside:
        of_base = place
    elif wanted is None:
        raise CheckpointError(
            f"the adapter in {where} doesn't say what it was trained on. Give that model: base='owner/name', or its "
            "directory."
        )
    else:
        try:
            of_base = _find(wanted, revision, cache_dir, token)
        except CheckpointError as error:
            raise CheckpointError(
                f"the base model of the adapter in {where}, {wanted}, can't be found: {error} If it is elsewhere, give "
                "it: load_model(..., base='owner/name'), or its directory."
            ) from error
        if has_adapter(of_base.names):
            raise CheckpointError(
                f"the base model of the adapter in {where}, {wanted}, holds an adapter itself. Merge that one first "
                "with peft, and give what it saves: load_model(..., base=DIRECTORY)."
            )
    if repository:
        hub.fetch(place.snapshot, [adapter.file])
    return adapter, of_base


def _check_offload(offload: str | None, mesh: Mesh | None, use_cache: bool | None) -> None:
    """Refuse another place for layers than there are, and what goes with none."""
    if offload is None:
        return
    places = get_args(Offload)
    if offload not in places:
        raise CheckpointError(
            f"offload={offload!r} was given; wanted one of {', '.join(map(repr, places))}: layers stay in the host's "
            "memory, or in the checkpoint's files. None puts them on the device."
        )
    if mesh is not None:
        raise CheckpointError(
            f"offload={offload!r} was given beside a mesh, which splits parameters over devices that hold them. Give "
            "one of them: offload streams layers to one device, or to each of this process's, which share the rows."
        )
    if use_cache:
        raise CheckpointError(
            f"offload={offload!r} was given beside use_cache=True; layers are streamed from the checkpoint as it is, "
            "and nothing is kept. Leave one out."
        )


def _read_parameters(
    source: Source, dtype: str, mesh: Mesh | None, offload: Offload | None = None
) -> tuple[TransformerConfig, Any]:
    """Return the parameters read from the checkpoint, and the config with the head that is there."""
    weights = open_weights(source.directory)
    if source.quantisation is not None:
        check_embeddings(weights, parameter_sources(source.family, source.config)["embed/token"].tensor)
        weights = source.quantisation(weights)
    if source.adapter is not None:
        weights = merge_adapter(weights, source.adapter, source.family, source.config)
    config = settle_head(weights, source.family, source.config)
    return config, read_parameters(weights, source.family, config, DTYPES[dtype], mesh, offload)


def _cached_parameters(
    source: Source, dtype: str, mesh: Mesh | None, root: pathlib.Path
) -> tuple[TransformerConfig, Any]:
    """Return the config, as `_read_parameters` does, and parameters.

    They are out of the cache, or read from the checkpoint and kept.

    Only the weights tell whether a head is tied, and they aren't opened for what the cache has. So an entry whose
    head turned out to be another than its config says is marked as such.
    """
    family, config = source.family, source.config
    quantised = "" if source.quantisation is None else source.quantisation.key
    entry = root / cache.entry_key(source.files, plan_parameters(family, config), dtype, quantised)
    untied = entry.with_name(f"{entry.name}-untied")
    candidates = {entry: config} | ({untied: with_own_head(config)} if config.head == "tied" else {})
    for kept, settled in candidates.items():
        params = cache.restore_parameters(kept, plan_parameters(family, settled), DTYPES[dtype], mesh)
        if params is not None:
            if settled != config:
                warn_of_own_head(source.directory, family, config)
            return settled, params
    settled, params = _read_parameters(source, dtype, mesh)
    cache.store_parameters(entry if settled == config else untied, params)
    return settled, params


def _usable_mesh(mesh: Mesh) -> Mesh:
    """Return the mesh, with axes that the compiler partitions over by itself."""
    if not {parallel.DATA, parallel.MODEL} <= set(mesh.axis_names):
        raise CheckpointError(
            f"the mesh has the axes {mesh.axis_names}; load_model wants (data, model). "
            "expertlens_jax.parallel.make_mesh(model=...) makes one."
        )
    return parallel.auto_mesh(mesh.devices, mesh.axis_names)


HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def _local_directory(path_or_id: str | os.PathLike[str], revision: str | None) -> pathlib.Path | None:
    """Return the directory that is meant, or None for a packaged model's name or a repository's id.

    A directory here comes first, as in transformers. If its name could be the other's too, that is told, unless it is
    given as what can only be a path: `./gpt2`, an absolute one, or a `pathlib.Path`.
    """
    path = pathlib.Path(path_or_id).expanduser()
    ambiguous = isinstance(path_or_id, str) and HUB_ID.fullmatch(path_or_id) is not None
    if path.is_dir():
        here = path.resolve()
        if revision is not None:
            raise CheckpointError(
                f"{path_or_id} is a directory here, which has no revisions, but revision={revision!r} was given: "
                f"{here}. Leave it out; or, for the hub's or the packaged model of that name, run from another "
                "directory."
            )
        if ambiguous:
            _tell_shadow(path_or_id, here)
        return path
    if path.is_file():
        raise CheckpointError(f"{path_or_id} is a file. Give the directory that holds it and config.json.")
    if not ambiguous:
        raise CheckpointError(
            f"there is no directory {path_or_id}. Give a local Hugging Face model directory, as "
            "save_pretrained writes it, or a model's id on the hub, owner/name."
        )
    check_spelling(path_or_id)
    return None


def _tell_shadow(name: str, here: pathlib.Path) -> None:
    """Warns that a directory is taken for the model whose name it has too; refuses it if it can't be a model."""
    packaged = name in packaged_models()
    other = "the packaged model" if packaged else "a model of the hub"
    if not (here / "config.json").exists():
        raise CheckpointError(
            f"the directory here, {here}, was taken for the model {name!r}, and has no config.json. If {other} is "
            "meant, rename this directory or run from another one; if a model within it is meant, give its path. A "
            "model's directory is as save_pretrained writes it."
        )
    warnings.warn(
        ExpertLensWarning(
            f"{name!r} is a directory here, and the model is loaded from it, {here}; "
            f"{'a packaged model is' if packaged else 'a model of the hub may be'} called so too. Write './{name}' to "
            f"mean the directory, without this warning; for {other}, rename the directory or run from another one."
        ),
        stacklevel=4,
    )


def _read_config(directory: pathlib.Path) -> tuple[Family, TransformerConfig, Quantisation | None]:
    """Return the family of a directory's config, the translated config, and how its weights are quantised."""
    path = directory / "config.json"
    if not path.exists():
        raise CheckpointError(
            f"{directory} has no config.json. Give a Hugging Face model directory, as save_pretrained writes it."
        )
    try:
        stated = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise CheckpointError(f"{path} is not JSON: {error}. Get it again.") from error
    model_type = stated.get("model_type") if isinstance(stated, dict) else None
    if not isinstance(model_type, str):
        raise CheckpointError(
            f'{path} states no model_type; it should, as in {{"model_type": "gpt_neox", ...}}. '
            "Is it the config of a transformers model?"
        )
    try:
        hf_config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds, for unknown types and bad values
        if model_type not in FAMILIES:
            family_of(SimpleNamespace(model_type=model_type))  # raises, and lists those there are
        raise CheckpointError(f"transformers can't read {path} ({model_type}): {error}") from error
    if hf_config.model_type != model_type and hf_config.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"{path} says model_type={model_type!r}, and fields such as layer_types make transformers read it as "
            f"{hf_config.model_type!r}, which no family of expertlens_jax translates."
        )
    family = family_of(hf_config)
    try:
        check_fields(family, hf_config, stated)
        quantisation = quantisation_of(hf_config, family)
        if quantisation is not None and quantisation.unknown:
            warnings.warn(
                f"the quantization_config ({quantisation.method}) of {path} says {', '.join(quantisation.unknown)}, "
                "which expertlens_jax doesn't know. If it changes what the stored numbers stand for, this is another "
                "model.",
                ExpertLensWarning,
                stacklevel=2,
            )
        architectures = stated.get("architectures") or ()
        return *without_language_head(family, family.translate(hf_config), architectures), quantisation
    except ExpertLensError:
        raise
    except Exception as error:  # a field of the wrong type, or sizes that make no sense
        raise CheckpointError(
            f"{path} doesn't describe a {model_type} model: {type(error).__name__}: {error}."
        ) from error
