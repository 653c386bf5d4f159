"""What may be wrong with sentences before a model reads them: a wrong sense, templates, near-duplicates, leaked words.

Whoever replicates a study with sentences that a model wrote finds some in the wrong sense, late and by eye. Here every
sentence is compared with the others of its set. Nothing is decided: a row says what was seen, and how much of it.

A sentence is compared without its concept's word, in whose place a slot stands. It *reads like* the concept, domain or
sense to whose sentences it is most alike: the cosine of its TF-IDF weights (scikit-learn's, with 1 + ln tf) with the
sum of theirs, its own left out. Most sentences of a good set lie nearer to their own; some don't, since short sentences
have few words in common. So only those are told whose distance is far out for this set, counted in median absolute
deviations from its median. With a model, its responses (the residual stream after each layer, mean over tokens) are
asked the same.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from etils import epath
from scipy import sparse

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.rows import each_row
from expertlens_jax.data.words import find_mentions, split_words
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.models.model import Model
from expertlens_jax.plot.audit_figures import plot_audit
from expertlens_jax.plot.files import save_figure
from expertlens_jax.plot.style import Figure
from expertlens_jax.run_directory import write_csv

SEVERITIES = ("high", "medium", "low")
PROBLEMS = (
    *("lacks its word", "wrong sense", "reads like another domain", "reads like another concept"),
    *("near-duplicate", "template", "another concept's word", "label"),
)
COLUMNS = ("concept", "sentence", "problem", "evidence", "severity")

_SLOT = "_"
# Median absolute deviations (scaled as a normal's) above the median. A word in the wrong sense is looked for among few
# and is worth more false alarms: with one sentence in twenty of `senses` moved to the word's other sense (70 of 1,400),
# 18 were "high", 14 of them moved ones, and 84 were told at all, 26 of them moved ones.
_FAR = {"high": 7.0, "medium": 5.0, "low": 3.5}
_FAR_SENSE = {"high": 2.5, "medium": 2.0, "low": 1.5}
_ALIKE = {"high": 0.9, "medium": 0.75, "low": 0.6}  # share of two sentences' words that both have
_TEMPLATE = {"high": 0.3, "medium": 0.15, "low": 0.0}  # share of a concept's sentences that have a phrase in common
_LEAKED = {"high": 0.5, "medium": 0.2, "low": 0.0}  # share of a concept's sentences that hold the same other word
_FEWEST = 3  # sentences that make a phrase a template
_EDGE, _PHRASE = 3, 5  # words of a beginning or an end beside the concept's, and of a phrase anywhere
_WORDS = 4  # that a sentence needs for near-duplicates, beside its concept's
_GLOSS = re.compile(r"\(([^()]*)\)\s*$")  # bat (animal)
_BLOCK = 1024  # sentences that are compared with all at once


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What `audit` found in a sentence set.

    >>> import expertlens_jax as el
    >>> el.sentences.audit(el.load_concepts("senses").subset(["beak", "tomb"])).summary().splitlines()[0]
    'senses: 40 sentences of 2 concepts.'
    """

    table: pd.DataFrame
    """A row per sentence and problem, the worst first: concept, sentence, problem, evidence, severity ("high", "medium"
    or "low")."""
    name: str
    """The sentence set's."""
    sentences: Mapping[str, int]
    """Of each concept, how many sentences it has."""
    accuracy: pd.DataFrame
    """How often a sentence is most alike to its own: `told` ("concept", "domain" or "sense"), `by` ("words" or
    "model"), `accuracy`, `chance`, `sentences`."""

    def summary(self) -> str:
        """Return how many sentences have which problem, and which concepts have most, a line each."""
        total = sum(self.sentences.values())
        lines = [f"{self.name}: {counted(total, 'sentence')} of {counted(len(self.sentences), 'concept')}."]
        for row in each_row(self.accuracy):
            how = "the words beside its concept's" if row.by == "words" else "the model's responses to it"
            lines.append(
                f"By {how}, a sentence is most like its own {row.told} in a share of {row.accuracy:.2f} (chance "
                f"{row.chance:.2g})."
            )
        for problem in PROBLEMS:
            rows = self.table[self.table["problem"] == problem]
            if len(rows):
                counts = rows["severity"].value_counts()
                told = ", ".join(f"{counts[each]} {each}" for each in SEVERITIES if each in counts)
                lines.append(f"{problem}: {counted(rows['sentence'].nunique(), 'sentence')} ({told}).")
        if self.table.empty:
            return "\n".join([*lines, "Nothing was found."])
        grave = self.table[self.table["severity"] != "low"]
        if len(grave):
            counts = grave.groupby("concept")["sentence"].nunique()
            shares = (counts / pd.Series(dict(self.sentences))).dropna().sort_values(ascending=False, kind="stable")
            worst = ", ".join(f"{name} {counts[name]} of {self.sentences[name]}" for name in shares.index[:8])
            lines.append(f"Most with high or medium: {worst}.")
        return "\n".join(lines)

    def plot(self) -> Figure:
        """Draw the problems by severity, and the concepts that have most of them."""
        return plot_audit(self.table, self.sentences, title=self.name)

    def save(self, directory: epath.PathLike) -> None:
        """Write `audit.csv` and the figure, `audit.png`, `.svg` and `.pdf`, into a folder, which is made if need be."""
        folder = epath.Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "audit.csv", self.table)
        save_figure(self.plot(), folder / "audit")

    def __repr__(self) -> str:
        head = self.table.head(8)[["concept", "problem", "severity", "evidence"]]
        shown = head.to_string(index=False, max_colwidth=60, line_width=120) if len(head) else ""
        return f"{self.summary()}\n\n{shown}".rstrip()


