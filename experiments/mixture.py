"""Do a mixture's experts divide concepts among them, and does the router know which concept it is?

Claim: in a mixture of experts, of whose MLPs the router chooses some at each token, a concept's units are together in
few of the mixture's experts, and these are chosen because the router's logits tell the concept. Authors of mixtures
disagree: OLMoE's experts are said to specialise in domains and in words (Muennighoff et al. 2024, arXiv 2409.02060),
Mixtral's not in topics (Jiang et al. 2024, arXiv 2401.04088). It would be refuted if two of a concept's experts were in
one of the mixture's no oftener than any two units of their layer (chance, 1), or no oftener than two on concepts of
different domains; and by logits, for what holds a concept's experts, that tell it no better than all others of their
layers. The same network with random weights stands beside it: a router that knows nothing sends a word the same way
each time, which alone brings the units that know it together.

    python -m experiments.mixture --config=configs/mixture.py:olmoe --workdir=runs/mixture

The model must be a mixture of experts; any other is refused at the start. Experts are those at `drawn_threshold`. With
several sentence sets, the scores of the router are those in the next set. Writes into the run directory `together.csv`
(a row per sentence set, weights, layer and kind of pair: how many times as often as by chance two experts are in one of
the mixture's, with its 95% interval over concepts, and the lead of one concept's; "all" where layers are pooled),
`router.csv` (a row per sentence set and weights), `mixture.csv` (of the model itself, a row per sentence set, concept,
layer and expert of the mixture: how many of the concept's experts it holds, and what its logit scores), and figures
`together` and `mixture_SET`. Tables of expertise lie in `expertise/`; killed and started again, it goes on where it
was.
"""

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.localisation_findings import TRAINED
from expertlens_jax.report.mixture_findings import conclude, tell

from .checks import check_mixture as check
from .checks import check_mixture_model as check_model
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    threshold, tables = config.drawn_threshold, Tables()
    for weights, model in this.by_weights(config.random_weights):
        expertise = [this.expertise(model, concepts) for concepts in this.datasets]
        for i, concepts in enumerate(this.datasets):
            held_out = expertise[(i + 1) % len(expertise)] if len(expertise) > 1 else None
            found = el.analysis.mixture(expertise[i], threshold=threshold, held_out=held_out, **this.resampling)
            for name, part in found.tables.items():
                tables.add(name, part, sentences=concepts.name, weights=weights)
            if weights == TRAINED:
                tables.add("mixture", found.table, sentences=concepts.name)
                if found.figures:
                    this.draw(f"mixture_{concepts.name}", found.plot())
    this.write(joined := tables.joined())
    this.draw("together", plot.together(joined["together"], joined["router"]))
    return this.finish(tell(joined), conclude(joined, threshold=threshold))


if __name__ == "__main__":
    launch(run)
