"""A site of plain files that shows a run: concepts, units, pairs, maps, sentences and verdicts, to open in a browser."""

import dataclasses
import importlib.resources
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax
from expertlens_jax.analysis.structure.organisation import map_concepts
from expertlens_jax.data.concepts import PACKAGED, ConceptDataset, load_concepts
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.data.ratings import load_ratings
from expertlens_jax.errors import ExpertLensError, ExpertLensWarning, RunDirectoryError, SelectionError
from expertlens_jax.experts.concept_tree import link_concepts
from expertlens_jax.explorer import activations
from expertlens_jax.explorer.chunks import exact, packed, rounded, write_chunk
from expertlens_jax.explorer.counting import Counts, count, threshold_levels
from expertlens_jax.explorer.runs import FIND, REPRODUCE, Run, Table, read_run
from expertlens_jax.models.digests import digest_json
from expertlens_jax.models.loading import load_model
from expertlens_jax.models.model import Model
from expertlens_jax.models.provenance import read_provenance

UNITS_PER_CHUNK, SENTENCES_PER_CHUNK = 256, 500
CONCEPTS_OF_A_UNIT = 20
SENTENCES_OF_A_CONCEPT, SENTENCES_OF_A_UNIT = 16, 8
MAP_EVERY = 4  # levels of τ from one map and tree to the next: a tenth
_MARKER = "expertlens-explore"


def explore(
    run: epath.PathLike,
    out: epath.PathLike | None = None,
    *,
    experts: int = 100,
    speaking: int = 5,
    model: Model | epath.PathLike | None = None,
    sentences: Sequence[ConceptDataset | epath.PathLike] = (),
    tokens: bool = True,
    progress: bool = False,
) -> epath.Path:
    """Write a page to explore a run: its concepts, units, pairs, sentences and verdicts, with links of their own.

        page = el.explore("runs/facts", out="site")  # then open site/index.html in a browser

    The page is a folder of plain files. It opens from the file system and from any web host, needs no network, and
    loads data as it is looked at. Of each concept it shows the `experts` units with the highest average precision;
    everything that is counted (experts at each τ, where they are, overlaps) is counted over all units.

    Sentences show what the best units say at each token where the sentences and the model can be had: those of the run,
    if they ship with the package or are still where the run's config says, or those given here. What isn't what the run
    was measured with is refused, and what can't be had is left out; the page says so, and shows all else.

    Args:
      run: the directory of a run: of `el.find_experts`, of `expertlens find`, `align`, `reproduce` or another
        experiment.
      out: the folder to write; default `explore` in the run. One that is there is replaced if it holds such a page.
      experts: how many units of each concept to show, its best.
      speaking: how many of these to read at every token, in the concept's sentences.
      model: the run's model, or where it is, if the run's own name for it doesn't load it.
      sentences: the run's sentence sets, or their files, if they aren't where the run's config says.
      tokens: whether to read tokens at all: it takes about as long as recording the sentences did.
      progress: show bars.

    Returns:
      The page's file, `out/index.html`.

    Raises:
      RunDirectoryError: `run` is no run or has ranked no unit; or `out` holds something else.
      SelectionError: `experts` or `speaking` are below 1.
      ConceptDataError, CheckpointError: a `model` or `sentences` given here that can't be loaded, or aren't the run's.

    Warns:
      ExpertLensWarning: what the page leaves out and why; that the run isn't done, or of another version.
    """
    for name, number in (("experts", experts), ("speaking", speaking)):
        if number < 1:
            raise SelectionError(f"{name} is {number}; wanted 1 or more units of each concept.")
    found = read_run(run)
    site = found.directory / "explore" if out is None else epath.Path(out)
    _refuse_other_files(site)
    given = _GivenParts(model, [_load_sentences(each) for each in sentences])
    notes = list(found.notes)
    for number, table in enumerate(found.tables):
        given.check(table, number == 0)
    _clear(site)
    described = []
    for number, table in enumerate(found.tables):
        with warnings.catch_warnings():  # noted once, by reading the run
            told = _write_table(site, f"t{number}", table, found, given, notes, experts, speaking, tokens, progress)
        described.append(told)
    _write_page(site, found, described, notes)
    for note in notes:
        warnings.warn(note, ExpertLensWarning, stacklevel=2)
    return site / "index.html"
