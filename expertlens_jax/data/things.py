"""THINGS: how alike people find 1,854 objects, and which of three they call the odd one out; from the user's copy.

The files are those of the behavioural part of THINGS-data (Hebart et al., "THINGS-data, a multimodal collection of
large-scale datasets for investigating object representations in human brain and behavior", eLife 12, 2023;
https://osf.io/f5rn6, CC BY 4.0), and, except for the number of triplets, of its predecessor (Hebart, Zheng, Pereira &
Baker, "Revealing the multidimensional mental representations of natural objects underlying human similarity
judgements", Nature Human Behaviour 4, 2020; https://osf.io/z2784). They are looked for anywhere below one directory:

- `unique_id.txt`: the 1,854 objects' names, one a line, in the order that all other files count by.
- `spose_similarity.mat`: `spose_sim` [1854, 1854], the share of triplets in which two objects would be put together,
  over all third ones, by a model of the human choices.
- `validationset.txt` (453,642 lines; also `trainset.txt`, 4,120,663, and `testset1.txt` and its like), in
  `triplet_dataset`, which the release holds as a zip: a human choice a line, three objects counted from 0, the last
  of them the odd one out.
"""

import dataclasses
import itertools
import os
import pathlib
import warnings
import zipfile
from collections.abc import Sequence

import numpy as np
import scipy.io
import xarray as xr

from expertlens_jax.cards import counted
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.data.text import read_text
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import RatingsError


@dataclasses.dataclass(frozen=True, eq=False)
class Things:
    """Human similarity of objects, and human choices of the odd one out.

    Attributes:
      concepts: `[objects]`, names with spaces for underscores; those of several meanings are numbered ("bat1").
      similarity: float64 (concept, other), 0 ... 1, larger = more alike; symmetric.
      triplets: int64 `[triplets, 3]`, indices of concepts, the odd one out last.
      ceiling: how often a person's odd one out is the one most people choose, over triplets that many judged.
      ceiling_source: who says so.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = ["cat", "dog", "rice", "bread"]
    >>> alike = np.array([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.2, 0.1], [0.1, 0.2, 1, 0.8], [0.2, 0.1, 0.8, 1]])
    >>> similarity = xr.DataArray(alike, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> things = el.Things(tuple(names), similarity, triplets=np.array([[0, 1, 2], [2, 3, 0], [0, 2, 1]]))
    >>> things
    Things(4 concepts, 3 triplets)
    >>> things.ratings(["cat", "dog", "bread"]).pairs
    (('cat', 'dog'), ('cat', 'bread'), ('dog', 'bread'))
    """

    concepts: tuple[str, ...]
    similarity: xr.DataArray
    triplets: np.ndarray
    ceiling: float = 0.6767
    ceiling_source: str = "Hebart, Zheng, Pereira & Baker, Nature Human Behaviour 4, 2020"

    def __repr__(self) -> str:
        return f"Things({len(self.concepts)} concepts, {len(self.triplets)} triplets)"

    def ratings(self, concepts: Sequence[str]) -> Ratings:
        """Return the similarity of every two of these concepts that are among the objects, as ratings to `align` with.

        Raises:
          RatingsError: fewer than three of them are.
        """
        wanted = {normal_name(concept) for concept in concepts}
        rows = [row for row, concept in enumerate(self.concepts) if normal_name(concept) in wanted]
        if len(rows) < 3:
            raise RatingsError(
                f"{len(rows)} of the {len(wanted)} concepts are among the {counted(len(self.concepts), 'object')} of "
                "THINGS, and at least 3 are needed to compare anything; its names are in unique_id.txt"
            )
        pairs = list(itertools.combinations(rows, 2))
        first, second = np.array(pairs).T
        return Ratings(
            name="things",
            pairs=tuple((self.concepts[i].lower(), self.concepts[j].lower()) for i, j in pairs),
            scores=self.similarity.values[first, second],
        )


