"""One concept's experts, and what one unit reads: tables to look at."""

import json
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from etils import epath

from expertlens_jax.cards import counted, listed
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ResponsesError, RunDirectoryError, SelectionError
from expertlens_jax.experts.labelled_responses import UNIT_COLUMNS, Responses, as_responses
from expertlens_jax.experts.response_store import ResponseStore
from expertlens_jax.experts.responses import prepare_recording
from expertlens_jax.experts.run_sources import check_given, find_model, find_sentences, load_given
from expertlens_jax.experts.scores import Sign, check_threshold, score_units
from expertlens_jax.experts.steering import check_known_concepts
from expertlens_jax.experts.table import STORE, open_expertise
from expertlens_jax.experts.tracing import Trace, trace
from expertlens_jax.models.addresses import (
    ADDRESS,
    Address,
    Units,
    as_rows_of_table,
    check_same_places,
    format_address,
    locate_units,
    one_address,
)
from expertlens_jax.models.model import Model
from expertlens_jax.models.taps import check_pooling
from expertlens_jax.run_directory import is_local
from expertlens_jax.settings import Recording


def top_experts(
    expertise: xr.Dataset,
    concept: str,
    count: int = 20,
    *,
    threshold: float = 0.5,
    by: str = "average_precision",
    sign: Sign = "up",
) -> pd.DataFrame:
    """Return a concept's best units, by average precision or another score, and what else is known of them.

    >>> import expertlens_jax as el
    >>> concepts = el.load_concepts("facts").subset(["cat", "rain"])
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), concepts.sentences, sites="attn.v")
    >>> table = el.top_experts(el.measure_expertise(responses, concepts), "cat", 3)
    >>> table["site"].tolist(), int(table["channel"].iloc[0]), table["sign"].iloc[0]
    (['attn.v', 'attn.v', 'attn.v'], 28, '+')

    Args:
      expertise: from `measure_expertise` or `find_experts`, or opened by `open_expertise`.
      concept: one of the table's.
      count: how many units; of equal ones, those that come first in the units' order.
      threshold: of the score, from which on a unit serves another concept too.
      by: the score, a name in `el.SCORES`: "average_precision", "auroc", "cohens_d", "attribution",
        or one of your own.
      sign: "up" for units that say a concept by a higher response, "down" by a lower one, "both" for either.

    Returns:
      A table, a row per unit, the best first, with the table's `unit` as its index, and the columns

        `layer, site, channel`: where it stands.
        `average_precision`: its expertise, where the table has it.
        `score`: what it was chosen by, unless that is average precision itself.
        `q_value`: the share of false finds among the units that are at least as good; where the table has it.
        `held_out`: its average precision in a half of the sentences, where the other half by itself puts it among the
          `count` best: the mean of both ways, or of one; NaN where neither does. Where the table has `halves`, and
          units are chosen by average precision.
        `sign`: "+" if the concept's sentences make it say more than others do, "-" if less.
        `expert`: of a mixture of experts: whose unit it is, or -1.
        `hf_module, hf_channel`: its address in Hugging Face's model.
        `serves`: the other concepts it is an expert on, the best served first, with commas between.

      Its `attrs` are the expertise's, so that `el.trace` knows a model that it isn't of.

    Raises:
      SelectionError: a concept that isn't in the table, or several; a count below 1; a score or sign that the table
        doesn't have; a threshold that no unit could meet or miss.
    """
    scores, plain = score_units(expertise, by, sign), (by, sign) == ("average_precision", "up")
    count, threshold = _check_count(count, "units"), check_threshold(threshold, by)
    if not isinstance(concept, str):
        raise SelectionError(f"concept={concept!r} was given; wanted the name of one concept.")
    check_known_concepts(expertise, (concept,))
    row = [str(name) for name in scores["concept"].values].index(concept)
    values = scores.isel(concept=row).values
    places = np.argsort(-values, kind="stable")[:count]
    best = expertise.isel(unit=places)
    own = best.isel(concept=row)
    table = pd.DataFrame({name: own[name].values for name in ADDRESS}, index=pd.Index(own["unit"].values, name="unit"))
    if "average_precision" in own:
        table["average_precision"] = own["average_precision"].values
    if not plain:
        table["score"] = values[places]
    if "q_value" in expertise:
        table["q_value"] = own["q_value"].values
    if "average_precision_halves" in expertise and plain:
        halves = expertise["average_precision_halves"].isel(concept=row).transpose("half", "unit").values
        table["held_out"] = _held_out(halves, count)[places]
    if said := _sign(own):
        table["sign"] = said
    for name in UNIT_COLUMNS[len(ADDRESS) :]:
        if name in own.coords:
            table[name] = own[name].values
    table["serves"] = _serves(scores.isel(unit=places), row, threshold)
    table.attrs = dict(expertise.attrs)
    return table


