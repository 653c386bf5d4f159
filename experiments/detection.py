"""Do experts tell a concept's sentences from others in new text, and does anything else do it better?

Claim: an expert is a detector. It is chosen by how well it tells a concept's sentences from others (Suau et al. 2022),
so it should do so in sentences that it wasn't chosen by. AxBench (arXiv 2501.17148) and Kantamneni et al. (arXiv
2502.16681) ask for comparisons. The claim would be refuted if a difference of means, a linear probe or a bag of words
does better with the same sentences. It would also be refuted if experts fall to chance where the concept's word is
masked: then they know the word alone.

    python -m experiments.detection --config=configs/demo.py --workdir=runs/detection

All detectors (`detection.detectors`, names in `el.DETECTORS`; () for all that can be read) learn from the same
sentences and are tried on others: of one sentence set on another, of either half of a set on its other half, and on the
other set with each concept's word replaced by the config's `masked`. Concepts are `detection.concepts`, drawn domain by
domain; 0 takes all. Units are pooled by maximum over tokens, and the residual stream is scored at its highest token.

Writes into the run directory `detection.csv` (a row per train and test set, detector, number of positives, label noise,
measure and base rate, with its interval over concepts and chance), `comparisons.csv` (the top experts against each
other detector, paired by concept), `concepts.csv` (each number by concept), `shares.csv` (how much of a difference of
means over all units lies in the experts), and the figures `detection` and `examples`.
"""

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.detecting.readings import read_once
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.detection_findings import conclude, tell

from .detectors import check, check_model, examples_of, find_pairs
from .expertise import read_recording
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    settings, pairs = config.detection, find_pairs(config, this.datasets)
    model, names = check_model(config, this.datasets, this.model)
    embedder = this.named_model(settings.embedder) if settings.embedder else None
    every = [concepts for pair in pairs for concepts in (pair.train, pair.test)]
    read = read_once(model, every, recording=read_recording(config), embedder=embedder)
    tables = Tables()
    for pair in pairs:
        print(f"Learning from {pair.train.name}, trying on {pair.test.name}", flush=True)
        found = el.analysis.detection(
            read,
            pair.train,
            pair.test,
            detectors=names,
            negatives_per_positive=tuple(settings.negatives_per_positive),
            training_negatives=settings.training_negatives,
            **examples_of(config, pair.kind, pairs[0].kind),
            **this.resampling,
        )
        for name, table in {"detection": found.table, **found.tables}.items():
            tables.add(name, table, kind=pair.kind)
    this.write(joined := tables.joined())
    this.draw("detection", plot.detection(joined["detection"]))
    this.draw("examples", plot.detection_examples(joined["detection"]))
    return this.finish(tell(joined), conclude(joined))


if __name__ == "__main__":
    launch(run)
