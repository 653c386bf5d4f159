"""Finds the experts of any model on any number of concepts: bounded memory, many devices and hosts, resumable."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard, Unpack

import jax
import numpy as np
import xarray as xr
from etils import epath
from jax.sharding import NamedSharding
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast, contrast_concepts
from expertlens_jax.errors import BudgetError, SettingError
from expertlens_jax.experts import table
from expertlens_jax.experts.budget import Budget, plan_passes, stated_budget
from expertlens_jax.experts.fingerprints import OTHERS, flat, question
from expertlens_jax.experts.planning import (
    BY_NEGATIVES,
    HALF,
    HALVES,
    OTHER_NEGATIVES,
    PERMUTED,
    Job,
    block_width,
    check_disk_space,
    describe,
    least_budget,
    most_results,
    plan_job,
)
from expertlens_jax.experts.poolings import pooled_otherwise, pooled_over, reading_together, tokens_over
from expertlens_jax.experts.ranking import rank_blocks
from expertlens_jax.experts.response_buffers import DeviceBuffer, HostBuffer, Layout, ResponseBuffer
from expertlens_jax.experts.response_store import ResponseStore, StoredResponses
from expertlens_jax.experts.responses import PreparedRecording, SentenceBar, one_behind, prepare_recording
from expertlens_jax.experts.significance import familywise_p, null_distributions, p_values, q_values
from expertlens_jax.experts.token_masks import check_pool_over
from expertlens_jax.models.model import Model
from expertlens_jax.models.provenance import setting_defaults
from expertlens_jax.run_directory import only_writer, open_run
from expertlens_jax.settings import Negatives, PlainFinding, Recording, Statistics, settings_of

RESAMPLING_SEED, SCORES = "resampling_seed", "scores"
"""Settings that a run's `config.json` has only where they differ from what was measured before they were there."""