def _held_out(halves: np.ndarray, count: int) -> np.ndarray:
    """Average precision `[2, units]` of both halves to that of each unit where it wasn't chosen by, `[units]`."""
    chosen = np.zeros(halves.shape, bool)
    for values, best in zip(halves, chosen, strict=True):
        best[np.argsort(-values, kind="stable")[:count]] = True
    elsewhere = np.where(chosen, halves[::-1], 0).sum(axis=0)
    times = chosen.sum(axis=0)
    return np.where(times > 0, elsewhere / np.maximum(times, 1), np.nan).astype(np.float32)


def _sign(own: xr.Dataset) -> list[str]:
    """Of one concept's units; [] where the table doesn't say."""
    if "auroc" in own:
        above = own["auroc"].values >= 0.5
    elif {"positive_mean", "negative_mean"} <= set(own):
        above = own["positive_mean"].values >= own["negative_mean"].values
    else:
        return []
    return ["+" if each else "-" for each in above]


def _serves(best: xr.DataArray, row: int, threshold: float) -> list[str]:
    """Return the names of the other concepts that each unit is an expert on, by scores (concept, unit)."""
    values = best.values.copy()
    values[row] = -np.inf
    names = [str(name) for name in best["concept"].values]
    orders = np.argsort(-values, axis=0, kind="stable")
    return [
        ", ".join(names[place] for place in order if of_unit[place] >= threshold)
        for order, of_unit in zip(orders.T, values.T, strict=True)
    ]


def top_sentences(
    responses: Responses | Trace | epath.PathLike,
    unit: Units,
    count: int = 20,
    *,
    lowest: bool = False,
    model: Model | epath.PathLike | None = None,
    sentences: ConceptDataset | epath.PathLike | None = None,
) -> pd.DataFrame:
    """Return the sentences that a unit responds to most.

    >>> import expertlens_jax as el
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), ["A dog ran.", "A cat sat there."])
    >>> el.top_sentences(responses, "L0 attn.v 28", 1)["sentence"].tolist()
    ['A cat sat there.']

    Args:
      responses: from `record_responses`; or a trace; or the directory of a run of `el.find_experts`. A run's model
        reads its sentences again, for this unit alone, unless experiments keep the responses beside it.
      unit: one that they have, as `el.trace` takes them; of a run, any that its model has.
      count: how many sentences; of equal ones, those that come first.
      lowest: those it responds to least, instead.
      model: of a run, its model, or where it is, if the run's own name for it doesn't load it.
      sentences: of a run, its sentences, or their file, if they aren't where the run's config says.

    Returns:
      A table `response, sentence`, the highest first (with `lowest`, the lowest), with the sentences' numbers as its
      index. Of a run, responses are pooled over tokens as the run's were.

    Raises:
      SelectionError: a unit that wasn't recorded, or that the model doesn't have; several units; a count below 1; a
        model or sentences, and no run.
      ResponsesError: something else than responses, or a run whose sentences or model aren't found.
      RunDirectoryError: a directory that isn't one table's run.
    """
    address, count = one_address(unit), _check_count(count, "sentences")
    if isinstance(responses, str | os.PathLike):
        values, texts = _read_again(epath.Path(responses), unit, model, sentences)
        return _highest(values, texts, count, lowest)
    if model is not None or sentences is not None:
        raise SelectionError("model and sentences are of a run, and no run's directory was given. Leave them out.")
    if isinstance(responses, Trace):
        values, units, texts = responses.pooled(), responses.units, responses.sentences
    elif isinstance(responses, xr.DataArray):
        responses = as_responses(responses)
        values, units, texts = responses.values, responses.units, responses.sentences
    else:
        raise ResponsesError(
            f"a {type(responses).__name__} was given for responses. Give what el.record_responses or el.trace returns, "
            "or the directory of a run; a table of expertise keeps no responses."
        )
    found = _column(units, address, responses.model)
    given = as_rows_of_table(unit)
    if isinstance(given, pd.DataFrame):
        check_same_places(given, units.iloc[[found]], responses.model)
    return _highest(values[:, found], texts, count, lowest)


