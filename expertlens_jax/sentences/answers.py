"""Sentences of a concept out of a language model's answers, which is asked until there are enough.

Who answers is a function of a prompt and a seed.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.causal import check_predicts
from expertlens_jax.models.generation import generate
from expertlens_jax.models.model import Model
from expertlens_jax.sentences.acceptance import Limits, accept_sentences
from expertlens_jax.sentences.writing import Answer, read_continuations, read_list

Ask = Callable[[str, int], Answer]
"""Answers a prompt, by a seed."""


def chats_with(model: Model, style: str) -> bool:
    """Return whether a model is asked by a chat, and not given openings to continue.

    Raises:
      SelectionError: an unknown style, or a chat with a model that has no template for one.
      UnsupportedModelError: the model is an encoder.
    """
    check_predicts(model, "and writes nothing", "Choose a causal language model.")
    has_template = bool(model.tokenizer.chat_template)
    if style not in ("", "chat", "continue"):
        raise SelectionError(f'style is {style!r}; there are chat, continue, and "" for what the model is made for.')
    if style == "chat" and not has_template:
        raise SelectionError(f"style is chat, but {model.name}'s tokenizer has no chat template; set style=continue.")
    return has_template if style == "" else style == "chat"


def ask_model(model: Model, *, chats: bool, temperature: float, top_p: float, max_new_tokens: int = 0) -> Ask:
    """Return a function that asks a model of this package.

    Args:
      model: a causal language model.
      chats: asks by its chat template; otherwise each line of a prompt is an opening that the model continues.
      temperature, top_p: of the sampling.
      max_new_tokens: of an answer, or of a continuation; 0 is 2048 to chat and 48 to continue.
    """
    sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p}
    name = model.name  # with its revision

    def chat(prompt: str, seed: int) -> Answer:
        text = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        # The template writes the text's first token, which the tokenizer would put there once more.
        start = model.tokenizer.bos_token
        if start and model.tokenizer("a")["input_ids"][0] == model.tokenizer.bos_token_id:
            text = text.removeprefix(start)
        written = generate(model, text, max_new_tokens=max_new_tokens or 2048, seed=seed, **sampling)
        return Answer(written.texts[0], name)

    def continue_lines(prompt: str, seed: int) -> Answer:
        openings = prompt.splitlines()
        texts = generate(model, openings, max_new_tokens=max_new_tokens or 48, seed=seed, **sampling).texts
        lines = (" ".join((opening + text).split()) for opening, text in zip(openings, texts, strict=True))
        return Answer("\n".join(lines), name)

    return chat if chats else continue_lines


def collect_sentences(
    ask: Ask,
    word: str,
    limits: Limits,
    *,
    fill: Callable[[list[str]], str],
    draw_seed: Callable[[int], int],
    chats: bool,
    wanted: int,
    most_answers: int,
    taken: set[str],
    answers: list[dict[str, Any]],
    keep: Callable[[list[dict[str, Any]]], None] = lambda answers: None,
    tell: Callable[[int, int], None] = lambda sentences, answers: None,
) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """Collect one concept's sentences, from the answers there are and as many more as it takes.

    Args:
      ask: who answers.
      word: the concept.
      limits: of a sentence's length.
      fill: the prompt, given the sentences that are there already.
      draw_seed: the seed of a question, given its number.
      chats: answers are lists; otherwise continuations, one a line.
      wanted: how many sentences.
      most_answers: after so many answers nothing more is asked.
      taken: keys of sentences that are used already; those of this concept go in.
      answers: what was answered before, which is read first; new answers go in.
      keep: is called with all answers after each new one.
      tell: is called with the number of new sentences, and of answers read.

    Returns:
      The sentences, each with the number of its answer (from 1); and `answers` (how many were read), `models` (their
      names), `refused` (how many sentences for what reason).
    """
    found: list[tuple[str, int]] = []
    refused: collections.Counter[str] = collections.Counter()
    used = 0
    while len(found) < wanted and used < most_answers:
        if used == len(answers):
            prompt, seed = fill([sentence for sentence, _ in found]), draw_seed(used)
            answer = ask(prompt, seed)
            answers.append({"prompt": prompt, "seed": seed, "model": answer.model, "text": answer.text})
            keep(answers)
        text = answers[used]["text"]
        used += 1
        candidates = (read_list if chats else read_continuations)(text)
        accepted, why_not = accept_sentences(candidates, word, limits, taken)
        new = list(accepted.items())[: wanted - len(found)]
        refused.update(why_not)
        if not candidates:
            refused["answer empty" if not text.strip() else "answer without a list"] += 1
        taken.update(key for key, _ in new)
        found += [(sentence, used) for _, sentence in new]
        tell(len(new), used)
    models = sorted({answer["model"] for answer in answers[:used]})
    return found, {"answers": used, "models": models, "refused": dict(sorted(refused.items()))}
