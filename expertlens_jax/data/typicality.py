"""Human ratings of typicality: how good an example of a category a concept is, as a robin is of birds."""

import collections
import dataclasses
import math
import warnings

import numpy as np
from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.data.ratings import read_pairs
from expertlens_jax.data.text import find_file
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import ExpertLensWarning, RatingsError


@dataclasses.dataclass(frozen=True, eq=False)
class Typicality:
    """Ratings of how typical concepts are of their categories.

    Attributes:
      name: of the data set.
      concepts: `[ratings]`, lower-cased.
      categories: `[ratings]`, of each; a concept may be of several.
      scores: float64 `[ratings]`, larger is more typical.

    >>> import expertlens_jax as el, numpy as np
    >>> el.Typicality("mine", ("robin", "penguin"), ("bird", "bird"), np.array([6.9, 2.6]))
    Typicality('mine': 2 ratings in 1 category)
    """

    name: str
    concepts: tuple[str, ...]
    categories: tuple[str, ...]
    scores: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.concepts) == len(self.categories) == len(self.scores):
            raise RatingsError(
                f"{self.name}: {counted(len(self.concepts), 'concept')}, "
                f"{counted(len(self.categories), 'category', 'categories')} and {counted(len(self.scores), 'score')} "
                "were given; give one of each a rating"
            )

    def __repr__(self) -> str:
        count = len(set(self.categories))
        return f"Typicality({self.name!r}: {len(self.scores)} ratings in {count} categor{'y' if count == 1 else 'ies'})"


def load_typicality(path: epath.PathLike) -> Typicality:
    """Load ratings of typicality from a file of yours.

    Args:
      path: a UTF-8 file with a concept, its category and a number a line, in this order, separated by tabs, commas,
        semicolons or spaces, as `load_ratings` reads its pairs: a header, further columns and `#` lines are known.

    Raises:
      RatingsError: there is no such file, a line doesn't hold two names and a finite number, or nothing is rated.

    Warns:
      ExpertLensWarning: a concept is rated more than once in a category, and gets the mean; it stands for its own
        category, and is left out; or columns aren't read.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "birds.csv"
    >>> _ = path.write_text("concept,category,rating\\nrobin,bird,6.9\\npenguin,bird,2.6\\n")
    >>> el.load_typicality(path).scores.tolist()
    [6.9, 2.6]
    """
    file = find_file(path)
    if file is None:
        raise RatingsError(f"no file {str(path)!r} of typicality; give one with a concept, its category and a number")
    scores: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    first_as: dict[tuple[str, str], tuple[str, str]] = {}
    own = []
    for concept, category, score in read_pairs(file):
        key = normal_name(concept), normal_name(category)
        if key[0] == key[1]:
            own.append(concept)
            continue
        scores[first_as.setdefault(key, (concept, category))].append(score)
    if not scores:
        raise RatingsError(f"{file}: there is no rating of a concept in a category in this file")
    repeated = [pair for pair, each in scores.items() if len(each) > 1]
    if repeated:
        warnings.warn(
            f"{file}: {len(repeated)} of {len(scores)} concepts are rated more than once in their category, and get "
            f"the mean; the first is {repeated[0][0]!r} in {repeated[0][1]!r}",
            ExpertLensWarning,
            stacklevel=2,
        )
    if own:
        warnings.warn(
            f"{file}: left out {counted(len(own), 'rating')} of a category in itself, such as {own[0]!r}",
            ExpertLensWarning,
            stacklevel=2,
        )
    concepts, categories = zip(*scores, strict=True)
    means = np.array([math.fsum(each) / len(each) for each in scores.values()])
    return Typicality(file.name.rpartition(".")[0] or file.name, concepts, categories, means)
