"""Human similarity ratings: pairs of words, and how alike people find them."""

import collections
import dataclasses
import importlib.util
import io
import math
import os
import re
import sys
import warnings

import numpy as np
from etils import epath

from expertlens_jax.cache_directory import cache_root
from expertlens_jax.data.downloads import DownloadError, download, is_intact
from expertlens_jax.data.known_ratings import COLLECTION, KNOWN, KnownRatings
from expertlens_jax.data.text import TextFile, find_file, read_text
from expertlens_jax.errors import ExpertLensWarning, RatingsError

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
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    scores: np.ndarray
    ceiling: float | None = None
    ceiling_source: str = ""

    def __repr__(self) -> str:
        return f"Ratings({self.name!r}: {len(self.pairs)} pairs)"


def load_ratings(name_or_path: epath.PathLike) -> Ratings:
    """Loads human similarity ratings.

    Known names, from `known_ratings.py`, which tells whom to cite:

    - "wordsim353" and "simlex999" are read from an installed gensim (which isn't imported).
    - "men", "wordsim353_similarity", "wordsim353_relatedness", "rg65", "mc30", "mturk771", "simverb3500" (3,499
      pairs in this copy) and "rareword" are fetched once from a collection on the web (EXPERTLENS_RATINGS_URL
      names another copy of it), checked against their SHA-256, and kept in `ratings` of the cache directory
      (EXPERTLENS_CACHE, or ~/.cache/expertlens_jax). Citation and licence are printed when one is fetched.

    Anything else is a file, UTF-8, with two words and a number a line, separated by tabs, commas or spaces
    (words of several parts need tabs or commas). Blank lines, lines that start with `#` and one header line
    are skipped. A part-of-speech suffix (MEN's `sun-n`) is taken off where every word in the file has one.

    A pair listed more than once, in either order, gets the mean of its ratings. WordSim-353 lists money/cash
    and bank/money twice, and SimLex-999 strange/sly; for known names no warning is given. A word paired
    with itself (WordSim-353's tiger/tiger) is left out: it says nothing about how two concepts compare. So
    WordSim-353 has 350 pairs here, and SimLex-999 998.

    Args:
      name_or_path: a known name, or a file.

    Warns:
      ExpertLensWarning: pairs of a user's file are listed more than once; one warning counts them.

    Raises:
      RatingsError: the name or file isn't known, gensim isn't there, a dataset can't be fetched, a line doesn't
        hold two words and a finite number, or fewer than 3 pairs are left. The message names file and line, or
        says where to put the file.
    """
    known = KNOWN.get(name_or_path) if isinstance(name_or_path, str) else None
    if known is None:
        file = _find(name_or_path)
    elif known.sha256:
        file = _fetch(name_or_path, known)
    else:
        file = _find_in_gensim(name_or_path, known.file)
    listed = _read_pairs(file)
    if all(re.fullmatch(".+-[nvj]", word) for *words, _ in listed for word in words):
        listed = [(first[:-2], second[:-2], score) for first, second, score in listed]

    scores_of = collections.defaultdict(list)
    pair_of: dict[frozenset[str], tuple[str, str]] = {}
    for first, second, score in listed:
        if first != second:
            pair = pair_of.setdefault(frozenset((first, second)), (first, second))
            scores_of[pair].append(score)
    if len(scores_of) < _MINIMUM_PAIRS:
        raise RatingsError(
            f"{file}: {len(scores_of)} pairs of different words, but at least {_MINIMUM_PAIRS} are needed to "
            "compare anything with them"
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
        ceiling=known.ceiling if known else None,
        ceiling_source=known.ceiling_source if known else "",
    )


def _fetch(name: str, known: KnownRatings) -> epath.Path:
    """Returns the dataset's file in the cache, which it is fetched into if it isn't there, or is damaged."""
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


def _find_in_gensim(name: str, file_name: str) -> epath.Path:
    # find_spec looks without importing: gensim takes seconds to import.
    spec = importlib.util.find_spec("gensim")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        if file := find_file(epath.Path(folder) / "test" / "test_data" / file_name):
            return file
    raise RatingsError(
        f"{name!r} is read from gensim's test data, which {'lacks it' if spec else 'is not installed'}: "
        "pip install 'expertlens-jax[demo]', or give the path of a file with two words and a number a line"
    )


def _find(path: epath.PathLike) -> epath.Path:
    file = find_file(path)
    if file is None:
        raise RatingsError(f"no ratings {str(path)!r}: neither a file, nor one of the names known: {', '.join(KNOWN)}")
    return file


def _read_pairs(file: TextFile) -> list[tuple[str, str, float]]:
    """Returns what each line of the file holds: two words, lower-cased, and their rating."""
    pairs: list[tuple[str, str, float]] = []
    may_be_header = True
    for number, line in enumerate(io.StringIO(read_text(file, RatingsError), newline=None), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        fields = _split(line)
        is_header = may_be_header and _is_header(fields)
        may_be_header = False
        if is_header:
            continue
        if len(fields) != 3 or not all(fields):
            raise RatingsError(
                f"{file}:{number}: wanted two words and a number, separated by tabs, commas or spaces, not {line!r}"
            )
        first, second, rating = fields
        try:
            score = float(rating)
        except ValueError:
            raise RatingsError(f"{file}:{number}: the rating {rating!r} is not a number") from None
        if not math.isfinite(score):
            raise RatingsError(f"{file}:{number}: the rating {rating!r} is not finite; leave the pair out")
        pairs.append((first.lower(), second.lower(), score))
    return pairs


def _split(line: str) -> list[str]:
    # Tabs and commas first, since between them a word may have spaces ("ice cream").
    for separator in (r"\s*[\t,]\s*", r"[\s,]+"):
        fields = [field.strip('"') for field in re.split(separator, line)]
        if len(fields) == 3:
            break
    return fields


def _is_header(fields: list[str]) -> bool:
    """Returns whether the last field is a name, such as "Human (mean)", and not a number gone wrong."""
    try:
        float(fields[-1])  # "nan" is a rating, though a bad one
    except ValueError:
        return fields[-1][:1].isalpha()
    return False