def find_experts(
    model: Model,
    concepts: ConceptDataset,
    workdir: epath.PathLike,
    *,
    recording: Recording | None = None,
    negatives: Negatives | Sequence[Negatives] | None = None,
    statistics: Statistics | None = None,
    budget: Budget | None = None,
    progress: bool = False,
    **settings: Unpack[PlainFinding],
) -> xr.Dataset:
    """Find every concept's experts: measure every unit's expertise on every concept, however many there are.

        expertise = el.find_experts(model, el.load_concepts("facts"), workdir="runs/facts", progress=True)

    It is `record_responses` and `measure_expertise` in one, for what doesn't fit in memory or takes long: every
    sentence goes through the model once (or once a pass, see below) and one sort a unit serves all concepts. On
    several hosts (see `parallel.connect_hosts`) each records its share of the sentences and ranks its share of the
    units, and the first writes. Killed at any time and called again with the same arguments, it goes on and ends with
    the same table. A directory is of one question: called with another network (its weights or options, whatever it is
    called), an autoencoder with other settings, other sentences, tokens or settings, or by a version of this package
    that reads files otherwise (`models.provenance`), it is refused, and told what differs.

    Responses wait on the devices if they fit there, else in the host's memory, else on disk; where they fit nowhere,
    layers are taken in groups, a pass over the sentences each. The number of devices and hosts changes no byte of the
    table; nor does where responses wait.

    Args:
      model: from `load_model`; on several hosts, loaded on each.
      concepts: labels bool [concepts, sentences].
      workdir: a run directory of its own, local or a bucket's; on several hosts, one that the first can write to.
      recording: which sites' units, and how their activations are pooled over a sentence's tokens.
      negatives: which sentences a concept is told apart from, and what they weigh. Of several, all are answered by one
        pass and one sort, and the first is measured in every way: see `select_negatives`.
      statistics: what is measured beside average precision.
      budget: bytes that responses may take, in how many passes over the sentences they are recorded, and where they
        are kept for other runs; default half of what is free on devices, host and disk, as few passes as that allows,
        and nowhere.
      progress: tells the plan, and shows bars with rates and time left.
      **settings: the fields of these as plain keywords, where the value that holds them isn't given: `sites`,
        `pooling`, `pool_over`, `tokens_per_batch`, `truncate`, `chat`, `significant_bits` (see `Recording`);
        `negatives_per_positive`, `exclude_mentions`, `sampled`, `seed` (see `Negatives`); `halves`, `transport`,
        `scores`, `permutations` and, again, `seed` (see `Statistics`); `passes`, `store` (see `Budget`). Several
        `negatives_per_positive` are several negatives.

    Returns:
      The table, opened lazily (see `open_expertise`). A dataset over (concept, unit), float32: `average_precision`,
      `positive_median`, `positive_p90`, `positive_mean`, `negative_mean`, `auroc`; with `transport`,
      `transport_slope`; with `scores`, these; with `halves`, `average_precision_halves`
      over (half, concept, unit); with several negatives, `average_precision_by_negatives` over (negatives, concept,
      unit); with `permutations`, `p_value` (one unit; exact if there are no ties), `q_value`
      (Benjamini & Hochberg 1995, over the concept's units) and `familywise_p` (of the maximum over all units, by
      permutation).

    Raises:
      BudgetError: one layer's responses, or the table, fit nowhere.
      ConceptDataError: a concept without enough negatives; or, where not all tokens are pooled over, a sentence that
        lacks its concept's word, or holds nothing else.
      HostError: another host stopped.
      ResponsesError: responses that aren't finite.
      RunDirectoryError: the directory holds something else, or an earlier version's run; is being written by another
        process; or can't be written.
      SelectionError, TokenizationError: see `record_responses`.
      SettingError: an unknown setting, or one that is given twice.

    >>> import expertlens_jax as el, tempfile
    >>> model, run = el.load_model("lenslet-2m"), tempfile.mkdtemp()
    >>> concepts = el.load_concepts("facts").subset(["cat", "dog", "tiger"])
    >>> expertise = el.find_experts(model, concepts, run, sites="attn.v", permutations=0)
    >>> expertise["average_precision"].dims, el.top_experts(expertise, "cat", 1).index.size
    (('concept', 'unit'), 1)
    """
    gathered = [
        settings_of(
            "find_experts",
            plain,
            {
                "recording": (Recording, recording),
                "negatives": (Negatives, each),
                "statistics": (Statistics, statistics),
                "budget": (Budget, budget),
            },
            others=("progress",),
        )
        for each, plain in listed_negatives(negatives, settings)
    ]
    recording, _, statistics, budget = gathered[0]
    negatives = [each for _, each, *_ in gathered]
    check_each_once(negatives)
    workdir = epath.Path(workdir)
    pool_over = check_pool_over(recording.pool_over)
    check_one_host(budget.store)
    contrasts = [contrast_concepts(concepts, each) for each in negatives]
    tokens = None if pool_over == "all" else tokens_over(model, concepts, pool_over, recording)
    prepared = prepare_recording(model, concepts.sentences, recording, tokens=tokens, all_hosts=True, all_layers=False)
    job = plan_job(prepared, concepts, contrasts, negatives, statistics)
    scratch = workdir / "scratch"
    plan = plan_passes(
        job.layout.rows_per_device,
        prepared.units_by_layer,
        least_budget(stated_budget(budget, scratch)),
        devices=len(job.layout.local_devices),
    )
    size = table.table_bytes(job.variables, job.sizes)
    if progress and parallel.is_first_host():
        tqdm.write(describe(job, plan, size))
    asked = question(prepared.provenance, concepts, contrasts, negatives, **stated(statistics, negatives[0]))
    attributes = asked | flat(asked) | prepared.provenance.attributes()

    with contextlib.ExitStack() as stack, parallel.explained_host_errors():

        def start() -> dict[str, Any]:
            stack.enter_context(only_writer(workdir))
            with table.explained_write_errors(workdir):
                open_run(workdir, asked, defaults=setting_defaults() | dict.fromkeys((RESAMPLING_SEED, SCORES, OTHERS)))
                table.remove_leftovers(workdir)
                if not table.read_progress(workdir).finished:
                    check_disk_space(workdir, size)
                    table.create_table(workdir, job.coordinates.assign_attrs(attributes), job.variables)
            return dataclasses.asdict(table.read_progress(workdir))

        done = table.Progress.of(parallel.from_first_host(start))
        spans = [(job.layer_starts[first], job.layer_starts[last]) for first, last in plan.layers]
        waiting = [number for number, units in enumerate(spans) if not done.covers(*units)]
        kept = None
        if budget.store is not None and waiting:
            kept = kept_responses(budget.store, model, concepts, recording, job, progress)
        for number in waiting:
            first, last = spans[number]
            label = f"pass {number + 1} of {len(spans)}: " if len(spans) > 1 else ""
            if kept is not None:
                buffer = dataclasses.replace(kept, first_unit=first)
            else:
                buffer = make_buffer(job, plan.place, last - first, scratch)
                record(prepared, job.layout, buffer, plan.layers[number], label, progress)
            for start_unit, ranked in rank(job, buffer, first, last, done, label, progress):
                done = keep(workdir, job, done, start_unit, ranked)
            buffer.free()
        if not done.complete:
            parallel.from_first_host(
                lambda: finish(workdir, job, contrasts[0], done, statistics.permutations.seed, progress)
            )
    return table.open_expertise(workdir)


