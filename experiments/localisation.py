"""Where in a model are the experts, and does that move as they become more specialised?

Claim (Fedzechkina et al. 2025): experts are not spread evenly over a model; as the threshold on their average
precision rises they move toward early MLP layers, and attention's experts split between early and late ones. It would
be refuted by an enrichment whose intervals hold 1 everywhere, by MLP experts that get no earlier as the threshold rises
(a change of depth whose interval holds 0, or is above it), and by an attention whose ends never hold more of its
experts than its middle (a bimodality of at most 1). The same network with random weights stands beside it: what it
shows comes of the architecture and of the words, not of what the model learned.

    python -m experiments.localisation --config=configs/demo.py --workdir=runs/localisation

Writes into the run directory `localisation.csv` (a row per sentence set, weights, threshold, domain of concepts, and
layer and site: experts, enrichment over an even spread with its 95% interval over concepts; "all" where layers, sites
or domains are pooled), `depth.csv` (mean depth and bimodality of each kind of block's experts by threshold), and, a
sentence set each, the figures `enrichment_SET`, `domains_SET` and `depth_SET`. Tables of expertise lie in `expertise/`;
killed and started again, it goes on where it was.
"""

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.structure.localisation import ALL
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.localisation_findings import TRAINED, conclude, tell

from .checks import check_localisation as check
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check)
    seeds = config.random_weights if config.localisation.controls else ()
    tables = Tables()
    for concepts in this.datasets:
        for weights, model in this.by_weights(seeds):
            expertise = this.expertise(model, concepts)
            found = el.analysis.localisation(expertise, thresholds=config.thresholds, **this.resampling)
            layers = len(set(expertise["layer"].values.tolist()))
            tables.add("localisation", found.table, sentences=concepts.name, weights=weights)
            tables.add("depth", found.tables["depth"].assign(layers=layers), sentences=concepts.name, weights=weights)
    this.write(joined := tables.joined())
    places, depth = joined["localisation"], joined["depth"]
    for concepts in this.datasets:
        here = places[(places["sentences"] == concepts.name) & (places["weights"] == TRAINED)]
        this.draw(f"enrichment_{concepts.name}", plot.enrichment(here[here["domain"] == ALL]))
        drawn = here[here["threshold"] == config.drawn_threshold]
        this.draw(f"domains_{concepts.name}", plot.domain_enrichment(drawn))
        this.draw(f"depth_{concepts.name}", plot.depth(depth[depth["sentences"] == concepts.name]))
    return this.finish(tell(places, depth, config.drawn_threshold), conclude(depth))


if __name__ == "__main__":
    launch(run)
