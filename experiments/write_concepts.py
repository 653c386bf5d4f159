"""Makes a sentence set for new concepts: asks a language model for sentences, or takes them from text files.

Claim (Fedzechkina et al. 2025): what ExpertLens finds hardly depends on who wrote the sentences. Sets that different
models wrote of the same concepts, held against one another in `experiments.stability`, would refute it where a
concept's expert sets overlap no more than those of different concepts.

    python -m experiments.write_concepts --config=configs/write_concepts.py --workdir=runs/instruments \
        --config.concepts="'violin','cello','flute'"
    python -m experiments.write_concepts --config=configs/write_concepts.py:mine --workdir=runs/mined \
        --config.concepts_from=facts --config.text=novels.txt.xz

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
from tqdm.auto import tqdm

import expertlens_jax as el
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning, SelectionError
from expertlens_jax.run_directory import only_writer, open_run, write_text
from expertlens_jax.sentences import writing
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.concept_list import Concept, list_concepts, read_concept_list
from expertlens_jax.sentences.mining import mine_sentences
from expertlens_jax.training.corpus import read_lines

from .asking import prepare_writing, row_of
from .launch import launch

EXTENT = ("sentences_per_concept", "max_attempts")
CONDUCT = ("key_variable", "timeout", "tries", "longest_wait")
"""These and `EXTENT` say how far and how patiently is asked, not what: a run can go on with others."""


def run(config: ml_collections.ConfigDict, workdir: epath.PathLike) -> None:
    """The making of one sentence set."""
    workdir = epath.Path(workdir)
    concepts = find_concepts(config)
    limits = Limits(config.min_words, config.max_words)
    check(config)
    set_name(config, workdir)
    write, asked = (mine, {}) if config.source == "mine" else prepare_writing(config)
    with only_writer(workdir):
        open_run(workdir, identity(config) | ({"asked": asked} if asked else {}))
        print(f"Writing to {workdir}")
        rows, told = write(config, concepts, limits, workdir)
        finish(rows, told, concepts, config, workdir)


def find_concepts(config: ml_collections.ConfigDict) -> list[Concept]:
    """The config's concepts, written out or from a file.

    Raises:
      ConceptDataError: neither or both are given, or the list can't be used.
    """
    if bool(config.concepts) == bool(config.concepts_from):
        raise ConceptDataError(
            f"concepts are {tuple(config.concepts)} and concepts_from is {config.concepts_from!r}; give one of them, "
            "as in --config.concepts=\"'violin','cello'\", or --config.concepts_from=FILE with a concept a line"
        )
    return list_concepts(config.concepts) if config.concepts else read_concept_list(config.concepts_from)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses settings that would fail later, or for one concept and not another.

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
    writing.check_template(f"prompts.{config.kind}", config.prompts[config.kind], writing.PROMPT_FIELDS, "concept")
    for name, field in (("sense", "domain"), ("again", "sentences")):
        if config[name]:
            writing.check_template(name, config[name], (field,), field)
    if config.source == "model":
        openings = config.openings.get(config.kind) or ("",)  # none is refused as one without {concept}
        for opening in openings:
            writing.check_template(f"openings.{config.kind}", opening, ("concept",), "concept")


def identity(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What makes a run this one: the config without what says how far or how patiently to go."""
    settings = {name: value for name, value in config.to_dict().items() if name not in EXTENT}
    if "endpoint" in settings:
        settings["endpoint"] = {k: v for k, v in settings["endpoint"].items() if k not in CONDUCT}
    return settings


def mine(
    config: ml_collections.ConfigDict, concepts: list[Concept], limits: Limits, workdir: epath.Path
) -> tuple[list[dict], list[dict]]:
    """Every concept's sentences from the config's text files, and how many there were."""
    lines = (
        (f"{epath.Path(path).name}:{number}", line)
        for path in config.text
        for number, line in enumerate(
            tqdm(read_lines(path), desc=f"reading {epath.Path(path).name}", unit="line", mininterval=1), start=1
        )
    )
    words = [concept.word for concept in concepts]
    mined, found = mine_sentences(lines, words, limits, most=config.sentences_per_concept, seed=config.seed)
    rows = [row_of(concept, each.sentence, each.place) for concept in concepts for each in mined[concept.word]]
    return rows, [{"found": found[word]} for word in words]


def set_name(config: ml_collections.ConfigDict, workdir: epath.Path) -> str:
    """The sentence set's name: the run directory's, so that several sets can be told apart in one experiment.

    Raises:
      SelectionError: a run directory has other files of that name.
    """
    name = config.name or workdir.name or "sentences"
    if name in ("config", "environment") or "/" in name:
        raise SelectionError(f"the sentence set can't be called {name!r}; name it with --config.name=NAME.")
    return name


def finish(
    rows: list[dict],
    told: list[Mapping[str, Any]],
    concepts: list[Concept],
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> None:
    """Writes the set and what there is to know of it, reads it back, and says which concepts fell short.

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
    write_text(file, "\n".join(["\t".join(("domain", "concept", "sentence", "source")), *lines]) + "\n")
    short = {concept.word: counts[concept.word] for concept in concepts}
    short = {word: count for word, count in short.items() if count < config.sentences_per_concept}
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
