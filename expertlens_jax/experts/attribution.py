"""Attribution: what the probability of a concept's word, where its sentences have it, owes to each unit.

Average precision tells which units are active at a concept's sentences. Whether the model needs them is another
question, which a gradient asks of all units at once: activation times gradient is, to the first order, what the word's
log-probability loses when the unit is silenced.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.in_place import find_words_in_place
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.fingerprints import digest_concepts
from expertlens_jax.experts.labelled_responses import UNIT_COLUMNS, as_column, as_text
from expertlens_jax.experts.selection import average_precision
from expertlens_jax.models.causal import check_predicts
from expertlens_jax.models.digests import digest_json, digest_tokenizer, digest_tokens
from expertlens_jax.models.gradients import attribute_rows
from expertlens_jax.models.model import Model
from expertlens_jax.models.provenance import differences, read_provenance
from expertlens_jax.models.scoring import tokenize_continuations
from expertlens_jax.models.sites import check_no_summaries, check_sites
from expertlens_jax.models.streaming import check_loaded
from expertlens_jax.models.tokens import batches, padding_id, tokens_per_batch_of
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.units import units_table

Over = Literal["mean", "sum"]
_BACKWARD = 4  # how many times the memory of a forward pass, about, is taken when gradients go back through all layers
_TOKENS_AT_ONE_LENGTH = 8192  # few sentences are padded to one length: a program takes longer to compile than to run


def attribute(
    model: Model,
    concepts: ConceptDataset,
    *,
    expertise: xr.Dataset | None = None,
    sites: Sequence[str] | str | None = None,
    over: Over = "mean",
    whole_word: bool = False,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Attribute the probability of each concept's word, in its own sentences, to the model's units.

    Of every sentence of a concept that has its word after another one, the model reads what stands before the word,
    and log p is the log-probability of the word there. A unit's attribution is gradient times activation,

    \[ \sum_t a_t \, \partial \log p / \partial a_t \]

    summed over the sentence's tokens t: to the first order, what log p loses when the unit is set to 0 at all of them
    (Shrikumar et al. 2016, arXiv 1605.01713; attribution patching from zero). Above 0 the unit speaks for the word,
    below 0 against it. It says what average precision doesn't: not which units know the concept, but which of them the
    word needs.

        expertise = el.attribute(model, concepts, expertise=expertise)
        needed = el.select_experts(expertise, top=50, by="attribution")

    Args:
      model: a causal language model.
      concepts: whose words are read, where a sentence of theirs first has them.
      expertise: a table of the same model and concepts, that is to have attribution beside its other scores; None for
        a table of attribution alone.
      sites: names of sites that hold activations, or one; None for those of the table, or the outputs of linear layers.
      over: "mean" or "sum" over a concept's sentences.
      whole_word: whether log p is of all the word's tokens, each given those before it, or of the first alone. What
        the later ones owe is to spelling more than to the concept.
      tokens_per_batch: about how many tokens, padding included, each device takes at a time; None for a quarter of
        what recording takes, since gradients need what every layer said.
      progress: show a bar of sentences.

    Returns:
      A dataset over (concept, unit): `attribution`, float32, with the units' table and domains as coordinates, beside
      `attributed_sentences` (how many were read) and `word_log_prob` (the mean of log p) of each concept. With
      `expertise`, that table with these added.

    Raises:
      UnsupportedModelError: an encoder, which gives no word a probability.
      ConceptDataError: a concept without a sentence that has its word after another one.
      UnfitConceptsError: a concept without a word.
      SelectionError: a site that holds no activations; a table of another model, of other concepts, or given beside
        sites; or something else over sentences than their mean or sum.
      TokenizationError: as in `record_responses`.

    >>> import expertlens_jax as el
    >>> model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(["cat", "rain"])
    >>> attributed = el.attribute(model, concepts, sites="mlp.act")
    >>> attributed["attribution"].sizes["unit"], attributed["attributed_sentences"].values.tolist()
    (2048, [39, 37])
    >>> el.select_experts(attributed, top=5, by="attribution").sum("unit").values.tolist()
    [5, 5]
    """
    if over not in get_args(Over):
        raise SelectionError(f"over={over!r} was given; wanted one of {', '.join(get_args(Over))}.")
    check_predicts(
        model,
        "and gives a concept's word no probability, so none can be attributed to its units",
        "Give a causal language model; of an encoder, average precision tells which units know a concept.",
    )
    check_loaded(model.params, model.name, "attribution")
    sites, columns = _choose_units(model, concepts, expertise, sites)
    found = find_words_in_place(concepts)
    continued = tokenize_continuations(model, found.beginnings, found.words)
    if not whole_word:
        continued = continued.first_tokens()
    mesh, params = parallel.place(model.params)
    if tokens_per_batch is None:
        tokens_per_batch = max(tokens_per_batch_of(mesh.devices.flat[0].platform) // _BACKWARD, 1)
    longest = max(map(len, continued.tokens.ids))
    units = units_table(model.family, model.config, sites)
    totals = np.zeros((len(concepts.concepts), len(units)))
    log_probs = np.zeros(len(concepts.concepts))
    network = Transformer(model.config, dtype=jnp.dtype(model.dtype))
    with tqdm(total=len(found.words), desc="attributing", unit="sentence", disable=not progress) as bar:
        for batch in batches(
            continued.tokens,
            pad_id=padding_id(model.tokenizer, model.config.vocab_size),
            tokens_per_batch=tokens_per_batch,
            shards=mesh.shape[parallel.DATA],
            rows_multiple=mesh.shape.get(parallel.MODEL, 1),
            least_length=longest if longest * len(found.words) <= _TOKENS_AT_ONE_LENGTH else 1,
        ):
            first = np.array([continued.first[row] for row in batch.rows])
            first = np.pad(first, (0, len(batch.token_ids) - len(first)), mode="edge")
            targets = batch.attention_mask & (np.arange(batch.token_ids.shape[1]) >= first[:, None])
            arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, targets), mesh)
            of_rows, values = map(np.asarray, attribute_rows(network, params, *arrays, sites))
            for place, row in enumerate(batch.rows):
                totals[found.concept[row]] += values[place]
                log_probs[found.concept[row]] += of_rows[place]
            bar.update(len(batch.rows))
    counts = np.bincount(found.concept, minlength=len(concepts.concepts))
    if over == "mean":
        totals /= counts[:, None]
    settings = {"attribution_over": over, "attribution_of": "whole word" if whole_word else "first token"}
    settings |= {"attribution_sentences": concepts.name}
    added = xr.Dataset(
        {"attribution": (("concept", "unit"), totals.astype(np.float32)[:, columns])},
        {
            "attributed_sentences": ("concept", counts),
            "word_log_prob": ("concept", (log_probs / counts).astype(np.float32)),
        },
    )
    if expertise is not None:
        return expertise.assign(added.data_vars).assign_coords(added.coords).assign_attrs(expertise.attrs | settings)
    provenance = dataclasses.replace(
        model.provenance,
        tokenizer=digest_tokenizer(model.tokenizer),
        sites=tuple(sites),
        tokens_per_batch=int(tokens_per_batch),
        sentences_sha256=digest_json(list(concepts.sentences)),
        tokens_sha256=digest_tokens(continued.tokens),
    )
    named = {"concept": as_text(concepts.concepts), "domain": ("concept", as_text(concepts.domains))}
    beside = {name: ("unit", as_column(units[name])) for name in UNIT_COLUMNS if name in units}
    placed = {"unit": np.asarray(units.index)} | beside
    read = {"sentences": concepts.name, "concepts_sha256": digest_concepts(concepts)}
    return added.assign_coords(named | placed).assign_attrs(read | provenance.attributes() | settings)


