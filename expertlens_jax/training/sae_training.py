"""The training of a sparse autoencoder on a site of a model, from its first step to its last, or from a checkpoint on.

On the way it logs and keeps checkpoints to go on from; at the end it is written as a directory of SAELens, and measured
on texts that it wasn't trained on.
"""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.cards import counted
from expertlens_jax.errors import CorpusError, ExpertLensError, ExpertLensWarning, SettingError
from expertlens_jax.models.digests import digest_tokenizer, digest_tokens
from expertlens_jax.models.model import Model
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.sae_files import load_decoder, load_sae
from expertlens_jax.models.sae_places import Place, agreed, places_of_path
from expertlens_jax.models.sae_saving import save_sae
from expertlens_jax.models.tokens import Tokens, check_token_ids
from expertlens_jax.run_directory import is_local, only_writer, open_run, saved_json, write_csv
from expertlens_jax.training.activations import (
    ActivationStream,
    SiteReader,
    Texts,
    choose_rows,
    prepare_reading,
    read_texts,
    tokenize_pieces,
)
from expertlens_jax.training.sae_quality import SAEQuality, measure_on_pieces
from expertlens_jax.training.sae_step import SAESettings, SAEState, init_sae, sae_step
from expertlens_jax.training.saved import write_directory

MEASURED = 2**14
"""The most activations of held-out texts that the finished autoencoder is measured on, about."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedSAE:
    """A sparse autoencoder after its training.

    >>> import expertlens_jax as el, numpy as np, pandas as pd
    >>> sae = el.SAE(np.eye(4, dtype=np.float32), np.zeros(4, np.float32), layer=1, site="resid", name="mine")
    >>> quality = el.training.SAEQuality(activations=1000, explained_variance=0.8, l0=2.5, silent_share=0.0)
    >>> el.training.TrainedSAE(sae, np.eye(4), "saes/mine", quality, dead_share=0.25, training=pd.DataFrame())
    SAE mine: 4 features (ReLU) of resid in layer 1
      80.0% of the variance explained by 2.5 features at a token; 25.0% of the features dead
      saes/mine
    """

    sae: SAE
    """Its encoder, for `model.with_sae`."""
    decoder: np.ndarray
    """float32 `[features, channels]`: a direction of length 1 a feature. `sae.offset` is added to their sum."""
    directory: epath.Path
    """Where it lies, for `el.load_sae` and for SAELens."""
    quality: SAEQuality
    """On held-out texts."""
    dead_share: float
    """The share of features that fired in none of the last `dead_after` steps."""
    training: pd.DataFrame
    """A row per logged step: step, activations, loss, error, price, auxiliary, l0, dead."""

    def __repr__(self) -> str:
        q = self.quality
        recovered = "" if q.loss_recovered is None else f", {q.loss_recovered:.1%} of the loss recovered"
        return (
            f"{self.sae!r}\n  {q.explained_variance:.1%} of the variance explained by {q.l0:.1f} features at a token"
            f"{recovered}; {self.dead_share:.1%} of the features dead\n  {self.directory}"
        )


def train_sae(
    model: Model,
    texts: Texts,
    workdir: epath.PathLike,
    *,
    layer: int,
    site: str = "resid",
    settings: SAESettings | None = None,
    checkpoint_every: int = 500,
    progress: bool = False,
    after_checkpoint: Callable[[], object] = lambda: None,
) -> TrainedSAE:
    """Train a sparse autoencoder on what a site of a model holds while it reads texts.

    Activations are streamed from the model in shuffled buffers, and batches split over this process's devices. Killed
    and started again, it goes on from its last checkpoint, and on one device ends with the same bytes; finished, it is
    read from its directory.

        trained = el.training.train_sae(model, "novels.txt.xz", "runs/sae", layer=2)
        model = model.with_sae(trained.sae)       # or el.load_sae(trained.directory)

    Args:
      model: from `load_model`.
      texts: a list; sentences of concepts; or a text file, a paragraph or sentence a line, plain or .xz.
      workdir: becomes this training's own: `config.json`, `training.csv`, `quality.json`, `checkpoints/`, and
        `layerN_SITE/`, the autoencoder.
      layer: from 0.
      site: that holds activations: "resid", "mlp.act", "attn.z", ...
      settings: of the training.
      checkpoint_every: steps.
      progress: shows a bar.
      after_checkpoint: is called after each checkpoint.

    Returns:
      The autoencoder, and how good it is.

    Raises:
      SelectionError: the model has no such layer or site, the site is a summary of another, or layers are streamed.
      CorpusError: too little text, or none; or a site that holds nothing but zeros.
      SettingError: a batch that can't be split over the devices.
      RunDirectoryError: the directory holds another training, or another process is writing there.
      UnsupportedSAEError: the directory's name says another layer or site.
      TokenizationError: a token that the model has no embedding for.

    Warns:
      ExpertLensWarning: features are dead at its end.

    >>> import expertlens_jax as el, tempfile
    >>> settings = el.training.SAESettings(features=64, k=4, steps=4, batch=64, buffer=4)
    >>> concepts = el.load_concepts("facts")
    >>> trained = el.training.train_sae(
    ...     el.load_model("lenslet-2m"), concepts.sentences[:200], tempfile.mkdtemp(), layer=1, settings=settings
    ... )
    >>> trained.sae.num_features, trained.decoder.shape, el.load_sae(trained.directory).site
    (64, (64, 128), 'resid')
    """
    settings = settings or SAESettings()
    workdir = epath.Path(workdir)
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int) or checkpoint_every < 1:
        raise SettingError(f"checkpoint_every={checkpoint_every!r} was given; wanted a number of steps, from 1 on.")
    mesh = parallel.data_mesh()
    if settings.batch % mesh.size:
        raise SettingError(f"batch={settings.batch} can't be split over {mesh.size} devices; wanted a multiple.")
    reader = prepare_reading(model, layer, site)
    directory = workdir / f"layer{layer}_{site}"
    stated = Place(reader.layer, site, f"layer={layer}, site={site!r} were given")
    agreed(Path(directory), [stated, *places_of_path(Path(directory))], None, None)
    trained_on, held_out = split_texts(model, read_texts(texts), settings)
    question = {
        **{"layer": reader.layer, "site": site, "settings": dataclasses.asdict(settings), "model": model.name},
        **{"model_digest": model.digest, "dtype": model.dtype, "tokenizer": digest_tokenizer(model.tokenizer)},
        **{"trained_on": digest_tokens(trained_on), "held_out": digest_tokens(held_out)},
    }
    with only_writer(workdir):
        open_run(workdir, question)
        if not (directory / "cfg.json").exists():
            stream = ActivationStream(reader, trained_on, settings.batch, settings.buffer, settings.seed)
            state, scale = _train(stream, settings, workdir, mesh, checkpoint_every, progress, after_checkpoint)
            _save(directory, model, reader, site, state, scale, settings)
        return _read(directory, model, held_out, workdir, settings)


def split_texts(model: Model, texts: list[str], settings: SAESettings) -> tuple[Tokens, Tokens]:
    """Return the tokens of texts to train on, and of those that are held out, by the settings' seed.

    Raises:
      CorpusError: too little text for the steps.
      TokenizationError: a token that the model has no embedding for.
    """
    pieces = tokenize_pieces(model.tokenizer, texts, min(settings.context, model.config.max_tokens))
    check_token_ids(pieces.ids, vocab_size=model.config.vocab_size, model=model.name, tokenizer=model.tokenizer)
    order = np.random.default_rng((settings.seed, 2)).permutation(len(pieces.ids))
    count = max(1, round(settings.held_out * len(order)))
    trained_on = choose_rows(pieces, np.sort(order[count:]))
    size = sum(int(own.sum()) for own in trained_on.in_pool)
    passes = settings.activations / size if size else math.inf
    if passes > settings.most_passes:
        raise CorpusError(
            f"{counted(len(texts), 'text gives', 'texts give')} {counted(size, 'token')} to train on (beside {count} "
            f"of {len(order)} that are held out), and {counted(settings.steps, 'step')} of {settings.batch} ask for "
            f"{settings.activations}: {'more than there can be' if not size else f'{passes:.1f} passes'}, of at most "
            f"{settings.most_passes}. Give more text, or fewer or smaller steps, or a larger most_passes in "
            "SAESettings."
        )
    sizes = np.cumsum([pieces.in_pool[row].sum() for row in order[:count]])
    return trained_on, choose_rows(pieces, np.sort(order[: 1 + np.searchsorted(sizes[:-1], MEASURED)]))


def _train(
    stream: ActivationStream,
    settings: SAESettings,
    workdir: epath.Path,
    mesh: jax.sharding.Mesh,
    checkpoint_every: int,
    progress: bool,
    after_checkpoint: Callable[[], object],
) -> tuple[SAEState, float]:
    """Return all steps that aren't taken yet; the state after them, and what activations were multiplied by."""
    spread = saved_json(workdir / "activations.json", lambda: _spread(stream))
    scale, mean = spread["scale"], np.array(spread["mean"], np.float32)
    state = parallel.replicate(init_sae(len(mean), settings, mean), mesh)
    kept = workdir / "checkpoints"
    kept = kept.resolve() if is_local(kept) else kept  # orbax takes no relative path
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(kept, options=options) as checkpoints:
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore(state))
        first, every = int(state.step), max(1, settings.steps // 50)
        logged = _rows_up_to(workdir / "training.csv", first)
        steps = range(first, settings.steps)
        bar = tqdm(
            steps, initial=first, total=settings.steps, desc="training an SAE", unit="step", disable=not progress
        )
        for step in bar:
            x = parallel.split_rows(stream.at(step) * np.float32(scale), mesh)
            state, numbers = sae_step(state, x, settings)
            done = step + 1
            if done % every == 0 or done == settings.steps:
                numbers = {name: float(value) for name, value in numbers.items()}
                _check_finite(numbers, done, settings)
                logged.append({"step": done, "activations": done * settings.batch, **numbers})
                bar.set_postfix_str(f"error {numbers['error']:.3f}, L0 {numbers['l0']:.1f}", refresh=False)
            if done % checkpoint_every == 0 or done == settings.steps:
                write_csv(workdir / "training.csv", pd.DataFrame(logged))
                checkpoints.save(done, args=ocp.args.StandardSave(state))
                after_checkpoint()
    return state, scale


def _spread(stream: ActivationStream) -> dict[str, Any]:
    """Return what activations are multiplied by, to have the mean length sqrt(channels), and their mean then."""
    x = np.concatenate([stream.at(step) for step in range(stream.buffer)])
    length = float(np.linalg.norm(x, axis=1).mean(dtype=np.float64))
    if not math.isfinite(length) or length == 0:
        what = "0 everywhere" if length == 0 else "not finite"
        raise CorpusError(f"the activations of this site are {what}, so there is nothing to learn. Choose another one.")
    scale = math.sqrt(x.shape[1]) / length
    return {"scale": scale, "mean": [float(each) for each in (x.mean(0, dtype=np.float64) * scale).astype(np.float32)]}


def _check_finite(numbers: dict[str, float], step: int, settings: SAESettings) -> None:
    if not math.isfinite(numbers["loss"]):
        raise ExpertLensError(
            f"the loss is {numbers['loss']} at step {step}: the training came apart. Use a lower rate than "
            f"{settings.rate:g} in SAESettings, and another workdir."
        )


def _rows_up_to(path: epath.Path, step: int) -> list[dict[str, Any]]:
    """Return the rows of a run's table up to a step; those after are made again."""
    if not path.exists():
        return []
    table = pd.read_csv(path)
    return table[table["step"] <= step].to_dict("records")


def _save(
    directory: epath.Path,
    model: Model,
    reader: SiteReader,
    site: str,
    state: SAEState,
    scale: float,
    settings: SAESettings,
) -> None:
    """Write the autoencoder for activations as they are: features, biases and thresholds by the scale smaller."""
    params = jax.device_get(state.params)
    threshold = np.exp(params["log_threshold"]) / np.float32(scale) if settings.kind == "jumprelu" else None
    sae = SAE(
        encoder=params["encoder"],
        bias=params["bias"] / np.float32(scale),
        offset=params["offset"] / np.float32(scale),
        threshold=threshold,
        layer=reader.layer,
        site=site,
        k=settings.kept if settings.kind == "topk" else None,
        prepend_bos=bool(model.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"][0]),
        model_name=model.name,
    )
    silent = np.asarray(state.silent)
    dead = {"dead": [int(each) for each in np.flatnonzero(silent >= settings.dead_after)]}

    def write(path: Path) -> None:
        save_sae(path, sae, params["decoder"], family=model.family, config=model.config, context=settings.context)
        (path / "dead.json").write_text(json.dumps(dead) + "\n")

    write_directory(directory, write)


def _read(
    directory: epath.Path, model: Model, held_out: Tokens, workdir: epath.Path, settings: SAESettings
) -> TrainedSAE:
    local = Path(directory)
    sae, decoder = load_sae(local), load_decoder(local)
    quality = saved_json(
        workdir / "quality.json", lambda: dataclasses.asdict(measure_on_pieces(model, sae, decoder, held_out))
    )
    dead = len(json.loads((directory / "dead.json").read_text())["dead"])
    if dead:
        message = (
            f"{dead} of {settings.features} features of {sae.name} are dead: they fired at none of the last "
            f"{min(settings.dead_after, settings.steps) * settings.batch} activations. They answer to nothing, and no "
            "concept has them for experts; train fewer features, or for longer."
        )
        warnings.warn(ExpertLensWarning(message), stacklevel=3)
    training = pd.read_csv(workdir / "training.csv")
    return TrainedSAE(sae, decoder, directory, SAEQuality(**quality), dead / settings.features, training)
