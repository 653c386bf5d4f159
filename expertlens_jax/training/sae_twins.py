"""Random twins of a sparse autoencoder: trained alike, but on less, so that what it learned can be told from chance.

arXiv 2602.14111 asks whether any autoencoder does better than one with a frozen random decoder or encoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from expertlens_jax.models.loading import randomize_weights
from expertlens_jax.models.model import Model
from expertlens_jax.training.activations import Texts
from expertlens_jax.training.sae_step import SAESettings
from expertlens_jax.training.sae_training import TrainedSAE, train_saes

RANDOM = "random weights"
TWINS = {"frozen decoder": "decoder", "frozen encoder": "encoder", RANDOM: ""}
"""Random twins, and what of each stays as it was drawn; the last is of a model that learned nothing."""


def train_with_twins(
    model: Model,
    texts: Texts,
    workdir: epath.Path,
    *,
    name: str,
    layers: Sequence[int],
    site: str,
    settings: SAESettings,
    twins: Sequence[str] = tuple(TWINS),
    seed: int = 0,
) -> dict[str, tuple[Model, list[TrainedSAE]]]:
    """Return a model with autoencoders of several layers, and with each random twin of these; train what isn't there.

    Args:
      model: from `load_model`.
      texts: to train on, see `train_sae`.
      workdir: each has a directory in it, `NAME/layerN`.
      name: what to call those that aren't twins.
      layers: each has an autoencoder.
      site: that they read.
      settings: of the training.
      twins: names in `TWINS`.
      seed: of the network with random weights.

    Returns:
      By name, the model that carries them, and how each was trained; first those that are no twins.
    """
    trained: dict[str, list[TrainedSAE]] = {each: [] for each in (name, *twins)}
    sources = {each: randomize_weights(model, seed) if each == RANDOM else model for each in trained}
    own = [each for each in trained if each != RANDOM]  # of one model: it reads the texts once for all of them
    for names in filter(None, (own, [each for each in trained if each == RANDOM])):
        for layer in layers:
            print(f"Training {', '.join(names)} of {site} in layer {layer}, unless they are there")
            asked = {
                workdir / each.replace(" ", "_") / f"layer{layer}": dataclasses.replace(
                    settings, frozen=TWINS.get(each, "")
                )
                for each in names
            }
            found = train_saes(sources[names[0]], texts, asked, layer=layer, site=site, progress=True)
            for each, sae in zip(names, found, strict=True):
                trained[each].append(sae)
                print(sae)
    return {each: (sources[each].with_sae(*(one.sae for one in saes)), saes) for each, saes in trained.items()}
