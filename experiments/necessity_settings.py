"""What necessity reads of a config: which concepts, which sentences; and checks before a model runs."""

from collections.abc import Sequence

import ml_collections

import expertlens_jax as el
from expertlens_jax.analysis.detecting.pairs import choose_and_try
from expertlens_jax.analysis.steering.questions import check_necessity
from expertlens_jax.cards import counted
from expertlens_jax.data.in_place import find_words_in_place
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError, UnsupportedModelError

from .checks import check_drawn_concepts, check_draws, check_several_concepts


def find_sentences(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]
) -> tuple[el.ConceptDataset, el.ConceptDataset, el.ConceptDataset]:
    """Return the set that experts are found in, the drawn concepts' part of it, and the sentences to try them on."""
    return choose_and_try(datasets, config.necessity.concepts, seed=config.seed)


def read_learning(config: ml_collections.ConfigDict) -> el.Learning:
    """Return how the steerings are learned whose units are set beside the highest."""
    settings = config.necessity
    return el.Learning(
        objective="distribution", sparsity=settings.learned_price, steps=settings.learned_steps, seed=config.seed
    )


def check(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before the model runs.

    Raises:
      SelectionError: numbers of units, ablations or concepts that can't be, or a drawn count that isn't measured.
      UnfitConceptsError: sentences that can't be told into some to choose on and others to try on; or concepts without
        a sentence that has their word after another one.
    """
    settings = config.necessity
    check_draws(config, "resamples")
    check_necessity(settings.sizes, ("average_precision", "attribution"), settings.ablations, settings.sentences)
    if settings.drawn_size not in settings.sizes:
        raise SelectionError(
            f"necessity.drawn_size is {settings.drawn_size}, which is none of necessity.sizes {settings.sizes}."
        )
    check_drawn_concepts(settings, "necessity")
    if settings.learned < 0:
        raise SelectionError(f"necessity.learned is {settings.learned}; wanted a number of concepts, or 0 for none.")
    if settings.learned and not read_learning(config).sparsity > 0:
        raise SelectionError("necessity.learned_price is 0, at which learning changes all units; wanted one above 0.")
    check_several_concepts(datasets)
    for concepts in find_sentences(config, datasets)[1:]:
        try:
            find_words_in_place(concepts)
        except UnfitConceptsError:
            raise
        except ConceptDataError as error:
            raise UnfitConceptsError(str(error)) from None


def check_model(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check that the model gives words a probability, and has units enough.

    Raises:
      UnsupportedModelError: an encoder.
      SelectionError: more than half of the units would be silenced.
    """
    del datasets
    if not model.config.causal:
        raise UnsupportedModelError(
            f"{model.name} is an encoder and gives no word a probability, which necessity is read by. Ask it of a "
            "causal language model."
        )
    units = model.units[model.units["site"].isin(config.sites)] if config.sites else model.units
    most = max(config.necessity.sizes)
    if 2 * most > len(units) > 0:  # none are known of sites beside the usual ones
        raise SelectionError(
            f"necessity.sizes hold {most}, and {model.name} has {counted(len(units), 'unit')}; wanted at most half of "
            "them."
        )
