"""Who writes sentences, by a config: an endpoint or a model of this package, or text files that have them already."""

import functools
import json
from collections.abc import Callable
from typing import Any

import ml_collections
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from expertlens_jax.errors import ConceptDataError, EndpointError, SelectionError
from expertlens_jax.models.digests import digest_json, digest_tokenizer
from expertlens_jax.models.provenance import NUMBERS_VERSION
from expertlens_jax.sentences import writing
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.answers import Ask, ask_model, chats_with
from expertlens_jax.sentences.concept_list import Concept, list_concepts, list_rated_words, read_concept_list
from expertlens_jax.sentences.endpoint import ask_endpoint, open_endpoint
from expertlens_jax.sentences.kept_answers import write_sentences
from expertlens_jax.sentences.sentence_sets import mined_set
from expertlens_jax.training.corpus import read_lines

from .sources import find_model

EXTENT = ("sentences_per_concept", "max_attempts")
CONDUCT = ("key_variable", "timeout", "tries", "longest_wait")
"""These and `EXTENT` say how far and how patiently is asked, not what: a run can go on with others."""

Written = tuple[list[dict[str, str]], list[dict[str, Any]]]
"""Rows of a sentence set, and a summary of each concept."""


def open_writer(
    config: ml_collections.ConfigDict, concepts: list[Concept], limits: Limits
) -> tuple[Callable[[epath.Path], Written], dict[str, Any]]:
    """Return what writes the sentences into a run directory; what keeps it from that is told here.

    Returns:
      The function, and what tells the model from others of its name, as far as it can be known: of an endpoint's, or of
      text files, nothing.
    """
    if config.source == "mine":
        return lambda workdir: mine(config, concepts, limits), {}
    asked: dict[str, Any] = {}
    if config.source == "endpoint":
        ask, chats = endpoint_writer(config), True
    else:
        model = find_model(config)
        chats = chats_with(model, config.style)
        ask = model_writer(model, config, chats)
        template = digest_json(model.tokenizer.chat_template)
        tokenizer = {"file": digest_tokenizer(model.tokenizer), "chat_template": template}
        asked = {"model_digest": model.digest, "tokenizer": tokenizer, "numbers_version": NUMBERS_VERSION}
    wording = read_wording(config)
    asking = {"chats": chats, "count": config.sentences_per_answer, "limits": limits}
    write = functools.partial(
        write_sentences,
        ask,
        concepts,
        limits,
        fill=lambda concept, known: wording.fill(concept.word, concept.domain, known, **asking),
        draw_seed=functools.partial(writing.draw_seed, config.seed, config.kind),
        chats=chats,
        wanted=config.sentences_per_concept,
        most_answers=config.max_attempts,
    )
    return lambda workdir: write(workdir / "answers"), asked


def endpoint_writer(config: ml_collections.ConfigDict) -> Ask:
    """Return a function that asks the config's endpoint."""
    settings = config.endpoint.to_dict()
    try:
        body = json.loads(settings.pop("body") or "{}")
    except ValueError as problem:
        raise EndpointError(f"endpoint.body is no JSON: {problem}. Write it as '{{\"temperature\": 1.0}}'.") from None
    if not isinstance(body, dict):
        raise EndpointError(f"endpoint.body is {body!r}; wanted a JSON object, as '{{\"temperature\": 1.0}}'.")
    endpoint = open_endpoint(settings.pop("url"), settings.pop("model"), body=body, **settings)
    return lambda prompt, seed: ask_endpoint(endpoint, prompt, seed, tell=tqdm.write)


def model_writer(model: el.Model, config: ml_collections.ConfigDict, chats: bool) -> Ask:
    """Return a function that asks a model of this package, as the config says."""
    return ask_model(
        model,
        chats=chats,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
    )


def read_wording(config: ml_collections.ConfigDict) -> writing.Wording:
    """Return how the config asks for sentences of its kind."""
    openings = config.openings.get(config.kind, ()) if "openings" in config else ()
    return writing.Wording(config.prompts[config.kind], openings, config.sense, config.again)


def mine(config: ml_collections.ConfigDict, concepts: list[Concept], limits: Limits) -> Written:
    """Return every concept's sentences from the config's text files, and how many there were."""
    mined = mined_set(
        [epath.Path(path) for path in config.text],
        concepts,
        limits,
        per_concept=config.sentences_per_concept,
        seed=config.seed,
        per_book=config.sentences_per_book,
        prose=config.prose,
        complete=config.complete,
        books_until=config.books_until,
        books_left_out=config.books_left_out,
        progress=True,
    )
    return mined.table.to_dict("records"), [{"found": int(mined.found[concept.word])} for concept in concepts]


def find_concepts(config: ml_collections.ConfigDict) -> list[Concept]:
    """Return the config's concepts: written out, from a file, or the words of ratings.

    Raises:
      ConceptDataError: neither or both are given, or the list can't be used.
    """
    if "rated" in config:
        listed = list_rated_words(
            dict(config.rated), exceptions=dict(config.exceptions), domains_from=config.domains_from
        )
        return [concept for concept in listed if concept.word not in config.left_out]
    if bool(config.concepts) == bool(config.concepts_from):
        raise ConceptDataError(
            f"concepts are {tuple(config.concepts)} and concepts_from is {config.concepts_from!r}; give one of them, "
            "as in --config.concepts=\"'violin','cello'\", or --config.concepts_from=FILE with a concept a line"
        )
    return list_concepts(config.concepts) if config.concepts else read_concept_list(config.concepts_from)


def check(config: ml_collections.ConfigDict) -> None:
    """Check settings that would fail later, or for one concept and not another.

    Raises:
      SelectionError: a number below 1, a kind without prompts, or a template that can't be filled in.
      CorpusError: a text file that isn't there.
    """
    for name in (*EXTENT, "sentences_per_answer"):
        if config.get(name, 1) < 1:
            raise SelectionError(f"{name} is {config[name]}; wanted 1 or more.")
    if config.source == "mine":
        if not config.text:
            raise SelectionError(
                "there is no text to take sentences from. Give a file, --config.text=FILE, or several."
            )
        for path in config.text:
            next(read_lines(path), None)
        return
    if config.kind not in config.prompts:
        raise SelectionError(f"kind is {config.kind!r}; the prompts are for {' and '.join(config.prompts)}.")
    read_wording(config).check(config.kind, openings=config.source == "model")


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return what makes a run this one: the config without what says how far or how patiently to go."""
    settings = {name: value for name, value in config.to_dict().items() if name not in EXTENT}
    if "endpoint" in settings:
        settings["endpoint"] = {k: v for k, v in settings["endpoint"].items() if k not in CONDUCT}
    return settings


def set_name(config: ml_collections.ConfigDict, workdir: epath.Path) -> str:
    """Return the sentence set's name: the run directory's, so that several sets can be told apart in one experiment.

    Raises:
      SelectionError: a run directory has other files of that name.
    """
    name = config.name or workdir.name or "sentences"
    if name in ("config", "environment") or "/" in name:
        raise SelectionError(f"the sentence set can't be called {name!r}; name it with --config.name=NAME.")
    return name
