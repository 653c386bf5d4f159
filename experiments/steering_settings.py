"""What steering reads of a config: the design of the trials, what is written, and checks of both."""

from collections.abc import Sequence

import ml_collections
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.steering.effects import Writing, find_in_place
from expertlens_jax.analysis.steering.trials import CONTROLS, Design, held_out_texts
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError, UnsupportedModelError
from expertlens_jax.experts.steering import METHODS, check_known_concepts

from .checks import check_draws, check_known


def read_design(config: ml_collections.ConfigDict) -> Design:
    """Return which steerings are compared."""
    s = config.steering
    return Design(
        concepts=tuple(s.concepts),
        counts=tuple(s.counts),
        drawn_count=s.drawn_count,
        method=s.method,
        strengths=tuple(s.strengths),
        methods=tuple(s.methods),
        controls=tuple(s.controls),
        domains=tuple(s.domains),
    )


def read_writing(config: ml_collections.ConfigDict, elsewhere: el.ConceptDataset) -> Writing:
    """Return how continuations are written, and which texts of another sentence set are held out."""
    s = config.steering
    return Writing(
        prompts=tuple(s.prompts),
        held_out=held_out_texts(elsewhere, s.concepts, s.held_out, seed=config.seed),
        num_seeds=s.num_seeds,
        max_new_tokens=s.max_new_tokens,
        temperature=s.temperature,
        seed=config.seed,
    )


def check(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and concepts before a model runs.

    Raises:
      SelectionError: an unknown method or control, a drawn count that isn't measured, nothing to steer, a concept that
        stands among the domains too, or a name that neither these sentences nor the packaged ones have.
      UnfitConceptsError: concepts or domains to steer that are packaged, but that these sentences lack; or words that
        stand in none of them.
      ConceptDataError: a concept to steer away from that there is nowhere.
    """
    settings = config.steering
    check_draws(config, "resamples")
    check_known("steering.methods", (settings.method, *settings.methods, *settings.away_methods), METHODS)
    check_known("steering.controls", settings.controls, CONTROLS)
    if settings.drawn_count not in settings.counts:
        raise SelectionError(
            f"steering.drawn_count is {settings.drawn_count}, which is none of steering.counts {settings.counts}."
        )
    if 1.0 not in settings.strengths or not all(0 < strength <= 1 for strength in settings.strengths):
        raise SelectionError(
            f"steering.strengths are {settings.strengths}; wanted numbers above 0 and up to 1, and 1 among them."
        )
    if len(settings.concepts) < 2 or not settings.prompts or settings.num_seeds < 1:
        raise SelectionError(
            "steering wants two concepts or more, a prompt or more, and num_seeds of 1 or more; it was given "
            f"{len(settings.concepts)}, {len(settings.prompts)} and {settings.num_seeds}."
        )
    both = [name for name in settings.concepts if name in settings.domains]
    if both:
        raise SelectionError(
            f"{both[0]!r} is among steering.concepts and steering.domains; its word and what its members share are two "
            "things. Leave it in one of them."
        )
    check_names(config, datasets[0], datasets[-1])


def check_names(config: ml_collections.ConfigDict, concepts: el.ConceptDataset, elsewhere: el.ConceptDataset) -> None:
    """Check that concepts and domains are there: see `check`.

    The suites name packaged concepts. One of those, missing among a user's own, says that the sentences are of other
    concepts; a name that is nowhere is a slip.
    """
    s, packaged = config.steering, el.load_concepts("facts")
    table = xr.Dataset(coords={"concept": list(concepts.concepts)})
    wanted = (*s.concepts, *(concept for concept, _ in s.away))
    check_known_concepts(table, [name for name in wanted if name not in packaged.concepts])
    lacking = [name for name in dict.fromkeys(wanted) if name not in concepts.concepts]
    if lacking:
        raise UnfitConceptsError(
            f"{concepts.name!r} has no concept {', '.join(map(repr, lacking))}, which steering.concepts and "
            "steering.away name. Give two or more of its own: --config.steering.concepts=\"'NAME','NAME'\" and "
            '--config.steering.away="()".'
        )
    for domain in s.domains:
        members = [
            name for name, of in zip(concepts.concepts, concepts.domains, strict=True) if of == domain and name != of
        ]
        if not members:
            known = domain in packaged.domains
            raise (UnfitConceptsError if known else SelectionError)(
                f"{concepts.name!r} has no concepts of a domain {domain!r}, which steering.domains name; there are "
                f"{', '.join(dict.fromkeys(concepts.domains)).strip(', ') or 'none'}. Name domains, or none: "
                '--config.steering.domains="()".'
            )
    concepts.check_words("continuations that hold a concept's word, which steering counts,", s.concepts)
    for word in dict.fromkeys(word for pair in s.away for word in pair):
        try:
            find_in_place(elsewhere, word)
        except ConceptDataError as error:
            raise (UnfitConceptsError if word in packaged.concepts else ConceptDataError)(str(error)) from None


def check_model(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check that the model writes.

    Raises:
      UnsupportedModelError: an encoder.
    """
    del config, datasets
    if not model.config.causal:
        raise UnsupportedModelError(f"{model.name} is an encoder and writes nothing. Steer a causal language model.")
