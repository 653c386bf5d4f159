"""Asks an endpoint, or a model of this package, for sentences of concepts, and keeps every answer as it comes."""

import collections
import functools
import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import ml_collections
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from experiments.launch import find_model
from expertlens_jax.errors import EndpointError, RunDirectoryError, SelectionError, UnsupportedModelError
from expertlens_jax.models.digests import digest_json, digest_tokenizer
from expertlens_jax.models.provenance import NUMBERS_VERSION
from expertlens_jax.run_directory import write_text
from expertlens_jax.sentences import writing
from expertlens_jax.sentences.acceptance import Limits, accept_sentences
from expertlens_jax.sentences.concept_list import Concept
from expertlens_jax.sentences.endpoint import ask_endpoint, open_endpoint

Ask = Callable[[str, int], writing.Answer]
"""Answers a prompt, by a seed."""


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


def chats_with(model: el.Model, style: str) -> bool:
    """Whether a model is asked by a chat, and not given openings to continue.

    Raises:
      SelectionError: an unknown style, or a chat with a model that has no template for one.
      UnsupportedModelError: the model is an encoder.
    """
    if not model.config.causal or model.config.head is None:
        raise UnsupportedModelError(f"{model.name} is an encoder and writes nothing; choose a causal language model.")
    has_template = bool(model.tokenizer.chat_template)
    if style not in ("", "chat", "continue"):
        raise SelectionError(f'style is {style!r}; there are chat, continue, and "" for what the model is made for.')
    if style == "chat" and not has_template:
        raise SelectionError(f"style is chat, but {model.name}'s tokenizer has no chat template; set style=continue.")
    return has_template if style == "" else style == "chat"


def model_asker(model: el.Model, config: ml_collections.ConfigDict, chats: bool) -> Ask:
    """Asks a model of this package: by its chat template, or each line of a prompt is an opening that it continues."""
    sampling = {"temperature": config.temperature, "top_p": config.top_p}
    name = model.name  # with its revision

    def chat(prompt: str, seed: int) -> writing.Answer:
        text = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        # The template writes the text's first token, which the tokenizer would put there once more.
        start = model.tokenizer.bos_token
        if start and model.tokenizer("a")["input_ids"][0] == model.tokenizer.bos_token_id:
            text = text.removeprefix(start)
        length = config.max_new_tokens or 2048
        return writing.Answer(el.generate(model, text, max_new_tokens=length, seed=seed, **sampling).texts[0], name)

    def continue_lines(prompt: str, seed: int) -> writing.Answer:
        openings = prompt.splitlines()
        length = config.max_new_tokens or 48
        texts = el.generate(model, openings, max_new_tokens=length, seed=seed, **sampling).texts
        lines = (" ".join((opening + text).split()) for opening, text in zip(openings, texts, strict=True))
        return writing.Answer("\n".join(lines), name)

    return chat if chats else continue_lines


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
    answers = read_answers(file)
    rows, refused, used = [], collections.Counter(), 0
    with tqdm(total=config.sentences_per_concept, desc=concept.word, unit="sentence", leave=False) as bar:
        while len(rows) < config.sentences_per_concept and used < config.max_attempts:
            if used == len(answers):
                known = [row["sentence"] for row in rows]
                prompt = fill(config, chats, concept, limits, known)
                seed = writing.draw_seed(config.seed, config.kind, concept.word, used)
                try:
                    answer = ask(prompt, seed)
                except EndpointError as error:
                    raise EndpointError(f"{error} All answers so far are kept; launch again to go on.") from error
                answers.append({"prompt": prompt, "seed": seed, "model": answer.model, "text": answer.text})
                write_text(file, "".join(json.dumps(each) + "\n" for each in answers))
            text = answers[used]["text"]
            used += 1
            candidates = (writing.read_list if chats else writing.read_continuations)(text)
            accepted, why_not = accept_sentences(candidates, concept.word, limits, taken)
            wanted = list(accepted.items())[: config.sentences_per_concept - len(rows)]
            refused.update(why_not)
            if not candidates:
                refused["answer empty" if not text.strip() else "answer without a list"] += 1
            taken.update(key for key, _ in wanted)
            rows += [row_of(concept, sentence, f"answers/{file.name}:{used}") for _, sentence in wanted]
            bar.update(len(wanted))
            bar.set_postfix_str(f"{used} answers")
    models = sorted({answer["model"] for answer in answers[:used]})
    return rows, {"answers": used, "models": models, "refused": dict(sorted(refused.items()))}


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
