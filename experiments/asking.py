"""Asks an endpoint, or a model of this package, for sentences of concepts, and keeps every answer as it comes."""

import functools
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import ml_collections
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from expertlens_jax.errors import EndpointError, RunDirectoryError
from expertlens_jax.models.digests import digest_json, digest_tokenizer
from expertlens_jax.models.provenance import NUMBERS_VERSION
from expertlens_jax.run_directory import write_text
from expertlens_jax.sentences import writing
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.asking import Ask, ask_model, chats_with, collect_sentences
from expertlens_jax.sentences.concept_list import Concept
from expertlens_jax.sentences.endpoint import ask_endpoint, open_endpoint

from .launch import find_model


def prepare_writing(
    config: ml_collections.ConfigDict,
) -> tuple[Callable[..., tuple[list[dict], list[dict]]], dict[str, Any]]:
    """`write_all` with a model or an endpoint at hand; whatever keeps it from being asked is told here.

    Returns:
      That, and what tells the model from others of its name, as far as it can be known: of an endpoint's, nothing.
    """
    if config.source == "endpoint":
        return functools.partial(write_all, endpoint_asker(config), True), {}
    model = find_model(config)
    chats = chats_with(model, config.style)
    tokenizer = {"file": digest_tokenizer(model.tokenizer), "chat_template": digest_json(model.tokenizer.chat_template)}
    asked = {"model_digest": model.digest, "tokenizer": tokenizer, "numbers_version": NUMBERS_VERSION}
    return functools.partial(write_all, model_asker(model, config, chats), chats), asked


def endpoint_asker(config: ml_collections.ConfigDict) -> Ask:
    """Asks the config's endpoint."""
    settings = config.endpoint.to_dict()
    try:
        body = json.loads(settings.pop("body") or "{}")
    except ValueError as problem:
        raise EndpointError(f"endpoint.body is no JSON: {problem}. Write it as '{{\"temperature\": 1.0}}'.") from None
    if not isinstance(body, dict):
        raise EndpointError(f"endpoint.body is {body!r}; wanted a JSON object, as '{{\"temperature\": 1.0}}'.")
    endpoint = open_endpoint(settings.pop("url"), settings.pop("model"), body=body, **settings)
    return lambda prompt, seed: ask_endpoint(endpoint, prompt, seed, tell=tqdm.write)


def model_asker(model: el.Model, config: ml_collections.ConfigDict, chats: bool) -> Ask:
    """Asks a model of this package, as the config says."""
    return ask_model(
        model,
        chats=chats,
        temperature=config.temperature,
        top_p=config.top_p,
        max_new_tokens=config.max_new_tokens,
    )


def write_all(
    ask: Ask,
    chats: bool,
    config: ml_collections.ConfigDict,
    concepts: list[Concept],
    limits: Limits,
    workdir: epath.Path,
) -> tuple[list[dict], list[dict]]:
    """Every concept's sentences: rows of the table, and a summary of each concept's answers."""
    rows, summaries, taken = [], [], set()
    for concept in tqdm(concepts, desc="concepts", unit="concept"):
        own, summary = write_one(ask, chats, config, concept, limits, taken, workdir)
        rows += own
        summaries.append(summary)
    return rows, summaries


def write_one(
    ask: Ask,
    chats: bool,
    config: ml_collections.ConfigDict,
    concept: Concept,
    limits: Limits,
    taken: set[str],
    workdir: epath.Path,
) -> tuple[list[dict], dict]:
    """One concept's sentences, from the answers there are and as many more as it takes; their keys go into `taken`."""
    file = workdir / "answers" / f"{urllib.parse.quote(concept.word, safe='')}.jsonl"

    def asked(prompt: str, seed: int) -> writing.Answer:
        try:
            return ask(prompt, seed)
        except EndpointError as error:
            raise EndpointError(f"{error} All answers so far are kept; launch again to go on.") from error

    with tqdm(total=config.sentences_per_concept, desc=concept.word, unit="sentence", leave=False) as bar:

        def tell(sentences: int, answers: int) -> None:
            bar.update(sentences)
            bar.set_postfix_str(f"{answers} answers")

        found, summary = collect_sentences(
            asked,
            concept.word,
            limits,
            fill=lambda known: fill(config, chats, concept, limits, known),
            draw_seed=functools.partial(writing.draw_seed, config.seed, config.kind, concept.word),
            chats=chats,
            wanted=config.sentences_per_concept,
            most_answers=config.max_attempts,
            taken=taken,
            answers=read_answers(file),
            keep=lambda answers: write_text(file, "".join(json.dumps(each) + "\n" for each in answers)),
            tell=tell,
        )
    return [row_of(concept, sentence, f"answers/{file.name}:{answer}") for sentence, answer in found], summary


def fill(config: ml_collections.ConfigDict, chats: bool, concept: Concept, limits: Limits, known: list[str]) -> str:
    """What a model is asked: the prompt, or openings."""
    if not chats:
        return writing.fill_openings(config.openings[config.kind], concept.word, config.sentences_per_answer)
    return writing.fill_prompt(
        config.prompts[config.kind],
        concept.word,
        concept.domain,
        count=config.sentences_per_answer,
        limits=limits,
        sense=config.sense,
        again=config.again,
        known=known,
    )


def read_answers(file: epath.Path) -> list[dict[str, Any]]:
    """The answers that a concept's file holds.

    Raises:
      RunDirectoryError: the file isn't as it was written.
    """
    if not file.exists():
        return []
    try:
        answers = [json.loads(line) for line in file.read_text().splitlines()]
        if not all(isinstance(answer["text"], str) and isinstance(answer["model"], str) for answer in answers):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise RunDirectoryError(f"{file} doesn't hold answers as they were written. Remove it to ask anew.") from None
    return answers


def row_of(concept: Concept, sentence: str, source: str) -> dict[str, str]:
    """A row of the table."""
    return {"domain": concept.domain, "concept": concept.word, "sentence": sentence, "source": source}