def _choose_units(
    model: Model, concepts: ConceptDataset, expertise: xr.Dataset | None, sites: Sequence[str] | str | None
) -> tuple[tuple[str, ...], np.ndarray | slice]:
    """Return the sites to attribute to, and which of their units are wanted.

    They are those of the table, in its order, or all.
    """
    if expertise is None:
        given = () if sites is None else (sites,) if isinstance(sites, str) else tuple(sites)
        check_no_summaries(given, "attributed to")
        return check_sites(model.config, sites), slice(None)
    if sites is not None:
        raise SelectionError("sites and a table of expertise were given; its units are those of its own sites.")
    average_precision(expertise)  # that it is such a table
    names = [str(name) for name in expertise["concept"].values]
    if names != list(concepts.concepts):
        raise SelectionError(
            f"the table of expertise has {counted(len(names), 'concept')}, such as {names[0]!r}, and {concepts.name!r} "
            f"has {len(concepts.concepts)}, such as {concepts.concepts[0]!r}: give the same, in the same order "
            "(concepts.subset(...), expertise.sel(concept=...))."
        )
    table = read_provenance(expertise.attrs)
    named = str(expertise.attrs.get("model", model.name))
    why = "by their names" if table is None and named != model.name else ""
    if table is not None and not table.same_model(model.provenance):
        why = differences(table, model.provenance, model_only=True)
    if why:
        raise SelectionError(
            f"the table of expertise is of {named}, and {model.name} was given, which is another model ({why}). "
            f"Measure a table of {model.name}."
        )
    check_no_summaries(map(str, expertise["site"].values), "attributed to")
    sites = check_sites(model.config, list(dict.fromkeys(map(str, expertise["site"].values))))
    units = units_table(model.family, model.config, sites)
    address = ["layer", "site", "channel"]
    places = pd.Series(range(len(units)), pd.MultiIndex.from_frame(units[address].astype({"site": str})))
    wanted = zip(*(expertise[name].values.tolist() for name in address), strict=True)
    return sites, places.loc[list(wanted)].to_numpy()
