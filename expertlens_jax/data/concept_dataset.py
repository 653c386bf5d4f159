"""Sentences, and which of them stand for which concept."""

import collections
import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from etils import epath

from expertlens_jax.cards import Card, counted, listed, shortened
from expertlens_jax.data.concept_files import to_rows, write_rows
from expertlens_jax.data.splitting import split_sentences
from expertlens_jax.data.words import find_mentions, mention_finder
from expertlens_jax.errors import ConceptDataError, UnfitConceptsError

_OF_EACH = ("words", "languages", "forms")


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptDataset:
    """Sentences, and which of them stand for which concept.

    Datasets are joined by `+`; `subset`, `split`, `save`, `to_frame` and `equals` do as they say.

    >>> import expertlens_jax as el
    >>> facts = el.load_concepts("facts").subset(["cat", "dog"])
    >>> mine = el.load_concepts({"thanks": ["Thank you!", "How kind."]}, words="", minimum_sentences=2)
    >>> facts + mine
    ConceptDataset('facts + concepts': 3 concepts in 2 domains, 82 sentences)

    Attributes:
      name: name of the set: a packaged name, or the file's name without its suffix.
      sentences: `[sentences]`, each once; the concepts' own, then those that serve as negatives only.
      concepts: `[concepts]`, each once, in order of appearance.
      domains: `[concepts]`, the category of each; "" where none is known.
      labels: bool `[concepts, sentences]`, True where the sentence is a positive of the concept.
      negative_pool: bool `[sentences]`, True where the sentence may be a negative (of concepts it isn't a
        positive of): all of them, unless sentences were given that are the only negatives.
      own_negatives: bool `[concepts, sentences]`, True where the sentence is one of the concept's own negatives: a
        concept that has any is told apart from these, all of them, and from nothing else. None where no concept has.
      words: `[concepts]`, the word or words by which sentences mention each, "" for a concept without a word
        (toxicity, a topic, a part of speech, a language), which nothing mentions; () where these are the concepts'
        names.
      languages: `[concepts]`, of the words, as ISO 639 codes; () where all are English.
      forms: `[concepts]`, other forms that stand for each; () where there are none.

    Raises:
      ConceptDataError: the fields don't fit together.
    """

    name: str
    sentences: tuple[str, ...]
    concepts: tuple[str, ...]
    domains: tuple[str, ...]
    labels: np.ndarray
    negative_pool: np.ndarray
    own_negatives: np.ndarray | None = None
    words: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    forms: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        num_concepts, num_sentences = len(self.concepts), len(self.sentences)
        for field in ("domains", *_OF_EACH):
            given = len(getattr(self, field))
            if given != num_concepts and (given or field == "domains"):
                raise ConceptDataError(
                    f"{counted(num_concepts, 'concept needs', 'concepts need')} as many {field}, not {given}"
                )
        wanted = {"labels": (num_concepts, num_sentences), "negative_pool": (num_sentences,)}
        if self.own_negatives is not None:
            wanted["own_negatives"] = (num_concepts, num_sentences)
        for field, shape in wanted.items():
            array = getattr(self, field)
            if array.dtype != bool or array.shape != shape:
                raise ConceptDataError(
                    f"{field} must be bool {list(shape)} for {counted(num_concepts, 'concept')} and "
                    f"{counted(num_sentences, 'sentence')}, not {array.dtype} {list(array.shape)}"
                )
        for field in ("concepts", "sentences"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                value, count = collections.Counter(values).most_common(1)[0]
                raise ConceptDataError(f"{field} must be there once each, but {value!r} is {count} times")
        if self.own_negatives is not None and (both := self.labels & self.own_negatives).any():
            row, column = np.argwhere(both)[0]
            raise ConceptDataError(
                f"a sentence is a positive and a negative of concept {self.concepts[row]!r}: {self.sentences[column]!r}"
            )
        for concept in self.wordless:
            if self.forms and (forms := self.forms[self.concepts.index(concept)]):
                raise ConceptDataError(
                    f"concept {concept!r} has no word, and so no other forms of it; it was given {', '.join(forms)}. "
                    "Give it a word, or take the forms away"
                )

    def __repr__(self) -> str:
        return (
            f"ConceptDataset({self.name!r}: {counted(len(self.concepts), 'concept')} in "
            f"{counted(len(set(self.domains)), 'domain')}, {counted(len(self.sentences), 'sentence')})"
        )

    def _repr_html_(self) -> str:
        shown = range(min(len(self.concepts), 8))
        first = [np.flatnonzero(self.labels[row])[:1] for row in shown]
        table = pd.DataFrame(
            {
                "concept": self.concepts[:8],
                "domain": self.domains[:8],
                "positives": self.labels[:8].sum(axis=1),
                "a sentence of its own": [shortened(self.sentences[each[0]]) if len(each) else "" for each in first],
            }
        )
        more = f"... and {len(self.concepts) - 8} more" if len(self.concepts) > 8 else ""
        return Card(repr(self), {"domains": listed(filter(None, dict.fromkeys(self.domains)), 16)}, table, more).html()

    @property
    def wordless(self) -> tuple[str, ...]:
        """The concepts that have no word: no sentence mentions them."""
        return tuple(concept for concept, word in zip(self.concepts, self.words, strict=False) if not word)

    def check_words(self, what: str, concepts: Sequence[str] | None = None) -> None:
        """Check that each concept has a word.

        Args:
          what: needs it, as "masked sentences".
          concepts: their names; by default all.

        Raises:
          UnfitConceptsError: some have none; the message names them.
        """
        wordless = [concept for concept in self.wordless if concepts is None or concept in concepts]
        if wordless:
            raise UnfitConceptsError(
                f"{what} can't be made of concepts without a word, which {self.name!r} has: {listed(wordless, 5)}. "
                "Take others, or do without."
            )

    def mentions(self) -> np.ndarray:
        """Return bool `[concepts, sentences]`: the sentence holds the concept's word in one of its forms.

        A concept's own positives are among them where they hold it; of a concept without a word there are none.
        `data.words` has the rule.
        """
        return self._found_mentions.copy()

    @functools.cached_property
    def _found_mentions(self) -> np.ndarray:
        # Found once: contrasts, digests and controls of every table ask for them, and nothing that decides can change.
        return find_mentions(
            self.words or self.concepts, self.sentences, language=self.languages or "en", forms=self.forms
        )

    def mention_finders(self) -> list[Callable[[str], list[tuple[int, int]]]]:
        """Return, of each concept, a function that finds its word in a text; see `data.words.mention_finder`."""
        count = len(self.concepts)
        words, languages = self.words or self.concepts, self.languages or ("en",) * count
        return [
            mention_finder(word, language=language, forms=forms)
            for word, language, forms in zip(words, languages, self.forms or ((),) * count, strict=True)
        ]

    @functools.cached_property
    def own_places(self) -> Mapping[tuple[int, int], tuple[tuple[int, int], ...]]:
        """Where a concept's word stands in each of its own sentences, `(start, end)`, by the row and the column.

        Found once: both controls at the word's own tokens ask for it, and so do the checks before them.
        """
        finders = self.mention_finders()
        return {
            (row, column): tuple(finders[row](self.sentences[column]))
            for row, column in np.argwhere(self.labels).tolist()
        }

    def subset(self, concepts: Sequence[str]) -> "ConceptDataset":
        """Return the set of these concepts, in this order, and their sentences, in the order they have here.

        The other concepts' sentences go, also as negatives; sentences that are no concept's positives stay.

        Raises:
          ConceptDataError: a concept isn't there, is asked for twice, or none is asked for.
        """
        concepts = (concepts,) if isinstance(concepts, str) else tuple(concepts)
        if not concepts:
            raise ConceptDataError("a subset needs at least one concept")
        row_of = {concept: row for row, concept in enumerate(self.concepts)}
        for concept in concepts:
            if concept not in row_of:
                close = difflib.get_close_matches(concept, self.concepts) or list(self.concepts[:5])
                raise ConceptDataError(
                    f"no concept {concept!r} among the {len(self.concepts)} of {self.name!r}; "
                    f"there is {', '.join(close)}"
                )
        rows = [row_of[concept] for concept in concepts]
        own = self.own_negatives
        of_any = self.labels.any(0) if own is None else (self.labels | own).any(0)
        keep = np.asarray(self.labels[rows].any(0) | ~of_any)
        if own is not None:
            keep |= own[rows].any(0)
        of_these = dataclasses.replace(
            self,
            concepts=concepts,
            domains=tuple(self.domains[row] for row in rows),
            labels=self.labels[rows],
            own_negatives=None if own is None or not own[rows].any() else own[rows],
            **{field: tuple(getattr(self, field)[row] for row in rows) for field in _OF_EACH if getattr(self, field)},
        )
        return of_these.keep_sentences(keep)

    def keep_sentences(self, keep: np.ndarray, name: str | None = None) -> "ConceptDataset":
        """Return the set with some of its sentences.

        Args:
          keep: bool `[sentences]`.
          name: of what is returned; by default this one's.
        """
        kept = dataclasses.replace(
            self,
            name=self.name if name is None else name,
            sentences=tuple(sentence for sentence, there in zip(self.sentences, keep, strict=True) if there),
            labels=self.labels[:, keep],
            negative_pool=self.negative_pool[keep],
            own_negatives=None if self.own_negatives is None else self.own_negatives[:, keep],
        )
        if (found := vars(self).get("_found_mentions")) is not None:  # whatever sentences stand beside one
            vars(kept)["_found_mentions"] = found[:, keep]
        return kept

    def split(self, parts: int = 2, *, seed: int = 0, minimum_sentences: int = 5) -> tuple["ConceptDataset", ...]:
        """Split the sentences at random into parts of the same concepts, such as one to find experts in, one to test.

        Each concept's positives and own negatives are spread over the parts evenly, as are sentences that are nobody's
        own.

        Args:
          parts: how many.
          seed: of the draw; the same one gives the same parts.
          minimum_sentences: the fewest positives of a concept in a part.

        Returns:
          The parts, called `NAME_part1` and so on, each with its sentences in the order they have here.

        Raises:
          ConceptDataError: fewer than two parts are asked for, or a concept has too few sentences (all are named).
        """
        part_of = split_sentences(self, parts, seed=seed, minimum_sentences=minimum_sentences)
        return tuple(self.keep_sentences(part_of == part, f"{self.name}_part{part + 1}") for part in range(parts))

    def __add__(self, other: "ConceptDataset") -> "ConceptDataset":
        """Return both sets' concepts and sentences, in one set; what both have is there once.

        A concept of both has the sentences of both. What may be a negative in either set, may be one in the whole: so
        where neither has sentences that are the only negatives, all of them may.

        Raises:
          ConceptDataError: a concept of both has another domain, word, language or forms in one than in the other, or
            a sentence that is its positive in one and its negative in the other.
        """
        if not isinstance(other, ConceptDataset):
            return NotImplemented
        concepts = tuple(dict.fromkeys((*self.concepts, *other.concepts)))
        sentences = tuple(dict.fromkeys((*self.sentences, *other.sentences)))
        row_of = {concept: row for row, concept in enumerate(concepts)}
        column_of = {sentence: column for column, sentence in enumerate(sentences)}
        labels, own = np.zeros((2, len(concepts), len(sentences)), bool)
        pool = np.zeros(len(sentences), bool)
        facts: dict[str, tuple] = {}
        for each in (self, other):
            rows = np.array([row_of[concept] for concept in each.concepts], int)
            columns = np.array([column_of[sentence] for sentence in each.sentences], int)
            labels[np.ix_(rows, columns)] |= each.labels
            if each.own_negatives is not None:
                own[np.ix_(rows, columns)] |= each.own_negatives
            pool[columns] |= each.negative_pool
            for concept, said in each._said_of_each().items():
                if facts.setdefault(concept, said) != said:
                    raise ConceptDataError(
                        f"concept {concept!r} is of {_in_words(facts[concept])} in {self.name!r} and of "
                        f"{_in_words(said)} in {other.name!r}; give one of them another name, or the same"
                    )
        if (both := labels & own).any():
            row, column = np.argwhere(both)[0]
            raise ConceptDataError(
                f"a sentence is a positive of {concepts[row]!r} in one of {self.name!r} and {other.name!r}, and a "
                f"negative in the other: {sentences[column]!r}"
            )
        domains, words, languages, forms = (tuple(each) for each in zip(*facts.values(), strict=True))
        return ConceptDataset(
            self.name if self.name == other.name else f"{self.name} + {other.name}",
            sentences,
            concepts,
            domains,
            labels,
            pool,
            own_negatives=own if own.any() else None,
            words=words if words != concepts else (),
            languages=languages if {*languages} != {"en"} else (),
            forms=forms if any(forms) else (),
        )

    def _said_of_each(self) -> dict[str, tuple[str, str, str, tuple[str, ...]]]:
        """By concept, its domain, word, language and forms."""
        count = len(self.concepts)
        fields = (self.domains, self.words or self.concepts, self.languages or ("en",) * count)
        return dict(zip(self.concepts, zip(*fields, self.forms or ((),) * count, strict=True), strict=True))

    def equals(self, other: "ConceptDataset") -> bool:
        """Return whether another set says the same of the same sentences, in the same order.

        Names of sets don't matter.
        """
        return (
            (self.sentences, self.concepts) == (other.sentences, other.concepts)
            and self._said_of_each() == other._said_of_each()
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.negative_pool, other.negative_pool)
            and np.array_equal(_matrix(self.own_negatives, self.labels), _matrix(other.own_negatives, other.labels))
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each concept of each sentence, as `el.load_concepts` reads it.

        Columns: concept, sentence, domain, where there is more to say label (1 for a positive, 0 for a negative; the
        concept `*` stands for all that have no negatives of their own), word (`-` for none), forms and language; and
        where rows alone don't tell the sentences' order, sentence_number.

        Raises:
          ConceptDataError: a concept has no sentence, or what no table can hold: a name `*`, a sentence with spaces
            around it.
        """
        return to_rows(self)

    def save(self, path: epath.PathLike) -> epath.Path:
        """Write the set to a file that `el.load_concepts` reads back as the same set.

        Args:
          path: `.csv`, `.tsv`, `.jsonl` or `.parquet` (which needs pyarrow); a file that is there is written over.

        Raises:
          ConceptDataError: see `to_frame`; another suffix; or a sentence with a tab or line end, for `.tsv`.
        """
        return write_rows(to_rows(self), path)


def _matrix(negatives: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    return np.zeros_like(labels) if negatives is None else negatives


def _in_words(said: tuple[str, str, str, tuple[str, ...]]) -> str:
    domain, word, language, forms = said
    return f"domain {domain!r}, word {word!r}, language {language!r}, forms {list(forms)}"
