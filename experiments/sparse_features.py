"""Are the experts among a model's units better than the features of a sparse autoencoder?

Claim (Fedzechkina et al. 2026): expert units align with human judgement better than the features of sparse
autoencoders. The claim would be refuted if experts among the features of an autoencoder align as well as experts among
as many units of the same layers. The numbers must be equal, because the best of many is better by chance. Random twins
show whether the result comes from what the autoencoder learned: one has a frozen random decoder, one a frozen random
encoder, and one is of the same network with random weights (arXiv 2602.14111 asks whether any does better than these).

    python -m experiments.sparse_features --config=configs/demo.py --workdir=runs/sparse_features

The autoencoders are trained here, on the sentences or on `sparse_features.texts`; or the model's own are given in
`sparse_features.saes`, and then there are no twins. Experts are found in each sentence set; the best unit or feature of
one set detects its concept in the other.

Writes into the run directory `sparse_features.csv` (a row per source, selection and statistic: alignment, detection,
stability, with intervals and chance levels, and by how much units and features are ahead), `autoencoders.csv` (what
each explains, how sparsely, how many features are dead, how much of the loss it recovers), the figure
`sparse_features`, and the autoencoders, as `el.load_sae` and SAELens read them, in `saes/`. Tables of expertise lie in
`expertise/`; killed and started again, it goes on where it was.
"""

import dataclasses

import ml_collections
import pandas as pd
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.conditions.equal_counts import compare_at_equal_counts, make_sources
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.sparse_features_findings import conclude, tell

from .autoencoders import carrying_models, check, check_model
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    settings, features, qualities = config.sparse_features, {}, []
    for name, (model, trained) in carrying_models(this).items():
        features[name] = {concepts.name: this.features(model, concepts) for concepts in this.datasets}
        for each in trained:
            quality = dataclasses.asdict(each.quality) | {"dead_share": each.dead_share}
            qualities.append({"source": name, "layer": each.sae.layer, "site": each.sae.site, **quality})
    layers = sorted({sae.layer for sae in model.saes})
    units = {concepts.name: this.expertise(this.model, concepts) for concepts in this.datasets}
    units = {name: table.isel(unit=table["layer"].isin(layers).values) for name, table in units.items()}
    compared = make_sources(features, units, draws=settings.draws, seed=config.seed)
    for source in compared:
        if source.silent:
            print(f"{source.silent} features of {source.name} say nothing in any sentence, and are left out")
    table = compare_at_equal_counts(
        compared, this.ratings, threshold=config.drawn_threshold, top=settings.top, **this.resampling
    )
    autoencoders = pd.DataFrame(qualities)
    this.write({"sparse_features": table, **({"autoencoders": autoencoders} if qualities else {})})
    this.draw("sparse_features", plot.sparse_features(table))
    return this.finish(tell(table, autoencoders), conclude(table, autoencoders))


if __name__ == "__main__":
    launch(run)
