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
import pandas as pd
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.structure.localisation import ALL, locate_experts, trace_depth
from expertlens_jax.report.conclusions import (
    FEWEST_CONCEPTS,
    LEVEL,
    Conclusion,
    Untestable,
    above,
    conclude_from,
    every,
)
from expertlens_jax.run_directory import open_run, write_csv

from .launch import find_model, launch
from .measured import check_statistics, draw, load_datasets, saved_expertise

TRAINED = "trained"


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    model = find_model(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    weights = {TRAINED: model}
    if config.localisation.controls:
        weights |= {f"random_weights_{seed}": el.randomize_weights(model, seed) for seed in config.random_weights}

    draws = {"resamples": config.resamples, "seed": config.seed}
    located, depths = [], []
    for concepts in datasets:
        for name, network in weights.items():
            expertise = saved_expertise(network, concepts, config, workdir)
            source = {"sentences": concepts.name, "weights": name}
            layers = len(set(expertise["layer"].values.tolist()))
            depths.append(trace_depth(expertise, config.thresholds, **draws).assign(**source, layers=layers))
            for threshold in config.thresholds:
                experts = el.select_experts(expertise, threshold=threshold)
                located.append(locate_experts(experts, **draws).assign(**source, threshold=threshold))
    places, depth = pd.concat(located), pd.concat(depths)
    write_csv(workdir / "localisation.csv", _first(places, "sentences", "weights", "threshold", "domain"))
    write_csv(workdir / "depth.csv", _first(depth, "sentences", "weights", "block"))
    for concepts in datasets:
        here = places[(places["sentences"] == concepts.name) & (places["weights"] == TRAINED)]
        draw(plot.enrichment(here[here["domain"] == ALL]), workdir, f"enrichment_{concepts.name}")
        drawn = here[here["threshold"] == config.drawn_threshold]
        draw(plot.domain_enrichment(drawn), workdir, f"domains_{concepts.name}")
        draw(plot.depth(depth[depth["sentences"] == concepts.name]), workdir, f"depth_{concepts.name}")

    print(f"\n{format_places(places, config.drawn_threshold)}\n\n{format_depth(depth)}\n")
    print(f"Tables and figures are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after a model ran.

    Raises:
      SelectionError: thresholds that can't be drawn, or no draws.
    """
    del datasets  # any will do
    check_statistics(config)


def format_places(places: pd.DataFrame, threshold: float) -> str:
    """Enrichment of each site at the drawn threshold, a column per sentence set and weights."""
    rows = places[(places["threshold"] == threshold) & (places["domain"] == ALL) & (places["layer"] == ALL)]
    rows = rows[rows["site"] != ALL]
    shown = rows.assign(shown=[f"{r.enrichment:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]" for r in rows.itertuples()])
    table = shown.pivot_table(
        index="site", columns=["sentences", "weights"], values="shown", aggfunc="first", sort=False
    )
    return f"Enrichment at τ = {threshold:g} with its 95% interval; 1 is chance\n{table.to_string()}"


def format_depth(depth: pd.DataFrame) -> str:
    """Depth at the lowest and the highest threshold that still has experts, and the change between them."""
    rows = []
    for (sentences, weights, block), line in depth.groupby(["sentences", "weights", "block"], sort=False):
        line = line.dropna(subset="depth")
        if line.empty:
            continue
        low, high = line.iloc[0], line.iloc[-1]
        rows.append(
            {
                "sentences": sentences,
                "weights": weights,
                "block": block,
                "τ": f"{low['threshold']:g} to {high['threshold']:g}",
                "depth": f"{low['depth']:.2f} to {high['depth']:.2f}",
                "change": f"{high['change']:+.2f} [{high['change_ci_low']:+.2f}, {high['change_ci_high']:+.2f}]",
                "bimodality": f"{low['bimodality']:.2f} to {high['bimodality']:.2f}",
                "share of experts": f"{low['share']:.2f} to {high['share']:.2f}",
            }
        )
    table = pd.DataFrame(rows).to_string(index=False, justify="left") if rows else "no experts at any threshold"
    return f"Mean depth of experts, 0 (first layer) to 1 (last); bimodality 1 is an even spread\n{table}"


def _first(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with these columns before the others."""
    return table[[*columns, *(name for name in table.columns if name not in columns)]]


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claim.

    Testable where a model of several layers has, at two thresholds, experts in MLPs on enough concepts for an interval
    over these.
    """
    depth = pd.read_csv(workdir / "depth.csv")
    first = depth["sentences"].iloc[0]
    told, outcomes = [], []
    for sentences in dict.fromkeys(depth["sentences"]):
        of_sentences = depth[(depth["sentences"] == sentences) & (depth["block"] == "mlp")]
        if not (of_sentences["weights"] == TRAINED).any():
            outcomes.append(Untestable(f"{sentences}: no unit of an MLP was looked at"))
        for weights, line in of_sentences.groupby("weights", sort=False):
            enough = line[(line["concepts"].map(least_p_of_signs) < LEVEL) & line["depth"].notna()]
            if weights == TRAINED and len(enough) < 2:
                some = "one threshold" if len(enough) else "no threshold"
                outcomes.append(
                    Untestable(f"{sentences}: {some} has experts in MLPs on {FEWEST_CONCEPTS} concepts or more")
                )
            if len(enough) < 2:
                told.append(f"{sentences}, {weights.replace('_', ' ')}: too few experts")
                continue
            low, high = enough.iloc[0], enough.iloc[-1]
            if weights == TRAINED and low["layers"] < 2:
                outcomes.append(Untestable("the model has one layer"))
            elif weights == TRAINED:
                outcomes.append(above(0.0, high["change_ci_high"], f"{sentences}: the interval of a change"))
            told.append(
                f"{sentences}, {weights.replace('_', ' ')}: {low['depth']:.2f} at τ = {low['threshold']:g}, "
                f"{high['depth']:.2f} at {high['threshold']:g} (change {high['change']:+.2f}, "
                f"{high['change_ci_low']:+.2f} to {high['change_ci_high']:+.2f})"
            )
    return [
        conclude_from(
            claim="As the threshold rises, experts move toward early MLP layers.",
            found=f"Mean depth of the experts in MLPs, 0 (first layer) to 1 (last): {'; '.join(told) or 'none'}. Held "
            "if the change lies below 0 with its interval in every sentence set. What random weights show comes of the "
            "architecture and the words.",
            outcome=every(outcomes),
            figure=f"depth_{first}",
        )
    ]


if __name__ == "__main__":
    launch(run)
