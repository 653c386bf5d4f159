"""The card of a repository of the hub that holds a table of expertise or a steering: what it is of, in plain words."""

import html
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import xarray as xr
from huggingface_hub import constants

from expertlens_jax.cards import counted, listed
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.selection import average_precision, negatives_of, select_experts
from expertlens_jax.experts.steering import METHODS
from expertlens_jax.experts.table import PACKED
from expertlens_jax.models.hub import REPOSITORY
from expertlens_jax.models.packaged import packaged_models
from expertlens_jax.models.provenance import Provenance, read_provenance
from expertlens_jax.models.sites import check_no_summaries, in_block_order
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.steering_files import STEERING

FIGURE = "experts.png"
SHOWN = 20
"""Concepts that have a row in a card."""

METHOD_TEXTS = {
    "set_median": "a unit says the median of what it says at the concept's sentences (Suau et al. 2022)",
    "set_p90": "a unit says the 90th percentile of what it says at the concept's sentences (Suau et al. 2022)",
    "zero": "a unit says 0 (Det-0; Suau et al. 2024)",
    "aura": "a unit is damped by how well it detects the concept, by AUROC (AurA; Suau et al. 2024)",
    "aura_ap": "a unit is damped by how well it detects the concept, by average precision",
    "mean_shift": "a unit is shifted from its mean at other sentences to its mean at the concept's",
    "linear_ot": "a unit is mapped from other sentences to the concept's by linear transport (Rodriguez et al. 2025)",
}

CITE = """If you use this, please cite expertlens_jax and the papers whose method it implements:

- Fedzechkina et al. 2025, ExpertLens, [arXiv 2502.15090](https://arxiv.org/abs/2502.15090);
- Suau, Zappella and Apostoloff 2022, [Self-conditioning Pre-Trained Language
  Models](https://proceedings.mlr.press/v162/cuadros22a.html), PMLR 162.

```bibtex
@article{fedzechkina2025expertlens,
  title  = {Analyze the Neurons, not the Embeddings: Understanding When and Where {LLM} Representations Align with
            Humans},
  author = {Fedzechkina, Masha and others},
  year   = {2025},
  url    = {https://arxiv.org/abs/2502.15090}
}
```"""


def front_matter(
    kind: str, model: str, *, base_model: str | None, license: str | None, datasets: Sequence[str]
) -> dict[str, Any]:
    """Return what the hub reads of a card: a mapping that becomes its YAML.

    Args:
      kind: "expertise" or "steering".
      model: its name; one with an owner is taken for a repository's id.
      base_model: the model's id on the hub, if its name isn't that.
      license: of what is pushed, if it was said.
      datasets: ids of the sentences' datasets on the hub, if there are any.
    """
    name = model.partition("@")[0]
    return {
        "base_model": base_model or (name if REPOSITORY.fullmatch(name) else None),
        "datasets": list(datasets) or None,
        "library_name": "expertlens_jax",
        "license": license,
        "tags": ["expertlens", kind, "interpretability", "activation-steering"],
    }


