"""The training of a sparse autoencoder on a site of a model, from its first step to its last, or from a checkpoint on.

On the way it logs and keeps checkpoints to go on from; at the end it is written as a directory of SAELens, and measured
on texts that it wasn't trained on.
"""

import contextlib
import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import pandas as pd
from etils import epath

from expertlens_jax import parallel
from expertlens_jax.cards import counted
from expertlens_jax.errors import CorpusError, ExpertLensWarning, SettingError
from expertlens_jax.models.digests import digest_tokenizer, digest_tokens
from expertlens_jax.models.model import Model
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.sae_files import load_decoder, load_sae
from expertlens_jax.models.sae_places import Place, agreed, places_of_path
from expertlens_jax.models.sae_saving import save_sae
from expertlens_jax.models.tokens import Tokens, check_token_ids
from expertlens_jax.run_directory import only_writer, open_run, saved_json
from expertlens_jax.training.activations import (
    ActivationStream,
    SiteReader,
    Texts,
    choose_rows,
    prepare_reading,
    read_texts,
    tokenize_pieces,
)
from expertlens_jax.training.sae_loop import begun_training, take_steps
from expertlens_jax.training.sae_quality import SAEQuality, measure_on_pieces
from expertlens_jax.training.sae_step import SAESettings, SAEState
from expertlens_jax.training.saved import write_directory

Directory = TypeVar("Directory", bound=epath.PathLike)

OF_STREAM = ("batch", "buffer", "context", "held_out", "seed")
"""Settings that decide which activations come when."""
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
    asked = {workdir: settings or SAESettings()}
    (trained,) = _train_together(model, texts, asked, layer, site, checkpoint_every, progress, after_checkpoint)
    _warn_of_dead(trained, asked[workdir])
    return trained


def train_saes(
    model: Model,
    texts: Texts,
    settings: Mapping[Directory, SAESettings],
    *,
    layer: int,
    site: str = "resid",
    checkpoint_every: int = 500,
    progress: bool = False,
    after_checkpoint: Callable[[], object] = lambda: None,
) -> list[TrainedSAE]:
    """Train several sparse autoencoders on one stream of activations: the model reads the texts once for all of them.

    For a sweep, or for random twins: reading is most of a training's time where the model is large. Each ends as
    `train_sae` would end it, on one device with the same bytes, and goes on from its own last checkpoint.

    Args:
      model: from `load_model`.
      texts: see `train_sae`.
      settings: of each training, by the directory that becomes its own. What decides which activations come when
        (`batch`, `buffer`, `context`, `held_out`, `seed`) has to be the same.
      layer: from 0.
      site: that holds activations.
      checkpoint_every: steps.
      progress: shows a bar.
      after_checkpoint: is called after each checkpoint of each.

    Returns:
      The autoencoders, in the order of `settings`.

    Raises:
      SettingError: no settings, or some that ask for other activations.
      CorpusError, RunDirectoryError, SelectionError, TokenizationError, UnsupportedSAEError: see `train_sae`.

    Warns:
      ExpertLensWarning: features are dead at the end of one.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> runs, wanted = pathlib.Path(tempfile.mkdtemp()), dict(features=64, steps=4, batch=64, buffer=4)
    >>> sweep = {runs / f"k{k}": el.training.SAESettings(k=k, **wanted) for k in (2, 8)}
    >>> concepts = el.load_concepts("facts")
    >>> trained = el.training.train_saes(el.load_model("lenslet-2m"), concepts.sentences[:200], sweep, layer=1)
    >>> [(each.sae.k, each.directory.parent.name) for each in trained]
    [(2, 'k2'), (8, 'k8')]
    """
    found = _train_together(model, texts, settings, layer, site, checkpoint_every, progress, after_checkpoint)
    for trained, how in zip(found, settings.values(), strict=True):
        _warn_of_dead(trained, how)
    return found


