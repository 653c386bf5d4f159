"""Human similarity ratings: pairs of words, and how alike people find them."""

import collections
import dataclasses
import importlib.util
import io
import math
import re
import warnings

import numpy as np
from etils import epath

from expertlens_jax.data.text import TextFile, find_file, read_text
from expertlens_jax.errors import ExpertLensWarning, RatingsError

# What gensim's wheel carries, as tests of its own.
_IN_GENSIM = {"wordsim353": "wordsim353.tsv", "simlex999": "simlex999.txt"}

_MINIMUM_PAIRS = 3  # of fewer, no rank correlation can be told from chance


@dataclasses.dataclass(frozen=True, eq=False)
class Ratings:
    """A human similarity dataset.

    Attributes:
      name: its name.
      pairs: `[pairs]`, two different words each, lower-cased; each unordered pair once, as first listed.
      scores: float64 `[pairs]`, the mean human rating, on the dataset's own scale; larger is more alike.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    scores: np.ndarray

    def __repr__(self) -> str:
        return f"Ratings({self.name!r}: {len(self.pairs)} pairs)"


def load_ratings(name_or_path: epath.PathLike) -> Ratings:
    """Loads human similarity ratings.

    Two names are known, whose files are read from an installed gensim (which isn't imported): "wordsim353"
    (Finkelstein et al., 2002, "Placing search in context") and "simlex999" (Hill et al., 2015, "SimLex-999").
    Anything else is a file, UTF-8, with two words and a number a line, separated by tabs, commas or spaces
    (words of several parts need tabs or commas). Blank lines, lines that start with `#` and one header line
    are skipped. A part-of-speech suffix (MEN's `sun-n`) is taken off where every word in the file has one.

    A pair listed more than once, in either order, gets the mean of its ratings. WordSim-353 lists money/cash
    and bank/money twice, and SimLex-999 strange/sly; for these two names no warning is given. A word paired
    with itself (WordSim-353's tiger/tiger) is left out: it says nothing about how two concepts compare. So
    WordSim-353 has 350 pairs here, and SimLex-999 998.

    Args:
      name_or_path: "wordsim353", "simlex999", or a file.

    Warns:
      ExpertLensWarning: pairs of a user's file are listed more than once; one warning counts them.

    Raises:
      RatingsError: the name or file isn't known, gensim isn't there, a line doesn't hold two words and a
        finite number, or fewer than 3 pairs are left. The message names file and line.
    """
    packaged = name_or_path in _IN_GENSIM
    file = _find_in_gensim(str(name_or_path)) if packaged else _find(name_or_path)
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
    if repeated and not packaged:
        warnings.warn(
            f"{file}: pairs listed more than once, whose ratings were averaged: {len(repeated)} of "
            f"{len(scores_of)}, the first {'/'.join(repeated[0])}",
            ExpertLensWarning,
            stacklevel=2,
        )
    return Ratings(
        name=str(name_or_path) if packaged else file.name.rpartition(".")[0] or file.name,
        pairs=tuple(scores_of),
        scores=np.array([math.fsum(scores) / len(scores) for scores in scores_of.values()]),
    )


def _find_in_gensim(name: str) -> epath.Path:
    # find_spec looks without importing: gensim takes seconds to import.
    spec = importlib.util.find_spec("gensim")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        if file := find_file(epath.Path(folder) / "test" / "test_data" / _IN_GENSIM[name]):
            return file
    raise RatingsError(
        f"{name!r} is read from gensim's test data, which {'lacks it' if spec else 'is not installed'}: "
        "pip install 'expertlens-jax[demo]', or give the path of a file with two words and a number a line"
    )


def _find(path: epath.PathLike) -> epath.Path:
    file = find_file(path)
    if file is None:
        raise RatingsError(
            f"no ratings {str(path)!r}: neither a file, nor one of the names known: {', '.join(_IN_GENSIM)}"
        )
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
