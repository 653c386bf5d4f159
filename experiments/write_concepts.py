"""Makes a sentence set for new concepts: asks a language model for sentences, or takes them from text files.

Claim (Fedzechkina et al. 2025): what ExpertLens finds hardly depends on who wrote the sentences. Sets that different
models wrote of the same concepts, compared in `experiments.stability`, would refute it where a
concept's expert sets overlap no more than those of different concepts.

    python -m experiments.write_concepts --config=configs/write_concepts.py --workdir=runs/instruments \
        --config.concepts="'violin','cello','flute'"
    python -m experiments.write_concepts --config=configs/write_concepts.py:mine --workdir=runs/mined \
        --config.concepts_from=facts --config.text=novels.txt.xz
    python -m experiments.write_concepts --config=configs/write_concepts.py:novels --workdir=runs/novels \
        --config.text=novels.txt.xz

Keeps whole sentences that hold the concept's word in a form of it (`words.find_mentions`), each once among concepts,
and asks again until there are `sentences_per_concept` or it asked `max_attempts` times. Writes into the run directory
NAME.tsv, which `el.load_concepts` reads (its column `source` tells a sentence's answer, or its line, empty ones not
counted); NAME.json (config, models, and what each concept's answers came to); and `answers/CONCEPT.jsonl`, every answer
as it came, with its prompt and seed. Killed and started again, it asks only what was not answered; with a larger
`sentences_per_concept` or `max_attempts` it goes on from the answers there are.
"""

import collections
import json
import warnings
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning
from expertlens_jax.run_directory import only_writer, open_run, write_text
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.concept_list import Concept
from expertlens_jax.sentences.kept_answers import COLUMNS

from .launch import launch
from .sentence_writers import check, find_concepts, identity, open_writer, set_name


def run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
    """Make one sentence set."""
    workdir = epath.Path(workdir)
    concepts = find_concepts(config)
    limits = Limits(config.min_words, config.max_words)
    check(config)
    set_name(config, workdir)
    write, asked = open_writer(config, concepts, limits)
    with only_writer(workdir):
        open_run(workdir, identity(config) | ({"asked": asked} if asked else {}))
        print(f"Writing to {workdir}")
        rows, told = write(workdir)
        finish(rows, told, concepts, config, workdir)


def finish(
    rows: list[dict],
    told: list[Mapping[str, Any]],
    concepts: list[Concept],
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> None:
    """Write the set and what there is to know of it, read it back, and say which concepts fell short.

    Warns:
      ExpertLensWarning: concepts have fewer sentences than wanted.

    Raises:
      ConceptDataError: concepts have none; the others' are written all the same.
    """
    counts = collections.Counter(row["concept"] for row in rows)
    summary = [
        {"concept": concept.word, "domain": concept.domain, "sentences": counts[concept.word], **each}
        for concept, each in zip(concepts, told, strict=True)
    ]
    name = set_name(config, workdir)
    file = workdir / f"{name}.tsv"
    write_text(workdir / f"{name}.json", json.dumps({"config": config.to_dict(), "concepts": summary}, indent=2) + "\n")
    # Quotes are literal: load_concepts reads a .tsv so, and a sentence holds neither tabs nor line ends.
    lines = ["\t".join(row.values()) for row in rows]
    write_text(file, "\n".join(["\t".join(COLUMNS), *lines]) + "\n")
    short = {concept.word: counts[concept.word] for concept in concepts}
    short = {word: count for word, count in short.items() if count < config.sentences_per_concept}
    if config.get("complete", False) and rows:
        print(f"Left out, for want of {config.sentences_per_concept} sentences: {', '.join(short) or 'none'}.")
        short = {}
    without = [word for word, count in short.items() if count == 0]
    if rows:
        fewest = min(counts.values())
        reading = f'"{file}"' + (f", minimum_sentences={fewest}" if fewest < 5 else "")
        written = el.load_concepts(file, minimum_sentences=1)
        print(f"{len(written.sentences)} sentences of {len(written.concepts)} concepts: el.load_concepts({reading})")
    if fell := [f"{word} ({count})" for word, count in short.items() if count]:
        warnings.warn(
            f"{len(fell)} of {len(concepts)} concepts have fewer than {config.sentences_per_concept} sentences: "
            f"{', '.join(fell)}. {_remedy(config, name)}",
            ExpertLensWarning,
            stacklevel=2,
        )
    if without:
        raise ConceptDataError(
            f"there isn't a sentence of {', '.join(map(repr, without))}; {len(counts)} other concepts are in {file}. "
            f"{_remedy(config, name)}"
        )


def _remedy(config: ml_collections.ConfigDict, name: str) -> str:
    if config.source == "mine":
        return "Give more text, a paragraph a line, or wider limits of words."
    return (
        f"{name}.json says what was refused. Launch again with a larger --config.max_attempts to ask further, or ask a "
        "better model."
    )


if __name__ == "__main__":
    launch(run)