def _train_together(
    model: Model,
    texts: Texts,
    asked: Mapping[Directory, SAESettings],
    layer: int,
    site: str,
    checkpoint_every: int,
    progress: bool,
    after_checkpoint: Callable[[], object],
) -> list[TrainedSAE]:
    """Train autoencoders that aren't there yet, by their directories, and read all of them."""
    if isinstance(checkpoint_every, bool) or not isinstance(checkpoint_every, int) or checkpoint_every < 1:
        raise SettingError(f"checkpoint_every={checkpoint_every!r} was given; wanted a number of steps, from 1 on.")
    shared = _check_same_stream(asked)
    mesh = parallel.data_mesh()
    if shared.batch % mesh.size:
        raise SettingError(f"batch={shared.batch} can't be split over {mesh.size} devices; wanted a multiple.")
    reader = prepare_reading(model, layer, site)
    runs = [(epath.Path(workdir), epath.Path(workdir) / f"layer{layer}_{site}", how) for workdir, how in asked.items()]
    stated = Place(reader.layer, site, f"layer={layer}, site={site!r} were given")
    for _, directory, _ in runs:
        agreed(Path(directory), [stated, *places_of_path(Path(directory))], None, None)
    longest = max(asked.values(), key=lambda settings: settings.steps / settings.most_passes)
    trained_on, held_out = split_texts(model, read_texts(texts), longest)
    question = {
        **{"layer": reader.layer, "site": site, "model": model.name, "model_digest": model.digest},
        **{"dtype": model.dtype, "tokenizer": digest_tokenizer(model.tokenizer)},
        **{"trained_on": digest_tokens(trained_on), "held_out": digest_tokens(held_out)},
    }
    with contextlib.ExitStack() as stack:
        for workdir, _, settings in runs:
            stack.enter_context(only_writer(workdir))
            open_run(workdir, question | {"settings": dataclasses.asdict(settings)})
        stream = ActivationStream(reader, trained_on, shared.batch, shared.buffer, shared.seed)
        begun = [
            stack.enter_context(begun_training(workdir, directory, settings, stream, mesh))
            for workdir, directory, settings in runs
            if not (directory / "cfg.json").exists()
        ]
        take_steps(begun, stream, mesh, checkpoint_every, progress, after_checkpoint)
        for each in begun:
            _save(each.directory, model, reader, site, each.state, each.scale, each.settings)
        return [_read(directory, model, held_out, workdir, settings) for workdir, directory, settings in runs]


def _check_same_stream(asked: Mapping[Directory, SAESettings]) -> SAESettings:
    """Return settings of a stream of activations that are the same for all.

    Raises:
      SettingError: they differ, there are none, or a directory is there twice.
    """
    if not asked:
        raise SettingError("no settings were given; wanted el.training.SAESettings by directory, one or more.")
    if len({epath.Path(workdir) for workdir in asked}) < len(asked):
        raise SettingError(f"{', '.join(map(str, asked))} were given; wanted a directory for each training.")
    (first, shared), *others = asked.items()
    for workdir, settings in others:
        for name in OF_STREAM:
            if getattr(settings, name) != getattr(shared, name):
                raise SettingError(
                    f"{name}={getattr(shared, name)!r} is set for {first}, and {getattr(settings, name)!r} for "
                    f"{workdir}. What is trained together reads the same activations: {', '.join(OF_STREAM)} have to "
                    "be the same. Train them one by one, with el.training.train_sae."
                )
    return shared


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
    training = pd.read_csv(workdir / "training.csv")
    return TrainedSAE(sae, decoder, directory, SAEQuality(**quality), dead / settings.features, training)


def _warn_of_dead(trained: TrainedSAE, settings: SAESettings) -> None:
    dead = round(trained.dead_share * settings.features)
    if dead:
        message = (
            f"{dead} of {settings.features} features of {trained.sae.name} are dead: they fired at none of the last "
            f"{min(settings.dead_after, settings.steps) * settings.batch} activations. They answer to nothing, and no "
            "concept has them for experts; train fewer features, or for longer."
        )
        warnings.warn(ExpertLensWarning(message), stacklevel=3)