def stated(statistics: Statistics, negatives: Negatives) -> dict[str, Any]:
    """Return what a run's `config.json` says of its statistics.

    Their seed is that of the negatives where it says nothing of it, or nothing is drawn.
    """
    permutations = statistics.permutations
    said = {
        "halves": bool(statistics.halves),
        "permutations": int(permutations.draws),
        "transport": bool(statistics.transport),
    }
    if statistics.scores:
        said[SCORES] = list(statistics.scores)
    differs = permutations.seed != negatives.seed and (statistics.halves or permutations.draws)
    return said | {RESAMPLING_SEED: int(permutations.seed)} if differs else said


def listed_negatives(
    negatives: Negatives | Sequence[Negatives] | None, settings: Mapping[str, Any]
) -> list[tuple[Negatives | None, Mapping[str, Any]]]:
    """Return each of the negatives that were given, as a value and plain keywords: a list may be given of either."""
    ratios = settings.get("negatives_per_positive")
    listed: list[tuple[Any, Mapping[str, Any]]]
    if _is_list(negatives):
        listed = [(each, settings) for each in negatives]
    elif _is_list(ratios):
        listed = [(negatives, {**settings, "negatives_per_positive": ratio}) for ratio in ratios]
    else:
        listed = [(negatives, settings)]
    if not listed:
        raise SettingError(
            "find_experts was given an empty list of negatives; wanted el.Negatives(), or a list of some."
        )
    return listed


def _is_list(given: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)


def check_each_once(negatives: Sequence[Negatives]) -> None:
    """Refuse the same negatives twice.

    Raises:
      SettingError: the message shows them.
    """
    for number, each in enumerate(negatives):
        if each in negatives[:number]:
            raise SettingError(f"find_experts was given {each} twice; wanted negatives that differ.")


def check_one_host(store: ResponseStore | None) -> None:
    """Refuse a store where several hosts each record their share of the sentences.

    Raises:
      BudgetError: there are several.
    """
    if store is not None and jax.process_count() > 1:
        raise BudgetError(
            f"a store of responses ({store.directory}) was given to {jax.process_count()} hosts, and each records "
            "its share of the sentences; a store keeps those of one host. Leave it out."
        )


def kept_responses(
    store: ResponseStore, model: Model, concepts: ConceptDataset, recording: Recording, job: Job, progress: bool
) -> StoredResponses | None:
    """Return all layers' responses in the store, recorded there if they aren't yet; None if they can't be kept.

    What the store keeps beside them is recorded by the same pass: as far as its limit allows, first what is pooled
    otherwise, which is never rounded, then what is pooled over other tokens.
    """
    found = store.find(job.recording)
    if found is not None:
        if progress:
            tqdm.write(f"Reading the responses kept in {store.directory}")
        return found
    with store.entry(job.recording) as room, contextlib.ExitStack() as stack:
        if room is not None:
            otherwise, over = (
                [each for each in recordings if store.find(each) is None]
                for recordings in recorded_beside(store, model, concepts, recording, job.recording)
            )
            allowed = ([*otherwise, *over], otherwise, [])
            others = next(each for each in allowed if store.may_hold(job.recording, *each))
            rooms = [(each, stack.enter_context(store.entry(each))) for each in others]
            beside = [(each, its) for each, its in rooms if its is not None]
            record(job.recording, job.layout, room, (0, job.recording.num_layers), "", progress, beside)
    return room


