"""Does a model write of a concept when the concept's experts are made to speak, and only then?

Claim (Suau et al. 2022; Fedzechkina et al. 2025): setting a concept's experts to what they say at its sentences raises
the probability of the concept in what the model writes; doing the same to units that are no experts does not. It would
be refuted by controls (as many random units, units equally active at the same sentences that don't know the concept,
another concept's experts) that raise it as much, or by an effect that is there only where the text falls apart: the
surprise of steered text under the unsteered model, of held-out text under the steered one, and its repetitions stand
beside it.

    python -m experiments.steering --config=configs/demo.py --workdir=runs/steering

Experts come from the config's first sentence set, held-out text from its last. Writes into the run directory
`effects.csv` (a row per steering and measure, with 95% intervals over prompts, each drawn with all its seeds),
`curves.csv` (means over concepts), `claim.csv` (experts against each control, over concepts), `away.csv` and
`moved.csv` (a concept removed, another spared: what became of their words, and of every concept's experts and its place
on the map of overlaps), `samples.csv`, `figures/`, and
`report.html`, where continuations stand side by side. Each steering that was measured is kept in `measured/`; a run
that was killed goes on.
"""

import ml_collections
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.steering.trials import describe_trials, keep_trials, steer_away
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.steering_findings import conclude, make_page
from expertlens_jax.run_directory import saved_json, write_text

from .expertise import question_of, read_negatives, read_recording
from .launch import launch
from .run import start
from .sources import Sources
from .steering_settings import check, check_model, read_design, read_writing


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    settings, model, concepts, elsewhere = config.steering, this.model, this.datasets[0], this.datasets[-1]
    expertise = this.expertise(model, concepts)
    design, writing = read_design(config), read_writing(config, elsewhere)

    kept = this.workdir / "measured"
    asked = question_of(expertise)
    results = keep_trials(model, expertise, writing, design, kept, asked, seed=config.seed, progress=True)
    away, moved = steer_away(
        model,
        expertise,
        concepts,
        elsewhere,
        settings.away,
        methods=settings.away_methods,
        top=settings.drawn_count,
        threshold=config.drawn_threshold,
        kept=lambda name, make: saved_json(kept / f"{name}.json", make),
        reading={"recording": read_recording(config)},
        negatives={"negatives": read_negatives(config)},
        **this.resampling,
    )
    tables = describe_trials(results, design, settings.prompts, **this.resampling) | {"away": away, "moved": moved}
    this.write(tables)
    this.draw("steering", plot.steering(tables["curves"]))
    this.draw("cost", plot.steering_cost(tables["curves"]))
    this.draw("away", plot.steered_away(away, moved))
    page = make_page(
        model.name,
        __doc__.split("\n\n")[1],
        tables,
        this.workdir / "figures",
        design=design,
        prompts=settings.prompts,
        num_seeds=settings.num_seeds,
        threshold=config.drawn_threshold,
    )
    write_text(this.workdir / "report.html", page.html())
    return this.finish(tables["claim"].to_string(index=False, float_format="{:.3f}".format), conclude(tables["claim"]))


if __name__ == "__main__":
    launch(run)