def write_expertise_card(
    expertise: xr.Dataset, repo: str, revision: str | None, *, threshold: float, about: str = "", **front: Any
) -> str:
    """Return the card of a table of expertise, in Markdown. It has no sentences.

    Args:
      expertise: the table.
      repo: the repository's id, for the example.
      revision: the branch, unless it is the main one.
      threshold: of average precision, from which on units are counted as experts.
      about: a paragraph of the author's.
      **front: see `front_matter`.

    >>> import xarray as xr, numpy as np
    >>> precision = np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32)
    >>> units = {"layer": [0, 0, 1], "site": ["mlp.up", "mlp.up", "mlp.up"], "channel": [0, 1, 0]}
    >>> table = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), precision)},
    ...     {"concept": ["cat", "dog"], "unit": [0, 1, 2], **{name: ("unit", each) for name, each in units.items()}},
    ...     {"model": "someone/tiny"},
    ... )
    >>> card = write_expertise_card(table, "me/experts", None, threshold=0.5)
    >>> print("\\n".join(line for line in card.splitlines() if line.startswith("| cat")))
    | cat | ? | ? | ? | 2 | mlp.up, layer 0, channel 0 | 0.900 |
    """
    precision = average_precision(expertise)
    attributes, read = expertise.attrs, read_provenance(expertise.attrs)
    model = str(attributes.get("model", "an unnamed model"))
    names = [str(name) for name in expertise["concept"].values]
    units = expertise.sizes["unit"]
    experts = select_experts(expertise, threshold).transpose("concept", "unit").values
    base_rate = _span(_of_concepts(expertise, "base_rate"), "{:.3g}")
    per_concept = experts.sum(axis=1)

    parts = [
        _yaml(front_matter("expertise", model, **_front(front))),
        f"# Expertise of the units of {_text(model)} on {counted(len(names), 'concept')}",
        "A table of *expertise*: how well each unit (neuron) of a language model tells sentences with a concept from "
        "sentences without it, by the unit's response alone. Expertise is the average precision of the response: 1 is "
        "a unit that tells them apart without a fault; a unit that knows nothing has the base rate"
        + (f", which is {base_rate} here." if base_rate else "."),
        about,
        "## Model",
        _facts(_model_facts(model, read)),
        "## Data",
        _facts(
            {
                "Concepts": f"{len(names)}: {_text(listed(names))}",
                "Sentence set": _code(attributes.get("sentences", "")),
                "Positive sentences of a concept": _span(_of_concepts(expertise, "num_positives")),
                "Negative sentences of a concept": _span(_of_concepts(expertise, "num_negatives")),
                "Digest of the sentences": _code(read.sentences_sha256 if read else ""),
                "Digest of concepts and labels": _code(attributes.get("concepts_sha256", "")),
            }
        ),
        "The sentences themselves are not in this repository.",
        "## Settings",
        _facts(_reading_facts(read, expertise) | _negatives_facts(expertise) | {"Base rate": base_rate}),
        "## Figures",
        f"At the threshold τ = {threshold:g}, {int(experts.any(axis=0).sum()):,} of {units:,} units are experts on one "
        f"or more of the concepts. A concept has {per_concept.mean():,.1f} experts on average (median "
        f"{np.median(per_concept):,g}, {per_concept.min():,} to {per_concept.max():,}).",
        f"![Where the experts are, by layer and site]({FIGURE})" if can_be_drawn(expertise) else "",
        _best_units(expertise, precision.transpose("concept", "unit").values, per_concept),
        f"The first {SHOWN} of {len(names)} concepts." if len(names) > SHOWN else "",
        "## Use",
        _block(
            "import expertlens_jax as el",
            "",
            f"expertise = el.open_expertise({_call(repo, revision)})",
            f"experts = el.select_experts(expertise, threshold={threshold:g})",
            *([f"print(el.top_experts(expertise, {_quoted(names[0])}, 5))"] if _are_placed(expertise) else []),
            *(
                [
                    "",
                    load,
                    f"steering = el.steer(expertise, {_quoted(names[0])}, top={min(5, units)})",
                    *_steered(read),
                ]
                if (load := _load(model, read)) and _can_be_steered(expertise)
                else []
            ),
        ),
        f"The table is `{PACKED}`, an xarray dataset in zarr's third format. {_versions(read)}",
        "## Cite",
        CITE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_steering_card(steering: Steering, repo: str, revision: str | None, *, about: str = "", **front: Any) -> str:
    """Return the card of a steering, in Markdown. It has no sentences.

    Args:
      steering: of any units.
      repo: the repository's id, for the example.
      revision: the branch, unless it is the main one.
      about: a paragraph of the author's.
      **front: see `front_matter`.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> silence = el.steer_units(model, model.units.head(2), label="silence")
    >>> print(write_steering_card(silence, "me/silence", None).split("## Units")[1].splitlines()[2].partition(". ")[0])
    2 units are changed, at attn.q
    """
    read, maps = steering.provenance, steering.table
    scale, shift = (maps[name].to_numpy() for name in ("scale", "shift"))
    table = maps.drop_duplicates(["layer", "site", "channel"])  # a unit may have a map at some tokens, and another
    set_to, shifted = int((scale == 0).sum()), int(((scale == 1) & (shift != 0)).sum())
    scaled = int(((scale != 0) & (scale != 1)).sum())
    learned = read is not None and bool(read.pooling)
    parts = [
        _yaml(front_matter("steering", steering.model, **_front(front))),
        f"# A steering of {_text(steering.model)}: {_text(steering.label or 'by hand')}",
        "A *steering* changes what some units (neurons) of a language model say, while the model reads or writes.",
        about,
        "## What it does",
        _facts({"Label": _text(steering.label or "none; made by hand")} | _said(steering.label) | _when(steering)),
        "## Units",
        f"{counted(len(table), 'unit')} {'is' if len(table) == 1 else 'are'} changed, at "
        f"{listed(in_block_order(table['site']), 30)}. Each unit's activation x becomes `x * scale + shift` at every "
        f"token{' where the steering applies' if _when(steering) else ''}. Of the maps, {set_to:,} set a unit to a "
        f"value, {shifted:,} shift it, and {scaled:,} scale it.",
        _by_place(table),
        _by_expert(table),
        "## Model",
        _facts(
            _model_facts(steering.model, read) | {"Meant for the model with the digest": _code(steering.transferred_to)}
        ),
        "## Learned from",
        _facts(
            _reading_facts(read, None)
            | {
                "Digest of the sentences": _code(read.sentences_sha256),
                "Digest of the tokens": _code(read.tokens_sha256),
            }
        )
        if learned and read is not None
        else "The steering doesn't say which sentences its numbers are from: it was made by hand, learned by "
        "gradients, or joined of several.",
        "The sentences themselves are not in this repository.",
        "## Use",
        _block(
            "import expertlens_jax as el",
            "",
            f"steering = el.load_steering({_call(repo, revision)})",
            "print(steering.table)",
            *(["", load, *_steered(read)] if (load := _load(steering.model, read)) else []),
        ),
        "`steering.at_strength(0.5)` weakens it, and `steering.to_torch(hf_model)` applies it to a PyTorch model. "
        "Given to another model than the one above, it warns.",
        f"The steering is `{STEERING}`. {_versions(read)}",
        "## Cite",
        CITE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def can_be_drawn(expertise: xr.Dataset) -> bool:
    """Return whether a table says where its units are, so that its experts can be drawn by layer and site."""
    return {"layer", "site"} <= {*expertise.coords}


def _are_placed(expertise: xr.Dataset) -> bool:
    return {"unit", "layer", "site", "channel"} <= {*expertise.coords}


def _can_be_steered(expertise: xr.Dataset) -> bool:
    """Return whether the experts of a table can be set to what they say: not so lengths of heads, or SAEs' features."""
    if not _are_placed(expertise) or "positive_median" not in expertise:
        return False
    try:
        check_no_summaries(str(site) for site in expertise["site"].values)
    except SelectionError:
        return False
    return True


def _front(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"base_model": None, "license": None, "datasets": ()} | dict(given)


def _yaml(matter: Mapping[str, Any]) -> str:
    return f"---\n{huggingface_hub.ModelCardData(**matter).to_yaml()}\n---"


def _model_facts(model: str, read: Provenance | None) -> dict[str, str]:
    name, _, revision = model.partition("@")
    link = f"[{_text(name)}]({constants.ENDPOINT}/{name})" if REPOSITORY.fullmatch(name) else _text(name)
    ships = f"{link}, which ships with expertlens_jax" if name in packaged_models() else link
    facts = {"Name": ships, "Revision": _text(revision)}
    if read is None:
        return facts | {"Digest": "not known: the responses don't say which network they are of"}
    return facts | {
        "Digest (`model.digest`)": _code(read.model_digest),
        "Digest of its weights": _code(read.weights),
        "Computed in": read.dtype,
        "Steered while it read": _text(read.steering),
        "Sparse autoencoders": _text(read.saes),
    }


def _reading_facts(read: Provenance | None, expertise: xr.Dataset | None) -> dict[str, str]:
    facts: dict[str, str] = {}
    if expertise is not None:
        facts["Units"] = f"{expertise.sizes['unit']:,}"
        if "site" in expertise.coords:
            facts["Sites"] = listed(dict.fromkeys(str(site) for site in expertise["site"].values), 30)
    if read is None:
        return facts
    over = {"all": "all of a sentence's own tokens"}.get(read.pool_over, f"{read.pool_over} (`pool_over`)")
    return (
        {"Sites": listed(read.sites, 30)}
        | facts
        | {
            "Response of a unit": f"{read.pooling} of its activation over {over}",
            "Chat": _code(read.chat),
            "Rounded": f"to {read.significant_bits} significant bits" if read.significant_bits else "",
            "Long sentences": "cut off at the model's context" if read.truncate else "",
        }
    )


def _negatives_facts(expertise: xr.Dataset) -> dict[str, str]:
    if "negatives_per_positive" not in expertise.attrs:
        return {}
    first, *others = negatives_of(expertise)
    how = (
        f"drawn, {first.per_positive:g} for each positive (seed {first.seed})"
        if first.sampled
        else f"all, weighted to {first.per_positive:g} for each positive"
    )
    how += ", without sentences that mention the concept's word" if first.exclude_mentions else ""
    also = "; ".join(f"{each.per_positive:g} for each positive" for each in others)
    return {"Negatives": how, "Measured with other negatives too": also}


def _best_units(expertise: xr.Dataset, precision: np.ndarray, experts: np.ndarray) -> str:
    """Return a table of the first concepts: how many sentences and experts each has, and its best unit."""
    columns = {name: _of_concepts(expertise, name) for name in ("num_positives", "num_negatives", "base_rate")}
    rows = []
    for row, concept in enumerate(expertise["concept"].values[:SHOWN]):
        best = int(np.argmax(precision[row]))
        counts = [f"{each[row]:.3g}" if each is not None else "?" for each in columns.values()]
        rows.append(
            [_text(concept), *counts, f"{experts[row]:,}", _place(expertise, best), f"{precision[row, best]:.3f}"]
        )
    head = ["Concept", "Positives", "Negatives", "Base rate", "Experts", "Best unit", "Its expertise"]
    return _rows(head, rows)


def _place(expertise: xr.Dataset, unit: int) -> str:
    own = expertise.isel(unit=unit)
    if not _are_placed(expertise):
        return f"unit {own['unit'].item()}" if "unit" in expertise.coords else f"unit {unit}"
    of_expert = f" (expert {own['expert'].item()})" if "expert" in own.coords and own["expert"].item() >= 0 else ""
    return f"{own['site'].item()}, layer {own['layer'].item()}, channel {own['channel'].item()}{of_expert}"


def _of_concepts(expertise: xr.Dataset, name: str) -> np.ndarray | None:
    return np.asarray(expertise[name].values) if name in expertise.coords else None


def _span(values: np.ndarray | None, form: str = "{:,}") -> str:
    """Return a number, or the least and the highest."""
    if values is None:
        return ""
    low, high = form.format(values.min()), form.format(values.max())
    return low if low == high else f"{low} to {high}"


def _said(label: str) -> dict[str, str]:
    """Return the concept, method and strength that the label of a steering names, if `el.steer` wrote it."""
    strength, _, rest = label.partition(" of ") if re.match(r"-?\d[\d.e+-]* of ", label) else ("1", "", label)
    said = [re.fullmatch(r"(?P<concept>.+), (?P<method>\w+|along [^,]+)", each) for each in rest.split("; ")]
    methods = {each["method"] for each in said if each is not None}
    if None in said or len(methods) != 1:
        return {}
    (method,) = methods
    if method not in METHODS and not method.startswith("along "):
        return {}
    return {
        "Concepts" if len(said) > 1 else "Concept": _text("; ".join(each["concept"] for each in said if each)),
        "Method": f"`{method}`: {METHOD_TEXTS[method]}" if method in METHODS else f"moved {_text(method)}",
        "Strength": strength,
    }


def _when(steering: Steering) -> dict[str, str]:
    """Return at which tokens a steering applies, if not at all of them."""
    when = steering.when
    each = when if isinstance(when, tuple) else (when,)
    said = "; then ".join("at every token" if one is None else f"only {one}" for one in each)
    return {} if when is None else {"Applies": _text(said)}


def _by_place(table: pd.DataFrame) -> str:
    counts = pd.crosstab(table["layer"], table["site"])
    counts = counts[in_block_order(counts.columns)]
    return _rows(["Layer", *counts.columns], [[str(layer), *map(str, row)] for layer, row in counts.iterrows()])


def _by_expert(table: pd.DataFrame) -> str:
    """Return how many units of each of a mixture's experts there are; "" where none is an expert's."""
    within = table[table["expert"] >= 0] if "expert" in table else table[:0]
    if within.empty:
        return ""
    counts = pd.crosstab(within["expert"], within["site"])
    counts = counts[in_block_order(counts.columns)]
    return "Of the mixture's experts:\n\n" + _rows(
        ["Expert", *counts.columns], [[str(expert), *map(str, row)] for expert, row in counts.iterrows()]
    )


def _load(model: str, read: Provenance | None) -> str:
    """Return the line that loads a model, if its name may be what `el.load_model` takes; else ""."""
    name, _, revision = model.partition("@")
    if name not in packaged_models() and REPOSITORY.fullmatch(name) is None:
        return ""
    dtype = f", dtype={_quoted(read.dtype)}" if read is not None and read.dtype != "float32" else ""
    return f"model = el.load_model({_call(name, revision or None)}{dtype})"


def _steered(read: Provenance | None) -> list[str]:
    """Return a line that uses `model` and `steering`; of a model that may not write, one that reads."""
    config = json.loads(read.config) if read is not None else {}
    if read is not None and config.get("causal", True) and config.get("head", "tied") is not None:
        return ['print(el.generate(model, "Once upon a time", steering=steering))']
    return ['output = model(model.tokenizer(["Once upon a time"])["input_ids"], steering=steering)']


def _call(repo: str, revision: str | None) -> str:
    return _quoted(repo) if revision is None else f"{_quoted(repo)}, revision={_quoted(revision)}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _versions(read: Provenance | None) -> str:
    own = importlib.metadata.version("expertlens-jax")
    made = f"Measured with expertlens_jax {read.package}, numbers of version {read.numbers_version}. " if read else ""
    return f"{made}Pushed with expertlens_jax {own}."


def _block(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def _facts(facts: Mapping[str, str]) -> str:
    return _rows(["", ""], [[name, value] for name, value in facts.items() if value])


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def _text(value: object) -> str:
    """Return a text on one line, in which Markdown and HTML find nothing of theirs."""
    plain = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", plain)


def _code(value: object) -> str:
    plain = " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`" if plain else ""