def recorded_beside(
    store: ResponseStore, model: Model, concepts: ConceptDataset, recording: Recording, prepared: PreparedRecording
) -> tuple[list[PreparedRecording], list[PreparedRecording]]:
    """Return what a store keeps beside a recording: what is pooled otherwise, and what is pooled over other tokens.

    Beside features of autoencoders it is nothing.

    Raises:
      SelectionError, ConceptDataError: see `pooled_otherwise` and `pool_over_words`.
    """
    if prepared.saes:
        return [], []
    otherwise = [unrounded(pooled_otherwise(model, prepared, site, pooling)) for site, pooling in store.beside]
    over = [
        pooled_over(model, prepared, concepts, each, recording)
        for each in store.pool_over
        if each != "all" and each != recording.pool_over
    ]
    return otherwise, over


def unrounded(recording: PreparedRecording) -> PreparedRecording:
    """Return the same recording, with responses as they are computed: what is compared by value has no ties to keep."""
    provenance = dataclasses.replace(recording.provenance, significant_bits=0)
    return dataclasses.replace(recording, significant_bits=None, provenance=provenance)


def make_buffer(job: Job, place: str, num_units: int, scratch: epath.Path) -> ResponseBuffer:
    """Return an empty place for a pass's responses."""
    if place == "device":
        return DeviceBuffer(job.layout, num_units)
    width = job.layout.mesh.size * block_width(job, num_units)
    if place == "host":
        return HostBuffer(job.layout, num_units, width)
    scratch.mkdir(parents=True, exist_ok=True)
    return HostBuffer(job.layout, num_units, width, scratch / f"responses_{jax.process_index()}.float32")


def record(
    prepared: PreparedRecording,
    layout: Layout,
    buffer: ResponseBuffer,
    layers: tuple[int, int],
    label: str,
    progress: bool,
    beside: Sequence[tuple[PreparedRecording, ResponseBuffer]] = (),
) -> None:
    """Put all sentences through the model, and the responses of some layers into their place.

    With recordings of the same sentences `beside`, which the same pass puts into places of their own, it is all layers.
    """
    num_sentences = len(layout.row_of)
    respond = reading_together([prepared, *(each for each, _ in beside)], layers)
    buffers = (buffer, *(each for _, each in beside))
    shown = progress and parallel.is_first_host()
    with tqdm(total=num_sentences, desc=f"{label}recording", unit=" sentences", disable=not shown) as bar:
        sentences = SentenceBar(bar)
        begun = ((batch, [split_over_all(each, layout) for each in respond(batch)]) for batch in prepared.batches())
        for (batch, parts), offset in zip(one_behind(begun), layout.offsets, strict=True):
            for place, part in zip(buffers, parts, strict=True):
                place.put(part, offset, batch.rows)
            sentences.show(batch, prepared.params)


def split_over_all(responses: jax.Array, layout: Layout) -> jax.Array:
    """Return the rows split over all devices of the mesh, where a model that is split left them whole on several."""
    if responses.sharding.is_equivalent_to(layout.by_rows, responses.ndim):
        return responses
    return _moved_to(layout.by_rows)(responses)