def load_things(directory: str | os.PathLike[str], triplets: str = "validationset.txt") -> Things:
    """Load the user's copy of THINGS' similarity judgements.

    Args:
      directory: holds, itself or in folders below, the files that this module's docstring names.
      triplets: the file of odd-one-out choices to read.

    Raises:
      RatingsError: a file isn't there, is there twice, or isn't what it should be; the message names it.

    >>> import expertlens_jax as el, numpy as np, pathlib, scipy.io, tempfile
    >>> copy = pathlib.Path(tempfile.mkdtemp())  # of three objects, in place of yours
    >>> _ = (copy / "unique_id.txt").write_text("cat\\ndog\\nice_cream\\n")
    >>> _ = (copy / "validationset.txt").write_text("0 1 2\\n1 0 2\\n")
    >>> scipy.io.savemat(copy / "spose_similarity.mat", {"spose_sim": np.eye(3)})
    >>> things = el.load_things(copy)
    >>> things, things.concepts
    (Things(3 concepts, 2 triplets), ('cat', 'dog', 'ice cream'))
    """
    root = pathlib.Path(directory).expanduser()
    if not root.is_dir():
        raise RatingsError(f"no directory {str(directory)!r}; load_things wants the one that holds a copy of THINGS")
    names = [line.strip() for line in read_text(_find(root, "unique_id.txt"), RatingsError).split("\n") if line.strip()]
    concepts = tuple(name.replace("_", " ") for name in names)
    if len(set(concepts)) != len(concepts):
        raise RatingsError(f"{_find(root, 'unique_id.txt')}: a name is there twice; each object has one of its own")
    similarity = _read_similarity(_find(root, "spose_similarity.mat"), len(concepts))
    return Things(
        concepts=concepts,
        similarity=xr.DataArray(
            (similarity + similarity.T) / 2,  # it is symmetric to rounding only
            dims=("concept", "other"),
            coords={"concept": list(concepts), "other": list(concepts)},
            name="things",
        ),
        triplets=_read_triplets(_find(root, triplets), len(concepts)),
    )


def _find(root: pathlib.Path, name: str) -> pathlib.Path:
    found = sorted(path for path in root.rglob(name) if path.is_file())
    if not found:
        zipped = next((path for path in root.rglob("*.zip") if _holds(path, name)), None)
        advice = f"it is in {zipped}: unzip that" if zipped else "get it from https://osf.io/f5rn6 (see data/things.py)"
        raise RatingsError(f"no {name} in {root} or below; {advice}")
    if len(found) > 1:
        places = ", ".join(map(str, found))
        raise RatingsError(f"{name} is in {root} more than once: {places}; give the directory of one copy")
    return found[0]


def _holds(archive: pathlib.Path, name: str) -> bool:
    with archive.open("rb") as file:
        return zipfile.is_zipfile(file) and any(
            member.rpartition("/")[2] == name for member in zipfile.ZipFile(file).namelist()
        )


def _read_similarity(file: pathlib.Path, size: int) -> np.ndarray:
    try:
        with file.open("rb") as opened:
            content = scipy.io.loadmat(opened)
    except (scipy.io.matlab.MatReadError, ValueError, NotImplementedError, TypeError, OSError) as error:
        raise RatingsError(f"{file}: not a MATLAB file that can be read: {error}") from error
    if "spose_sim" not in content:
        held = ", ".join(name for name in content if not name.startswith("__"))
        raise RatingsError(f"{file}: wanted the variable spose_sim, but it holds {held or 'none'}")
    similarity = np.asarray(content["spose_sim"], np.float64)
    if similarity.shape != (size, size):
        raise RatingsError(f"{file}: spose_sim is {list(similarity.shape)}, but unique_id.txt names {size} objects")
    if not np.isfinite(similarity).all() or not np.allclose(similarity, similarity.T, atol=1e-4):
        raise RatingsError(f"{file}: spose_sim must be symmetric and finite")
    return similarity


def _read_triplets(file: pathlib.Path, size: int) -> np.ndarray:
    try:
        with file.open("r") as opened, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file, which is told below
            triplets = np.loadtxt(opened, dtype=np.int64, ndmin=2)
    except ValueError as error:
        raise RatingsError(f"{file}: not three whole numbers a line: {error}") from error
    if not len(triplets):
        raise RatingsError(f"{file}: it holds no triplets")
    if triplets.shape[1] != 3:
        raise RatingsError(f"{file}: wanted three whole numbers a line, the odd one out last, not {triplets.shape[1]}")
    a, b, odd = triplets.T
    outside = ((triplets < 0) | (triplets >= size)).any(axis=1)
    for wrong, what in [
        (outside, f"must lie in 0 ... {size - 1}, as unique_id.txt names {size} objects"),
        ((a == b) | (a == odd) | (b == odd), "must be three different ones"),
    ]:
        if wrong.any():
            line = int(np.argmax(wrong))
            raise RatingsError(f"{file}: the {line + 1}. triplet, {triplets[line].tolist()}, {what}")
    return triplets
