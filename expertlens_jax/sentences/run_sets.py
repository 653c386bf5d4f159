"""A sentence set in a run directory: the set, what there is to know of it, and which concepts fell short."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import load_concepts
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.run_directory import write_csv, write_text
from expertlens_jax.sentences.auditing import audit
from expertlens_jax.sentences.concept_list import Concept
from expertlens_jax.sentences.sentence_sets import set_of_rows, tell_few


def save_run_set(
    workdir: epath.Path,
    name: str,
    rows: Sequence[Mapping[str, str]],
    told: Sequence[Mapping[str, Any]],
    concepts: Sequence[Concept],
    *,
    wanted: int,
    settings: Mapping[str, Any],
    remedy: str,
    complete: bool = False,
    audited: bool = False,
) -> None:
    """Write a set as NAME.tsv, and what there is to know of it as NAME.json; read it back, and say who fell short.

    An audited set has NAME_audit.csv too, with the sentences that are doubtful, and why.

    Args:
      workdir: the run directory.
      name: of the set.
      rows: of the set, with the keys `COLUMNS`.
      told: of each concept, what its sentences came from.
      concepts: in the order of `told`.
      wanted: sentences of each.
      settings: of the run.
      remedy: what to do about concepts that fell short.
      complete: concepts have all their sentences or none, and those without are left out.
      audited: say which sentences are doubtful, as those that a model wrote may be.

    Warns:
      ExpertLensWarning: concepts have fewer sentences than wanted.

    Raises:
      ConceptDataError: concepts have none; the others' are written all the same.
    """
    made = set_of_rows([tuple(row.values()) for row in rows], concepts)
    counts = {str(word): int(count) for word, count in made.counts.items()}
    summary = [
        {"concept": concept.word, "domain": concept.domain, "sentences": counts[concept.word], **each}
        for concept, each in zip(concepts, told, strict=True)
    ]
    write_text(workdir / f"{name}.json", json.dumps({"config": settings, "concepts": summary}, indent=2) + "\n")
    file = made.write_to(workdir / f"{name}.tsv")
    short = {word: count for word, count in counts.items() if count < wanted}
    if complete and rows:
        print(f"Left out, for want of {wanted} sentences: {', '.join(short) or 'none'}.")
        short = {}
    if rows:
        fewest = min(count for count in counts.values() if count)
        reading = f'"{file}"' + (f", minimum_sentences={fewest}" if fewest < 5 else "")
        written = load_concepts(file, minimum_sentences=1)
        print(f"{len(written.sentences)} sentences of {len(written.concepts)} concepts: el.load_concepts({reading})")
        if audited:
            found = audit(written)
            write_csv(workdir / f"{name}_audit.csv", found.table)
            print(f"{found.summary()}\nWhich they are, and why: {workdir / f'{name}_audit.csv'}")
    if few := {word: count for word, count in short.items() if count}:
        tell_few(few, len(concepts), wanted, remedy)
    if without := [word for word, count in short.items() if not count]:
        others = sum(map(bool, counts.values()))
        raise ConceptDataError(
            f"there isn't a sentence of {', '.join(map(repr, without))}; "
            f"{counted(others, 'other concept is', 'other concepts are')} in {file}. {remedy}"
        )