def _highest(own: np.ndarray, sentences: Sequence[str], count: int, lowest: bool) -> pd.DataFrame:
    """Return the sentences with a unit's highest responses `[sentences]`, or lowest."""
    order = np.argsort(own if lowest else -own, kind="stable")[:count]
    return pd.DataFrame(
        {"response": own[order], "sentence": [sentences[place] for place in order]},
        index=pd.Index(order, name="number"),
    )


def _read_again(
    run: epath.Path,
    unit: Units,
    model: Model | epath.PathLike | None,
    sentences: ConceptDataset | epath.PathLike | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return a unit's responses `[sentences]` to a run's sentences, pooled as the run's were; and the sentences."""
    inner = run / "expertise"
    if not (run / STORE).exists() and inner.is_dir():
        names = listed(sorted(each.name for each in inner.iterdir() if (each / STORE).exists()))
        raise RunDirectoryError(
            f"{run} is a run of several tables, and what a unit responds to is one table's: give {inner / 'NAME'}, of "
            f"{names}."
        )
    expertise = open_expertise(run)
    config = json.loads((run / "config.json").read_text()) if (run / "config.json").exists() else {}
    given = load_given(model, () if sentences is None else (sentences,))
    check_given(given, [expertise])
    concepts, why_not = find_sentences(expertise, given, config, run)
    if concepts is None:
        raise ResponsesError(f"the sentences of {run} aren't found: {why_not}. Give them: sentences=...")
    reader, why_not = find_model(expertise, given, config)
    if reader is None:
        raise ResponsesError(f"{run} can't be read again: {why_not}. Give its model: model=...")
    attributes = expertise.attrs
    pooling, pool_over = str(attributes.get("pooling", "max")), str(attributes.get("pool_over", "all"))
    if pool_over != "all":
        raise ResponsesError(
            f"the responses of {run} are over {pool_over!r} tokens of each concept, so a sentence has none of its own. "
            "Read it whole: el.top_sentences(el.trace(model, sentences, unit), unit)."
        )
    ((layer, site, channel),) = locate_units(reader, unit)[list(ADDRESS)].itertuples(index=False, name=None)
    address = int(layer), str(site), int(channel)
    kept = _kept_response(run.parent / "responses", reader, concepts.sentences, attributes, address)
    if kept is not None:
        return kept, concepts.sentences
    batches, truncate = int(attributes["tokens_per_batch"]), bool(attributes["truncate"])
    seen = trace(reader, concepts.sentences, address, tokens_per_batch=batches, truncate=truncate)
    return seen.pooled(check_pooling(pooling))[:, 0], concepts.sentences


def _kept_response(
    store: epath.Path, model: Model, sentences: Sequence[str], attributes: Mapping[str, Any], address: Address
) -> np.ndarray | None:
    """Return a unit's responses `[sentences]` as experiments keep them beside their tables.

    Return None if they aren't there.
    """
    if not is_local(store) or not store.is_dir():
        return None
    recording = Recording(
        sites=str(attributes["sites"]).split(", "),
        pooling=str(attributes["pooling"]),
        tokens_per_batch=int(attributes["tokens_per_batch"]),
        truncate=bool(attributes["truncate"]),
    )
    prepared = prepare_recording(model, sentences, recording)
    layer, site, channel = (
        prepared.units[name].to_numpy() == part for name, part in zip(ADDRESS, address, strict=True)
    )
    places = np.flatnonzero(layer & site & channel)
    found = ResponseStore(store, read_only=True).find(prepared) if places.size else None
    return None if found is None else found.of_unit(int(places[0]))


def _column(units: pd.DataFrame, address: Address, model: str) -> int:
    """Return where a unit stands among those of some responses."""
    layer, site, channel = address
    at_site = units["site"].to_numpy() == site
    found = np.flatnonzero(at_site & (units["layer"].to_numpy() == layer) & (units["channel"].to_numpy() == channel))
    if found.size:
        return int(found[0])
    if not at_site.any():
        recorded = ", ".join(dict.fromkeys(map(str, units["site"])))
        raise SelectionError(
            f"the unit {format_address(address)} was given, and these responses of {model} are of {recorded}: "
            f"{site} wasn't recorded. Record it, if the model has it: "
            f"el.record_responses(model, sentences, sites=[{site!r}])."
        )
    here = units[at_site]
    raise SelectionError(
        f"the unit {format_address(address)} was given; these responses of {model} have {counted(len(here), 'unit')} "
        f"at {site}, in layers {here['layer'].min()} to {here['layer'].max()} with channels {here['channel'].min()} to "
        f"{here['channel'].max()}, and not this one."
    )


def top_tokens(
    model: Model, sentences: Sequence[str], unit: Units, count: int = 20, *, lowest: bool = False
) -> pd.DataFrame:
    """Return the tokens of sentences at which a unit says most.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> el.top_tokens(model, ["A dog ran.", "A cat sat there."], "L0 attn.v 28", 1)["token"].tolist()
    [' cat']

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      unit: one, as `el.trace` takes them.
      count: how many tokens; of equal ones, those that come first.
      lowest: those at which it says least, instead.

    Returns:
      A table `token, activation, number, start, end, sentence`: the token's text, what is said at it, and the sentence,
      its number, and where in it the token stands. The highest first (with `lowest`, the lowest). What the tokenizer
      adds isn't among them. Of an expert's unit, tokens that aren't routed to it aren't either.

    Raises:
      SelectionError, TokenizationError: see `trace`; or several units, or a count below 1.
    """
    one_address(unit, model.config)
    count = _check_count(count, "tokens")
    seen = trace(model, sentences, unit)
    heard = seen.in_pool
    if seen.reached is not None:
        heard = [own & reached[:, 0] for own, reached in zip(seen.in_pool, seen.reached, strict=True)]
    rows = [
        (text, activation, number, start, end, sentence)
        for number, sentence in enumerate(seen.sentences)
        for text, activation, (start, end), own in zip(
            seen.tokens[number],
            seen.activations[number][:, 0],
            seen.spans[number].tolist(),
            heard[number],
            strict=True,
        )
        if own
    ]
    table = pd.DataFrame(rows, columns=["token", "activation", "number", "start", "end", "sentence"])
    order = np.argsort(table["activation"] if lowest else -table["activation"], kind="stable")[:count]
    return table.iloc[order].reset_index(drop=True)


def _check_count(count: int, what: str) -> int:
    if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 1:
        raise SelectionError(f"count={count!r} was given; wanted a number of {what}, 1 or more.")
    return int(count)
