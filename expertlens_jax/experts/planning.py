"""What a large job will do, known before it starts: what is ranked for what, where responses wait, what it takes."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import xarray as xr
from etils import epath

from expertlens_jax import parallel
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.data.resampling import (
    permuted_labels,
    permuted_sizes,
    restrict_within,
    split_halves,
)
from expertlens_jax.errors import BudgetError
from expertlens_jax.experts.budget import Budget, Passes, format_bytes, free_disk
from expertlens_jax.experts.concept_sets import ConceptSets, concept_sets
from expertlens_jax.experts.expertise import expertise_coordinates, negatives_coordinates
from expertlens_jax.experts.measuring import Ranking
from expertlens_jax.experts.ranking import units_per_block
from expertlens_jax.experts.response_buffers import Layout, lay_out
from expertlens_jax.experts.responses import PreparedRecording
from expertlens_jax.run_directory import is_local
from expertlens_jax.settings import MORE_SCORES, Negatives, Statistics

RANKED: dict[str, tuple[str, ...]] = {name: ("concept", "unit") for name in Ranking._fields if name not in MORE_SCORES}
_RESULT_BYTES = 2**26
HALVES = {"average_precision_halves": ("half", "concept", "unit")}
BY_NEGATIVES = {"average_precision_by_negatives": ("negatives", "concept", "unit")}
PERMUTED, OTHER_NEGATIVES, HALF = "permuted labels", "other negatives", "half of the sentences"
SIGNIFICANCE = {name: ("concept", "unit") for name in ("p_value", "q_value", "familywise_p")}


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """All that a run computes with, known before it starts."""

    recording: PreparedRecording
    layout: Layout
    sentences: tuple[str, ...]
    sets: ConceptSets
    """Of the concepts with the first negatives, and all else that the same sort answers."""
    ranked_for: tuple[str, ...]
    """What each of those but the first is: `PERMUTED`, `OTHER_NEGATIVES` or `HALF`."""
    num_concepts: int
    null_of: np.ndarray
    """int `[concepts, permutations]`: which of the permuted concepts are like each concept."""
    coordinates: xr.Dataset
    variables: Mapping[str, tuple[str, ...]]

    @property
    def sizes(self) -> Mapping[Any, int]:
        """Lengths of the table's dimensions."""
        return self.coordinates.sizes

    @property
    def layer_starts(self) -> tuple[int, ...]:
        """Among the units, each layer's first, and after the last layer their number."""
        return (0, *itertools.accumulate(self.recording.units_by_layer))


def plan_job(
    recording: PreparedRecording,
    concepts: ConceptDataset,
    contrasts: Sequence[Contrast],
    negatives: Sequence[Negatives],
    statistics: Statistics,
) -> Job:
    """Lay sentences out over devices, and sets up what they are ranked for.

    Args:
      recording: of the concepts' sentences.
      concepts: whose experts are sought.
      contrasts: one or more; the first is measured in every way.
      negatives: that the contrasts were made with.
      statistics: of the first.
    """
    num_concepts, num_sentences = concepts.labels.shape
    contrast, *others = contrasts
    coordinates = xr.Dataset(coords=expertise_coordinates(recording.units, concepts, contrast))
    ranked, null_of, variables = [], np.zeros((num_concepts, 0), int), dict(RANKED)
    permutations, seed = statistics.permutations.draws, statistics.permutations.seed
    variables |= dict.fromkeys(statistics.scores, ("concept", "unit"))
    if not statistics.transport:
        del variables["transport_slope"]
    if permutations:
        permuted = permuted_labels(contrast, permutations, seed=seed)
        null_of = permuted_sizes(contrast)[1][:, None] * permutations + np.arange(permutations)
        ranked.append((PERMUTED, permuted))
        coordinates = coordinates.assign_coords(permutation=np.arange(len(permuted.positives)))
        variables |= SIGNIFICANCE | {"null_maximum": ("permutation",)}
    if others:
        ranked += [(OTHER_NEGATIVES, other) for other in others]
        coordinates = coordinates.assign_coords(negatives_coordinates(negatives, contrasts))
        variables |= BY_NEGATIVES
    if statistics.halves:
        ranked += [(HALF, restrict_within(contrast, kept)) for kept in split_halves(contrast, seed=seed)]
        coordinates = coordinates.assign_coords(half=np.arange(2))
        variables |= HALVES
    return Job(
        recording=recording,
        layout=lay_out(recording.batches(), recording.mesh, num_sentences),
        sentences=concepts.sentences,
        sets=concept_sets(
            contrast, *(each for _, each in ranked), transport=statistics.transport, scores=statistics.scores
        ),
        ranked_for=tuple(kind for kind, _ in ranked),
        num_concepts=num_concepts,
        null_of=null_of,
        coordinates=coordinates,
        variables=variables,
    )


def describe(job: Job, plan: Passes, table_size: int) -> str:
    """Return the plan in a sentence or two: what is computed, where it waits, and how much it takes."""
    sizes, passes = job.sizes, len(plan.layers)
    each = (
        "on each device"
        if plan.place == "device"
        else f"on the {plan.place}" + (f" of each of {jax.process_count()} hosts" if jax.process_count() > 1 else "")
    )
    return (
        f"{len(job.sentences):,} sentences x {sizes['unit']:,} units x {sizes['concept']:,} concepts on "
        f"{job.layout.mesh.size} device{'s' * (job.layout.mesh.size > 1)}: {passes} pass{'es' * (passes > 1)} over the "
        f"sentences, whose responses take {format_bytes(plan.bytes_per_pass)} {each}; the table takes up to "
        f"{format_bytes(table_size)} on disk."
    )


def least_budget(budget: Budget) -> Budget:
    """Return what every host has, of a budget that is stated for every place: all must make the same passes."""
    places = budget.device, budget.host, budget.disk
    kilobytes = np.array(places, np.float64) // 1000
    everywhere = parallel.from_all_hosts(kilobytes.clip(max=2**31 - 1).astype(np.int32))
    if len(everywhere) == 1:
        return budget
    device, host, disk = (1000 * int(least) for least in everywhere.min(axis=0))
    return dataclasses.replace(budget, device=device, host=host, disk=disk)


def check_disk_space(workdir: epath.Path, size: int) -> None:
    """Refuse a table that a local disk has no room for."""
    if is_local(workdir) and size > free_disk(workdir):
        raise BudgetError(
            f"the table takes up to {format_bytes(size)} and {workdir} has {format_bytes(free_disk(workdir))} free. "
            "Choose another workdir, or ask for fewer sites or concepts, or for halves=False or permutations=0."
        )


def block_width(job: Job, num_units: int) -> int:
    """Return the units that a device ranks at once, a multiple of 128.

    On an accelerator another width is another program, which may round otherwise; so there it doesn't depend on
    devices or passes. A CPU ranks chunks of one width in any case, and takes no more than its share.
    """
    width = min(units_per_block(len(job.sentences), job.sets), most_results(job), job.sizes["unit"])
    if jax.default_backend() == "cpu":
        width = min(width, -(-num_units // job.layout.mesh.size))
    return -(-width // 128) * 128


def most_results(job: Job) -> int:
    """Return the units whose results may wait in memory to be written, so that it doesn't grow with the concepts."""
    unit_bytes = 4 * ((len(RANKED) + len(job.sets.scores)) * job.num_concepts + sum(job.sets.num_concepts[1:]))
    return max(128, _RESULT_BYTES // unit_bytes)