@functools.cache
def _moved_to(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    """Made once, so that it is compiled once for all batches of a shape."""
    return jax.jit(lambda values: values, out_shardings=sharding)


def rank(
    job: Job, buffer: ResponseBuffer, first: int, last: int, done: table.Progress, label: str, progress: bool
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Rank the units of a pass that aren't done, some at a time.

    Yields:
      The first unit, and the variables `[..., units]` of it and those after it; `average_precision` has a row for
      each permuted concept too.
    """
    width = job.layout.mesh.size * block_width(job, last - first)
    gathered: list[dict[str, np.ndarray]] = []
    start = first
    with tqdm(
        total=last - first, desc=f"{label}ranking", unit=" units", disable=not (progress and parallel.is_first_host())
    ) as bar:
        for unit in range(first, last, width):
            stop = min(unit + width, last)
            bar.update(stop - unit)
            if done.covers(unit, stop):
                start = stop
                continue
            blocks = buffer.blocks(unit - first, width)
            units = job.recording.units.iloc[unit:]
            ranked, others = rank_blocks(blocks, job.sets, first_unit=unit, units=units, sentences=job.sentences)
            values, precision = ranked.measured(), np.asarray(ranked.average_precision)
            of_kind: dict[str, list[np.ndarray]] = {PERMUTED: [], OTHER_NEGATIVES: [], HALF: []}
            for kind, other in zip(job.ranked_for, others, strict=True):
                of_kind[kind].append(np.asarray(other))
            if of_kind[HALF]:
                values["average_precision_halves"] = np.stack(of_kind[HALF], axis=1)
            if of_kind[OTHER_NEGATIVES]:
                values["average_precision_by_negatives"] = np.stack([precision, *of_kind[OTHER_NEGATIVES]], axis=1)
            values["average_precision"] = np.concatenate([precision, *of_kind[PERMUTED]], axis=1)
            gathered.append(
                {name: in_order(np.asarray(each), job.layout)[..., : stop - unit] for name, each in values.items()}
            )
            full = stop - start >= min(table.UNITS_PER_CHUNK, most_results(job))
            if full or stop == last or done.covers(stop, min(stop + width, last)):
                yield start, {name: np.concatenate([each[name] for each in gathered], axis=-1) for name in gathered[0]}
                gathered, start = [], stop


def in_order(by_device: np.ndarray, layout: Layout) -> np.ndarray:
    """Return each device's columns, side by side.

    From `[this process's devices, ..., units]` to all devices' `[..., devices * units]`.
    """
    everywhere = parallel.from_all_hosts(by_device)
    hosts = [device.process_index for device in layout.mesh.devices.flat]
    seen = dict.fromkeys(hosts, 0)
    parts = []
    for host in hosts:  # a host's devices stand in the mesh's order, but hosts may take turns
        parts.append(everywhere[host, seen[host]])
        seen[host] += 1
    return np.concatenate(parts, axis=-1)


def keep(
    workdir: epath.Path, job: Job, done: table.Progress, start: int, ranked: Mapping[str, np.ndarray]
) -> table.Progress:
    """Write some units' variables into the table, and that they are there."""
    concepts = slice(job.num_concepts)
    null_maximum = ranked["average_precision"][job.num_concepts :].max(axis=1)
    values = {name: each if name in HALVES | BY_NEGATIVES else each[concepts] for name, each in ranked.items()}
    after = done.with_units(start, start + ranked["average_precision"].shape[1], null_maximum)

    def write() -> None:
        with table.explained_write_errors(workdir):
            table.write_units(workdir, start, values)
            table.write_progress(workdir, after)

    parallel.from_first_host(write)
    return after


def finish(workdir: epath.Path, job: Job, contrast: Contrast, done: table.Progress, seed: int, progress: bool) -> None:
    """Write what takes all units of a concept to know, a few concepts at a time, and that the table is whole."""
    with table.explained_write_errors(workdir):
        if job.null_of.size:
            maxima = np.array(done.null_maximum, np.float32)
            table.write_units(workdir, 0, {"null_maximum": maxima})
            nulls = null_distributions(contrast, seed=seed)
            starts = range(0, job.num_concepts, table.CONCEPTS_PER_CHUNK)
            for start in tqdm(starts, desc="p- and q-values", unit=" chunks", disable=not progress):
                precision = table.read_concepts(workdir, "average_precision", start)
                p = np.stack([p_values(row, null) for row, null in zip(precision, nulls[start:], strict=False)])
                values = {
                    "p_value": p,
                    "q_value": np.stack([q_values(row) for row in p]),
                    "familywise_p": np.stack(
                        [familywise_p(row, maxima[of]) for row, of in zip(precision, job.null_of[start:], strict=False)]
                    ),
                }
                table.write_concepts(workdir, start, {name: each.astype(np.float32) for name, each in values.items()})
        table.write_progress(workdir, dataclasses.replace(done, complete=True))
