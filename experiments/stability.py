"""Does a concept have the same experts whatever sentences, negatives or model they are found with?

Claim (Fedzechkina et al. 2025): experts are properties of the model's concepts, not of the sentences: sets of sentences
written by different authors find much the same ones, and arrange concepts alike. The claim would be refuted if the
overlap matrices of two sentence sets don't correlate (Mantel's test), or correlate no more than in the same network
with random weights; if a concept's expert sets under two conditions share no more than those of different concepts; or
if a concept can't be told by its expert set better than by chance.

    python -m experiments.stability --config=configs/demo.py --workdir=runs/stability

What is compared with what: `sentences`, each pair of sentence sets; `random weights`, the same in a network that
learned nothing; `halves`, the experts of either half of each set; `fewer`, two draws of `stability.counts` sentences a
concept that share none (where there are enough), and draws of two sentence sets; `seeds`, negatives drawn with each of
`stability.seeds`; `models`, each pair of `stability.models`, unit by unit only where both have the same units.

Writes into the run directory `stability.csv` (a row per comparison, threshold and statistic, with its interval over
concepts, chance level and p) and the figures `stability`, `stability_thresholds` and `stability_fewer`; and, of the
first sentence set, `grid.csv` and the figure `stability_grid`: what two draws of `stability.grid_positives` and
`stability.grid_negatives` sentences agree in, each number of the ones with each of the others. Tables of expertise lie
in `expertise/`; killed and started again, it goes on where it was.
"""

import functools

import ml_collections
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.conditions.comparisons import describe_comparison, make_comparisons
from expertlens_jax.analysis.conditions.grid import describe_cell, make_grid
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.stability_findings import conclude, tell

from .checks import check_stability as check
from .launch import launch
from .run import describe_meanwhile, start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check)
    settings, threshold = config.stability, config.drawn_threshold
    comparisons = make_comparisons(
        this.model,
        this.datasets,
        this.expertise,
        random_weights=config.random_weights,
        counts=settings.counts,
        seeds=settings.seeds,
        models={name: functools.partial(this.named_model, name) for name in settings.models},
        seed=config.seed,
    )
    draws = {"thresholds": config.thresholds, **this.draws}
    table = describe_meanwhile(comparisons, functools.partial(describe_comparison, **draws))
    this.write({"stability": table})
    this.draw("stability", plot.stability(table[table["threshold"] == threshold]))
    fewer = table["kind"] == "fewer"
    this.draw("stability_thresholds", plot.stability_thresholds(table[~fewer]))
    if fewer.any():
        this.draw("stability_fewer", plot.fewer(table[fewer | (table["kind"] == "sentences")]))
    sizes = settings.grid_positives, settings.grid_negatives
    if all(sizes):
        cells = make_grid(this.model, this.datasets[0], this.expertise, *sizes, seed=config.seed)
        grid = describe_meanwhile(cells, functools.partial(describe_cell, **draws))
        this.write({"grid": grid})
        this.draw("stability_grid", plot.grid(grid[grid["threshold"] == threshold]))
    found = conclude(table, threshold=threshold, permutations=config.permutations)
    return this.finish(tell(table, threshold), found)


if __name__ == "__main__":
    launch(run)