def audit(concepts: ConceptDataset, model: Model | None = None, *, truncate: bool = False) -> Audit:
    """Look for sentences that may spoil a sentence set.

    Problems, of each concept's positives:

    - "lacks its word": the sentence doesn't hold the concept's word, in any form; not asked of a concept without one.
    - "wrong sense": the concept's word is another concept's too (column `word`), and the sentence reads like the other.
    - "reads like another domain", "reads like another concept".
    - "near-duplicate": 60% of its words or more, order aside, are those of another sentence, of this concept or of
      another in whose place this one's word would stand.
    - "template": three sentences of the concept or more begin or end with the same three words beside the concept's,
      or hold the same five in a row.
    - "another concept's word": which makes the sentence a bad negative of that one; `find_experts` leaves it out.
    - "label": the sentence names its concept's domain, or the gloss in its name ("animal" of "bat (animal)").

    Args:
      concepts: from `el.load_concepts`.
      model: whose responses are asked too what a sentence reads like. Without it words alone are.
      truncate: cut sentences that are longer than the model's context, rather than refuse them.

    Returns:
      An `Audit`: `.table`, `.summary()`, `.plot()`.

    Raises:
      ConceptDataError: this is no sentence set, or a sentence that the model can't read.

    >>> import expertlens_jax as el
    >>> bats = el.load_concepts("senses").subset(["bat (animal)", "pipistrelle", "bat (sport)", "racket"])
    >>> found = el.sentences.audit(bats)
    >>> found.accuracy.set_index(["told", "by"]).loc[("sense", "words"), "sentences"].item()
    40
    >>> set(found.table["problem"]) <= set(el.sentences.PROBLEMS)
    True
    """
    if not isinstance(concepts, ConceptDataset):
        raise ConceptDataError(
            f"audit was given {type(concepts).__name__} {concepts!r:.60}; wanted a sentence set, as "
            'el.load_concepts("facts") or el.load_concepts("mine.tsv") gives it'
        )
    texts = _texts(concepts)
    weights = {"words": _word_weights(texts)}
    if model is not None:
        weights["model"] = _model_weights(model, concepts, texts, truncate)
    mentions = concepts.mentions()
    rows = [*_lacking(concepts, texts, mentions), *_duplicates(texts), *_templates(texts)]
    rows += _leaks(concepts, texts, mentions)
    rows += _labels(concepts, texts)
    accuracy = []
    for by, vectors in weights.items():
        for told, groups in _groupings(concepts).items():
            found, right = _misread(concepts, texts, vectors, groups, told, by)
            rows += found
            if right is not None:
                accuracy.append({"told": told, "by": by} | right)
    # What reads like another domain reads like a concept of it too; what is in the wrong sense, like both.
    seen = {(row[0], row[1], row[2]) for row in rows}
    order = PROBLEMS[1:4]
    rows = [
        row
        for row in rows
        if row[2] not in order or not any((*row[:2], each) in seen for each in order[: order.index(row[2])])
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    place = {name: i for i, name in enumerate((*SEVERITIES, *PROBLEMS))}
    table = table.assign(a=table["severity"].map(place), b=table["problem"].map(place))
    table = table.sort_values(["a", "b"], kind="stable").drop(columns=["a", "b"]).reset_index(drop=True)
    counts = dict(zip(concepts.concepts, concepts.labels.sum(1).tolist(), strict=True))
    columns = ["told", "by", "accuracy", "chance", "sentences"]
    return Audit(table, concepts.name, counts, pd.DataFrame(accuracy, columns=columns))


@dataclasses.dataclass(frozen=True)
class _Text:
    """A positive of a concept: which, and its words with a slot for the concept's own."""

    row: int
    column: int
    concept: str
    sentence: str
    words: tuple[str, ...]


def _texts(concepts: ConceptDataset) -> list[_Text]:
    texts = []
    languages = concepts.languages or ("en",) * len(concepts.concepts)
    for row, (find, language) in enumerate(zip(concepts.mention_finders(), languages, strict=True)):
        for column in np.flatnonzero(concepts.labels[row]):
            sentence, words, done = concepts.sentences[column], [], 0
            for start, end in sorted(find(sentence)):
                if start >= done:
                    words += [*split_words(sentence[done:start], language), _SLOT]
                    done = end
            words += split_words(sentence[done:], language)
            texts.append(_Text(row, int(column), concepts.concepts[row], sentence, tuple(words)))
    return texts


def _severity(value: float, levels: Mapping[str, float]) -> str | None:
    """Return the worst level that a value reaches, or None."""
    return next((level for level in SEVERITIES if value >= levels[level]), None)


def _squares(rows: Any) -> np.ndarray:
    """Return the sum of squares of each row of a matrix, sparse or not."""
    squares = rows.multiply(rows) if sparse.issparse(rows) else np.square(rows)
    return np.asarray(squares.sum(1)).ravel()


def _row(text: _Text, problem: str, evidence: str, severity: str | None) -> tuple[Any, ...]:
    return text.concept, text.sentence, problem, evidence, severity


def _lacking(concepts: ConceptDataset, texts: Sequence[_Text], mentions: np.ndarray) -> Iterator[tuple[str, ...]]:
    """Sentences without the word. Where negatives were given with a concept, these say what it is."""
    own = concepts.own_negatives
    given = np.zeros(len(concepts.concepts), bool) if own is None else np.asarray(own.any(1))
    words = concepts.words or concepts.concepts
    for text in texts:
        if words[text.row] and not mentions[text.row, text.column] and not given[text.row]:
            yield _row(text, "lacks its word", f"no form of {words[text.row]!r}", "high")


def _incidence(texts: Sequence[_Text]) -> sparse.csr_matrix:
    """Return which words each text has: float32 [texts, vocabulary], 1 for each."""
    place: dict[str, int] = {}
    indices = [[place.setdefault(word, len(place)) for word in {*text.words} - {_SLOT}] for text in texts]
    starts = np.cumsum([0, *map(len, indices)])
    flat = np.array([each for of_text in indices for each in of_text], np.int64)
    return sparse.csr_matrix((np.ones(len(flat), np.float32), flat, starts), shape=(len(texts), max(len(place), 1)))


def _duplicates(texts: Sequence[_Text]) -> Iterator[tuple[str, ...]]:
    has = _incidence(texts)
    sizes = np.asarray(has.sum(1)).ravel()
    columns = np.array([text.column for text in texts])
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        shared = (has[block] @ has.T).toarray()
        alike = shared / np.maximum(sizes[block, None] + sizes - shared, 1)
        alike[(columns[block, None] == columns) | (sizes[block, None] < _WORDS) | (sizes < _WORDS)] = 0
        for i, best in enumerate(alike.argmax(1)):
            if severity := _severity(alike[i, best], _ALIKE):
                text, other = texts[start + i], texts[best]
                whose = "its own concept" if other.row == text.row else repr(other.concept)
                evidence = f"{alike[i, best]:.0%} of the words are those of {whose}: {other.sentence!r}"
                yield _row(text, "near-duplicate", evidence, severity)


def _templates(texts: Sequence[_Text]) -> Iterator[tuple[str, ...]]:
    """Of each text the phrase that most of its concept's sentences have, if three or more do."""
    of_concept = collections.defaultdict(list)
    for text in texts:
        of_concept[text.row].append(text)
    for own in of_concept.values():
        holders: dict[tuple[str, tuple[str, ...]], set[int]] = collections.defaultdict(set)
        for i, text in enumerate(own):
            for phrase in _phrases(text.words):
                holders[phrase].add(i)
        common = {phrase: held for phrase, held in holders.items() if len(held) >= _FEWEST}
        for i, text in enumerate(own):
            found = [(len(held), phrase) for phrase, held in common.items() if i in held]
            if found:
                count, (how, words) = max(found, key=lambda each: (each[0], each[1][0] != "hold", len(each[1][1])))
                evidence = f"{count} of {len(own)} sentences {how} {' '.join(words)!r}"
                yield _row(text, "template", evidence, _severity(count / len(own), _TEMPLATE))


def _phrases(words: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    others = [i for i, word in enumerate(words) if word != _SLOT]
    if len(others) > _EDGE:
        yield "begin with", words[: others[_EDGE - 1] + 1]
        yield "end with", words[others[-_EDGE] :]
    for start in range(len(words) - _PHRASE + 1):
        yield "hold", words[start : start + _PHRASE]


def _leaks(concepts: ConceptDataset, texts: Sequence[_Text], mentions: np.ndarray) -> Iterator[tuple[str, ...]]:
    """Sentences that hold the word of a concept of another word."""
    words = concepts.words or concepts.concepts
    counts = concepts.labels.astype(np.float32) @ mentions.T.astype(np.float32)  # [concepts, words of each]
    sizes = concepts.labels.sum(1)
    for text in texts:
        others = [
            other
            for other in np.flatnonzero(mentions[:, text.column])
            if words[other] != words[text.row] and not concepts.labels[other, text.column]
        ]
        if others:
            most = max(others, key=lambda other: counts[text.row, other])
            share = counts[text.row, most] / sizes[text.row]
            named = ", ".join(repr(words[other]) for other in others)
            severity = _severity(share if counts[text.row, most] >= _FEWEST else 0.0, _LEAKED)
            evidence = f"it holds {named}; {counts[text.row, most]:.0f} of {sizes[text.row]} hold {words[most]!r}"
            yield _row(text, "another concept's word", evidence, severity)


def _labels(concepts: ConceptDataset, texts: Sequence[_Text]) -> Iterator[tuple[str, ...]]:
    """Sentences that name what their concept is filed under."""
    words = concepts.words or concepts.concepts
    of_concept: list[tuple[str, ...]] = []
    for name, domain, word in zip(concepts.concepts, concepts.domains, words, strict=True):
        gloss = _GLOSS.search(name)
        names = {domain, gloss[1].strip() if gloss else ""} - {"", word, name}
        of_concept.append(tuple(sorted(each for each in names if split_words(each))))
    labels = sorted({label for each in of_concept for label in each})
    if not labels:
        return
    place = {label: i for i, label in enumerate(labels)}
    held = find_mentions(labels, concepts.sentences)
    known = {*map(str.lower, words)}
    for text in texts:
        own = [label for label in of_concept[text.row] if held[place[label], text.column]]
        # A label that is a concept too was told as that concept's word.
        if own := [label for label in own if label.lower() not in known]:
            share = held[place[own[0]]][concepts.labels[text.row]].mean()
            evidence = f"it holds {' and '.join(map(repr, own))}; {share:.0%} of the concept's sentences do"
            yield _row(text, "label", evidence, _severity(share, _LEAKED))


def _word_weights(texts: Sequence[_Text]) -> sparse.csr_matrix | None:
    """TF-IDF of each text without its concept's word, of length 1; None where there are no words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any({*text.words} - {_SLOT} for text in texts):
        return None
    vectorizer = TfidfVectorizer(sublinear_tf=True, analyzer=lambda text: [w for w in text.words if w != _SLOT])
    return sparse.csr_matrix(vectorizer.fit_transform(texts))


def _model_weights(model: Model, concepts: ConceptDataset, texts: Sequence[_Text], truncate: bool) -> np.ndarray:
    """Return the model's residual stream for each text, each channel centred and scaled, of length 1."""
    responses = record_responses(model, concepts.sentences, sites=("resid",), pooling="mean", truncate=truncate)
    values = responses.values.astype(np.float32)
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return values[[text.column for text in texts]]


def _groupings(concepts: ConceptDataset) -> dict[str, np.ndarray]:
    """By what they may be misread: of each concept the number of its group, of the sense, domain, or itself."""
    count = len(concepts.concepts)
    own = np.arange(count)
    known = dict.fromkeys(concepts.domains)
    domains = np.array([list(known).index(domain) for domain in concepts.domains])
    groupings = {}
    stated = [word for word in concepts.words if word]
    if len(set(stated)) < len(stated):
        groupings["sense"] = domains if all(concepts.domains) else own
    if 1 < len(known) < count and all(concepts.domains):
        groupings["domain"] = domains
    if count > 1:
        groupings["concept"] = own
    return groupings


def _misread(
    concepts: ConceptDataset,
    texts: Sequence[_Text],
    vectors: sparse.csr_matrix | np.ndarray | None,
    groups: np.ndarray,
    told: str,
    by: str,
) -> tuple[list[tuple[str, ...]], dict[str, float] | None]:
    """Texts that are more like another group than their own, far more than is usual; and how often none is."""
    if vectors is None:
        return [], None
    of_text = groups[[text.row for text in texts]]
    number = int(groups.max()) + 1
    member = sparse.csr_matrix((np.ones(len(texts)), (of_text, np.arange(len(texts)))), shape=(number, len(texts)))
    sums = member @ vectors
    product = vectors @ sums.T
    product = np.asarray(product.todense() if sparse.issparse(product) else product, np.float64)
    squares = _squares(sums)
    each = np.arange(len(texts))
    length = _squares(vectors)
    with_own = product[each, of_text]
    own = (with_own - length) / np.sqrt(np.maximum(squares[of_text] - 2 * with_own + length, 1e-12))
    others = product / np.sqrt(np.maximum(squares, 1e-12))
    candidates = _candidates(concepts, groups, told)[[text.row for text in texts]]
    others[~candidates] = -np.inf
    asked = candidates.any(1) & (np.bincount(of_text, minlength=number)[of_text] > 1) & (length > 0)
    if asked.sum() < 2:
        return [], None
    best = others.argmax(1)
    margin = others[each, best] - own
    centre = np.median(margin[asked])
    spread = 1.4826 * np.median(np.abs(margin[asked] - centre))
    right = {
        "accuracy": float(((margin[asked] < 0) + (margin[asked] == 0) / 2).mean()),
        "chance": float((1 / (1 + candidates[asked].sum(1))).mean()),
        "sentences": int(asked.sum()),
    }
    problem = "wrong sense" if told == "sense" else f"reads like another {told}"
    names = _group_names(concepts, groups, told)
    source = "its words" if by == "words" else "the model's responses"
    rows = []
    far_out = (margin - centre) / max(spread, 1e-9)
    for i in sorted(np.flatnonzero(asked & (margin > 0)), key=lambda i: -far_out[i]):
        far = far_out[i]
        if severity := _severity(far, _FAR_SENSE if told == "sense" else _FAR):
            text = texts[i]
            evidence = (
                f"by {source} {others[i, best[i]]:.2f} like {names[text.row][best[i]]}, {own[i]:.2f} like its own"
            )
            rows.append(_row(text, problem, evidence, severity))
    return rows, right


def _candidates(concepts: ConceptDataset, groups: np.ndarray, told: str) -> np.ndarray:
    """Return which groups a concept's sentences may be taken for, bool [concepts, groups]; never their own."""
    number = int(groups.max()) + 1
    if told == "sense":
        words = np.array(concepts.words)
        may = np.zeros((len(groups), number), bool)
        for row, word in enumerate(words):
            may[row, groups[(words == word) & (words != "")]] = True
    else:
        may = np.ones((len(groups), number), bool)
    may[np.arange(len(groups)), groups] = False
    if told == "concept" and all(concepts.domains):  # within a domain: another one is asked for by itself
        domains = np.array(concepts.domains)
        may &= domains[:, None] == domains
    return may


def _group_names(concepts: ConceptDataset, groups: np.ndarray, told: str) -> list[dict[int, str]]:
    """Of each concept, what to call the groups it may be taken for."""
    shared = {int(group): concepts.domains[row] for row, group in enumerate(groups)}
    if told == "concept" or not all(concepts.domains):
        shared = {int(group): concepts.concepts[row] for row, group in enumerate(groups)}
    quoted = {group: repr(name) for group, name in shared.items()}
    if told != "sense":
        return [quoted] * len(groups)
    words = np.array(concepts.words)
    return [
        quoted | {int(groups[other]): repr(concepts.concepts[other]) for other in np.flatnonzero(words == word)}
        for word in words
    ]
