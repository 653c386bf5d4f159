"""Are experts of the concept, or of the word?

Claim: experts are of the concept rather than of the word. Sentences of a concept share its word, so what looks like an
expert on "bat" may be one on three letters. It would be refuted by expert sets of one word in two senses (the animal,
the club) that overlap more than those of two words for one sense (bat, pipistrelle), over many such words. The same
network with random weights, TF-IDF of the sentences and embeddings of the same model stand beside; and experts found at
the tokens of the word alone, which must read the sense off what was before, and at all other tokens, which don't hold
it.

    python -m experiments.senses --config=configs/demo.py --workdir=runs/senses

The sentences are `senses.sentences`, a set with words in several senses, whatever the suite's others are. Writes into
the run directory `senses.csv` (a row per sentence set, measure and kind of pair: mean overlap and its 95% interval over
words), `differences.csv` (kinds compared word by word: difference, share of words, p), `homographs.csv` (a row per word
and kind) and the figures `senses_SET`. Between halves of the sentences there is the same word in the same sense too.
Tables of expertise lie in `expertise/`; killed and started again, it goes on where it was.
"""

from collections.abc import Sequence

import ml_collections
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.analysis.similarity.baselines import cosine_of_embeddings, tfidf_similarity
from expertlens_jax.analysis.similarity.control_tables import OWN_TOKENS
from expertlens_jax.analysis.similarity.embeddings import concept_embeddings
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.senses_findings import conclude, experts_name, tell

from .baselines import check_tokens
from .checks import check_senses as check
from .launch import launch
from .run import Run, start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    threshold = config.drawn_threshold
    tables = Tables()
    for name in config.senses.sentences:
        concepts = el.load_concepts(name)
        expertise = this.expertise(this.model, concepts, halves=True)
        others = controls(this, concepts, expertise)
        found = el.analysis.senses(expertise, concepts, others, threshold=threshold, **this.resampling)
        own = f"Overlap of experts (jaccard, τ = {threshold:g})"
        for table, part in {"senses": found.table, **found.tables}.items():
            part = part.assign(measure=part["measure"].str.replace(own, experts_name(threshold), regex=False))
            tables.add(table, part, sentences=concepts.name)
        this.draw(f"senses_{concepts.name}", found.plot())
    this.write(joined := tables.joined())
    return this.finish(tell(joined), conclude(joined, threshold=threshold))


def check_model(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check that the tokenizer tells each word of these sentences from the rest, if that is asked."""
    del datasets
    asked = ml_collections.ConfigDict({"own_tokens": config.senses.tokens, "truncate": config.truncate})
    check_tokens(asked, [el.load_concepts(name) for name in config.senses.sentences], model)


def controls(this: Run, concepts: el.ConceptDataset, expertise: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the similarities that stand beside that of the experts, by name."""
    config, drawn = this.config, this.config.drawn_threshold
    found = {}
    for threshold in config.thresholds:
        if threshold != drawn:
            found[experts_name(threshold)] = el.jaccard(el.select_experts(expertise, threshold=threshold))
    for name, pool_over in OWN_TOKENS.items() if config.senses.tokens else ():
        table = this.expertise(this.model, concepts, pool_over=pool_over)
        at = {"own_tokens": "at the word's own tokens", "other_tokens": "at all other tokens"}[name]
        found[f"experts {at}, τ = {drawn:g}"] = el.jaccard(el.select_experts(table, threshold=drawn))
    for seed in config.random_weights:
        random = this.expertise(this.random_model(seed), concepts)
        found[f"random weights {seed}, τ = {drawn:g}"] = el.jaccard(el.select_experts(random, threshold=drawn))
    by_layer = concept_embeddings(this.model, concepts, truncate=config.truncate)
    by_layer = by_layer - by_layer.mean(1, keepdims=True)  # what all concepts have in common
    for layer in sorted({0, len(by_layer) // 2, len(by_layer) - 1}):
        found[f"embeddings of the sentences, layer {layer}"] = cosine_of_embeddings(by_layer[layer], concepts)
    return found | {"TF-IDF of the sentences": tfidf_similarity(concepts)}


if __name__ == "__main__":
    launch(run)
