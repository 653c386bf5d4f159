"""Human similarity ratings: pairs of words, and how alike people find them."""

import collections
import dataclasses
import importlib.util
import io
import math
import os
import pathlib
import re
import sys
import warnings

import numpy as np
from etils import epath

from expertlens_jax.cache_directory import cache_root
from expertlens_jax.cards import counted
from expertlens_jax.data.downloads import DownloadError, download, is_intact
from expertlens_jax.data.known_ratings import COLLECTION, KNOWN, PARTS, KnownRatings
from expertlens_jax.data.text import TextFile, find_file, read_text, tell_shadowed_file
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import ExpertLensWarning, RatingsError

_WORD_NAME = re.compile(r"(?:word|w|term|concept)[ _]?[12ab]")
_RATING_NAMES = frozenset(
    "rating ratings score scores similarity relatedness sim mean human gold average simlex999 simlex-999 "
    "human_mean mean_rating".split()
) | {"human (mean)", "human mean", "mean rating", "average score", "similarity score"}
_MINIMUM_PAIRS = 3  # of fewer, no rank correlation can be told from chance


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """A human similarity dataset.

    Attributes:
      name: its name.
      pairs: `[pairs]`, two different words each, lower-cased; each unordered pair once, as first listed.
      scores: float64 `[pairs]`, the mean human rating, on the dataset's own scale; larger is more alike.
      ceiling: Spearman's correlation between people, as published; None where it isn't, or for a user's file.
      ceiling_source: between whom, and who says so; "" without a ceiling.

    >>> import expertlens_jax as el, numpy as np
    >>> ratings = el.Ratings("mine", (("cat", "dog"), ("cat", "car")), scores=np.array([9.0, 1.5]))
    >>> ratings
    Ratings('mine': 2 pairs)
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    scores: np.ndarray
    ceiling: float | None = None
    ceiling_source: str = ""

    def __repr__(self) -> str:
        return f"Ratings({self.name!r}: {len(self.pairs)} pairs)"


def load_ratings(name_or_path: epath.PathLike) -> Ratings:
    """Load human similarity ratings.

    Known names, from `known_ratings.py`, which tells whom to cite:

    - "wordsim353" ships with the package.
    - "simlex999", "men", "wordsim353_similarity", "wordsim353_relatedness", "rg65", "mc30", "mturk771", "simverb3500"
      (3,499 pairs in this copy) and "rareword" are fetched once from a collection on the web (EXPERTLENS_RATINGS_URL
      names another copy of it), checked against their SHA-256, and kept in `ratings` of the cache directory
      (EXPERTLENS_CACHE, or ~/.cache/expertlens_jax). Citation and licence are printed when one is fetched.
      "simlex999" isn't fetched where gensim is installed (which isn't imported), or where gensim's `simlex999.txt`
      lies in that directory: it holds the same pairs and ratings.
    - "simlex999_nouns", "simlex999_verbs" and "simlex999_adjectives" are the pairs of SimLex-999 by part of speech.

    Anything else is a file, UTF-8, with two words and a number a line, separated by tabs, commas, semicolons or spaces
    (words of several parts need one of the first three; between semicolons a number may have a decimal comma). Further
    columns (SimLex-999's own file has ten) are told and left out; a header then says which is the rating, unless there
    is but one number a line. Blank lines, lines that start with `#` and one header line
    are skipped. A part-of-speech suffix (MEN's `sun-n`) is taken off where every word in the file has one.

    A pair listed more than once, in either order, gets the mean of its ratings. WordSim-353 lists money/cash
    and bank/money twice, and SimLex-999 strange/sly; for known names no warning is given. A word paired
    with itself (WordSim-353's tiger/tiger) is left out: it says nothing about how two concepts compare. So
    WordSim-353 has 350 pairs here, and SimLex-999 998.

    Args:
      name_or_path: a known name, or a file.

    Warns:
      ExpertLensWarning: pairs of a user's file are listed more than once (one warning counts them), or it has columns
        that aren't read.

    Raises:
      RatingsError: the name or file isn't known, a dataset can't be fetched, a line doesn't
        hold two words and a finite number, or fewer than 3 pairs are left. The message names file and line, or
        says where to put the file.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> el.load_ratings("wordsim353")
    Ratings('wordsim353': 350 pairs)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "mine.txt"
    >>> _ = path.write_text("cat dog 9\\ncat car 1.5\\ndog car 2\\n")
    >>> el.load_ratings(path).scores.tolist()
    [9.0, 1.5, 2.0]
    """
    whole, rows = PARTS.get(name_or_path, (name_or_path, None)) if isinstance(name_or_path, str) else (None, None)
    known = KNOWN.get(whole)
    if known is not None:
        tell_shadowed_file(os.fspath(name_or_path), "a data set of ratings known by name")
    if known is None or whole is None:
        file = _find(name_or_path)
    elif known.packaged:
        file = epath.resource_path("expertlens_jax") / "data" / "human" / known.file
    else:
        file = _find_copy(known) or _fetch(whole, known)
    listed = read_pairs(file)[rows or slice(None)]
    if all(re.fullmatch(".+-[nvj]", word) for *words, _ in listed for word in words):
        listed = [(first[:-2], second[:-2], score) for first, second, score in listed]

    scores_of = collections.defaultdict(list)
    pair_of: dict[frozenset[str], tuple[str, str]] = {}
    for first, second, score in listed:
        key = frozenset((normal_name(first), normal_name(second)))
        if len(key) == 2:
            pair = pair_of.setdefault(key, (first, second))
            scores_of[pair].append(score)
    if len(scores_of) < _MINIMUM_PAIRS:
        raise RatingsError(
            f"{file}: {counted(len(scores_of), 'pair')} of different words, but at least {_MINIMUM_PAIRS} are needed "
            "to compare anything with them"
        )
    repeated = [pair for pair, scores in scores_of.items() if len(scores) > 1]
    if repeated and known is None:
        warnings.warn(
            f"{file}: pairs listed more than once, whose ratings were averaged: {len(repeated)} of "
            f"{len(scores_of)}, the first {'/'.join(repeated[0])}",
            ExpertLensWarning,
            stacklevel=2,
        )
    return Ratings(
        name=str(name_or_path) if known else file.name.rpartition(".")[0] or file.name,
        pairs=tuple(scores_of),
        scores=np.array([math.fsum(scores) / len(scores) for scores in scores_of.values()]),
        ceiling=known.ceiling if known and not rows else None,
        ceiling_source=known.ceiling_source if known and not rows else "",
    )


def _fetch(name: str, known: KnownRatings) -> epath.Path:
    """Return the dataset's file in the cache, which it is fetched into if it isn't there, or is damaged."""
    path = cache_root() / "ratings" / known.file
    if not is_intact(path, known.sha256):
        url = f"{os.environ.get('EXPERTLENS_RATINGS_URL', COLLECTION).rstrip('/')}/{known.file}"
        try:
            download(url, path, known.sha256)
        except DownloadError as error:
            raise RatingsError(
                f"the ratings {name!r} aren't here, and couldn't be fetched: {error}. Try again when connected; or put "
                f"that file, with SHA-256 {known.sha256}, at {path}; or give load_ratings the path of any file with "
                "two words and a number a line"
            ) from error
        print(
            f"Fetched the ratings {name!r} into {path}.\n  Cite: {known.citation}.\n  Licence: {known.licence}.",
            file=sys.stderr,
        )
    return epath.Path(path)


def _find_copy(known: KnownRatings) -> epath.Path | None:
    """Return gensim's copy of the dataset, in the cache or in an installed gensim; None where there is none intact."""
    if not known.gensim_file:
        return None
    # find_spec looks without importing: gensim takes seconds to import.
    spec = importlib.util.find_spec("gensim")
    folders = (spec.submodule_search_locations if spec else None) or ()
    places = [cache_root() / "ratings", *(pathlib.Path(folder) / "test" / "test_data" for folder in folders)]
    for place in places:
        if is_intact(place / known.gensim_file, known.gensim_sha256):
            return epath.Path(place / known.gensim_file)
    return None


def _find(path: epath.PathLike) -> epath.Path:
    file = find_file(path)
    if file is None:
        raise RatingsError(
            f"no ratings {str(path)!r}: this is no file, and none of the known names: {', '.join([*KNOWN, *PARTS])}"
        )
    return file


def read_pairs(file: TextFile) -> list[tuple[str, str, float]]:
    """Return what each line of the file holds: two words, lower-cased, and their rating."""
    lines = [
        (number, line.strip())
        for number, line in enumerate(io.StringIO(read_text(file, RatingsError), newline=None), 1)
        if line.strip() and not line.strip().startswith("#")
    ]
    width = _count_fields(lines[0][1]) if lines else 3
    rows = [(number, line, _split(line, width)) for number, line in lines]
    header = rows.pop(0)[2] if rows and _is_header(rows[0][2]) else None
    places = _find_columns(file, header, rows[0], width) if rows and width > 3 else (0, 1, 2)

    pairs: list[tuple[str, str, float]] = []
    for number, line, fields in rows:
        if len(fields) != width or not all(fields[place] for place in places):
            kept = f"{counted(width, 'column')}, as the first line has," if width > 3 else "two words and a number,"
            raise RatingsError(
                f"{file}:{number}: wanted {kept} separated by tabs, commas, semicolons or spaces, not {line!r}"
            )
        first, second, rating = (fields[place] for place in places)
        try:
            # Between semicolons stands the decimal comma of the spreadsheets that write them.
            score = float(rating.replace(",", ".") if ";" in line else rating)
        except ValueError:
            raise RatingsError(f"{file}:{number}: the rating {rating!r} is not a number") from None
        if not math.isfinite(score):
            raise RatingsError(f"{file}:{number}: the rating {rating!r} is not finite; leave the pair out")
        pairs.append((first.lower(), second.lower(), score))
    return pairs


# Tabs, semicolons and commas first, since between them a word may have spaces ("ice cream").
_SEPARATORS = (r"\s*;\s*", r"\s*[\t,]\s*", r"[\s,]+")


def _count_fields(line: str) -> int:
    """Return how many columns the file has by its first line: three if it can be read so."""
    counts = [len(re.split(separator, line)) for separator in _SEPARATORS]
    return 3 if 3 in counts else next((count for count in counts if count > 1), 1) if max(counts) > 3 else 3


def _split(line: str, width: int) -> list[str]:
    for separator in _SEPARATORS:
        fields = [field.strip('"') for field in re.split(separator, line)]
        if len(fields) == width:
            break
    return fields


def _is_header(fields: list[str]) -> bool:
    """Return whether the last field is a name, such as "Human (mean)", and not a number gone wrong.

    Of more than three fields none may be a number: the last may be a part of speech.
    """
    if len(fields) > 3:
        return not any(map(_is_number, fields))
    return not _is_number(fields[-1]) and fields[-1][:1].isalpha()


def _is_number(field: str) -> bool:
    try:
        float(field.replace(",", "."))  # "nan" is a rating, though a bad one
    except ValueError:
        return False
    return True


def _find_columns(
    file: TextFile, header: list[str] | None, first_row: tuple[int, str, list[str]], width: int
) -> tuple[int, int, int]:
    """Find the two words and the rating among more than three columns, and tell what isn't read.

    The words are in the first two columns, or in those that the header calls so. The rating is in the column whose
    name says it, or the only one that holds a number.

    Raises:
      RatingsError: it can't be told.
    """
    number, line, fields = first_row
    names = [" ".join(name.split()).lower() for name in header or [f"column {place + 1}" for place in range(width)]]
    if len(names) != width or len(fields) != width:
        raise RatingsError(f"{file}:{number}: wanted {counted(width, 'column')}, as the first line has, not {line!r}")
    words = [place for place, name in enumerate(names) if _WORD_NAME.fullmatch(name)]
    words = words if len(words) == 2 else [0, 1]
    rest = [place for place in range(width) if place not in words]
    by_name = [place for place in rest if names[place] in _RATING_NAMES]
    numbers = by_name if len(by_name) == 1 else [place for place in rest if _is_number(fields[place])]
    if len(numbers) != 1:
        raise RatingsError(
            f"{file}:{number}: {counted(width, 'column')}, and {len(numbers)} of them may be the rating: "
            f"{', '.join(names[place] for place in numbers) or repr(line)}; keep two words and a number a line, or a "
            "header that calls the rating 'rating'"
        )
    first, second = words
    places = (first, second, numbers[0])
    shown = header or names
    warnings.warn(
        f"{file}: columns that aren't read: {', '.join(repr(shown[i]) for i in rest if i not in numbers)}; words "
        f"are in {shown[words[0]]!r} and {shown[words[1]]!r}, the rating in {shown[numbers[0]]!r}. Take the others "
        "out to silence this.",
        ExpertLensWarning,
        stacklevel=4,
    )
    return places
