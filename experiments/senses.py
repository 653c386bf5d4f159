"""Are experts of the concept, or of the word?

Claim: experts are of the concept rather than of the word. Sentences of a concept share its word, so what looks like an
expert on "bat" may be one on three letters. The claim would be refuted if the expert sets of one word in two senses
(the animal, the club) overlap more than those of two words for one sense (bat, pipistrelle), over many such words. The
table also has the same network with random weights, TF-IDF of the sentences, and embeddings of the same model. It has
experts found at the tokens of the word alone, which can only know the sense from the text before; and at all other
tokens, which don't hold the word.

    python -m experiments.senses --config=configs/demo.py --workdir=runs/senses

The sentences are `senses.sentences`, a set with words in several senses. The suite's other sets aren't read. Writes
into the run directory `senses.csv` (a row per sentence set, measure and kind of pair: mean overlap and its 95% interval
over words), `differences.csv` (kinds compared word by word: difference, share of words, p), `homographs.csv` (a row per
word and kind) and the figures `senses_SET`. Between halves of the sentences there is the same word in the same sense
too. Tables of expertise lie in `expertise/`; killed and started again, it goes on where it was.
"""

from collections.abc import Sequence

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax.analysis.similarity.beside_experts import experts_name, similarities_for_senses
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.senses_findings import conclude, tell

from .baselines import check_tokens
from .checks import check_senses as check
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    threshold = config.drawn_threshold
    tables = Tables()
    for name in config.senses.sentences:
        concepts = el.load_concepts(name)
        expertise = this.expertise(this.model, concepts, halves=True)
        others = similarities_for_senses(
            this.model,
            concepts,
            expertise,
            this.expertise,
            thresholds=config.thresholds,
            threshold=threshold,
            tokens=config.senses.tokens,
            random_weights=config.random_weights,
            truncate=config.truncate,
        )
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


if __name__ == "__main__":
    launch(run)
