"""Are a model's experts arranged as people arrange the concepts?

Claim (Fedzechkina et al. 2025, arXiv 2502.15090): the more two concepts' expert sets overlap, the more alike
people say the concepts are, beyond what embeddings of the same model show. It would be refuted by overlaps that
align no better than those of the same network with random weights, or than TF-IDF of the sentences alone: both
stand in the same table.

    python -m experiments.alignment --config=configs/demo.py --workdir=runs/demo [--config.ratings=FILE]

Writes into the run directory `alignment.csv` (a row per sentence set, measure and ratings), `comparisons.csv` (the
drawn measure's alignment less each other's, with p corrected by Holm's method), `partial.csv` (what is left of it when
a control is partialled out), `pairs.csv` (the rated pairs of the drawn measure), `experts.csv` (per concept),
`localisation.csv` (per layer and site), the overlap of each sentence set, `expertise/` (a run of `el.find_experts` a
sentence set; `el.open_expertise` reads it), and `figures/`. Killed and started again, it goes on where it was.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator

import ml_collections
import pandas as pd
import xarray as xr
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from experiments.launch import find_model, launch, load_named
from experiments.measured import draw, load_datasets, negatives, saved_expertise, table_name
from expertlens_jax.analysis.baselines import cosine_of_embeddings, mean_sentence_embedding
from expertlens_jax.analysis.comparison import compare_alignments, partial_alignments
from expertlens_jax.analysis.embeddings import concept_embeddings, embedding_responses, sentence_embeddings
from expertlens_jax.analysis.localisation import count_experts
from expertlens_jax.analysis.measures import (
    THRESHOLDED,
    UNTHRESHOLDED,
    Measure,
    check_measures,
    expert_measures,
    sentence_measures,
    word_measures,
)
from expertlens_jax.analysis.word_vectors import word_vector_similarity
from expertlens_jax.data.masking import mask_words
from expertlens_jax.errors import SelectionError
from expertlens_jax.report import figures
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.run_directory import open_run, saved_dataset, write_csv

COLUMNS = [
    *("sentences", "measure", "threshold", "negatives_per_positive", "ratings", "pairs"),
    *("experts_median", "spearman", "ci_low", "ci_high", "p_value"),
]


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    if config.drawn_threshold not in config.thresholds:
        raise SelectionError(
            f"drawn_threshold is {config.drawn_threshold}, which is none of the thresholds {config.thresholds}."
        )
    if "jaccard" not in config.measures:
        raise SelectionError(f"measures are {config.measures}; jaccard must be among them, since it is drawn.")
    check_measures((*config.measures, *config.control_measures), config.thresholds)
    datasets = load_datasets(config)
    ratings = [el.load_ratings(name) for name in config.ratings]
    model = find_model(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    aligned, pairs, compared, partialled, experts_of, localisation = [], [], [], [], [], []
    for concepts in datasets:
        print(f"\n{concepts!r}")
        expertise = saved_expertise(model, concepts, config, workdir)
        measures = compare(model, concepts, expertise, config, workdir)
        for measure, rated in tqdm(
            list(itertools.product(measures, ratings)), desc="aligning", unit="measure", mininterval=1
        ):
            result = el.align(
                measure.similarity,
                rated,
                resamples=config.resamples,
                permutations=config.permutations,
                seed=config.seed,
            )
            aligned.append(describe(concepts.name, measure, result, config) | {"ceiling": rated.ceiling})
            if is_drawn(measure, config):
                pairs.append(result.table.assign(sentences=concepts.name, ratings=rated.name))
        overlap = next(measure.similarity for measure in measures if is_drawn(measure, config))
        others = {each.name: each.similarity for each in measures if each.group != "ExpertLens"}
        controls = {each.name: each.similarity for each in measures if each.group == "Controls"}
        for rated in ratings:
            against = {"sentences": concepts.name, "ratings": rated.name}
            compared.append(compare_alignments(overlap, others, rated).assign(**against))
            partialled.append(partial_alignments(overlap, controls, rated).assign(**against))
        experts = el.select_experts(expertise, threshold=config.drawn_threshold)
        counts = experts.sum("unit").to_series()
        experts_of.append(counts.rename("experts").reset_index().assign(sentences=concepts.name))
        localisation.append(count_experts(experts).assign(sentences=concepts.name))
        write_csv(workdir / f"overlap_{concepts.name}.csv", overlap.to_pandas().reset_index())
        draw(figures.plot_overlap(overlap), workdir, f"overlap_{concepts.name}")
        draw(figures.plot_localisation(localisation[-1]), workdir, f"localisation_{concepts.name}")

    table = pd.DataFrame(aligned)
    write_csv(workdir / "alignment.csv", table[COLUMNS])
    write_csv(workdir / "pairs.csv", pd.concat(pairs))
    write_csv(workdir / "comparisons.csv", pd.concat(compared))
    write_csv(workdir / "partial.csv", pd.concat(partialled))
    write_csv(workdir / "experts.csv", pd.concat(experts_of))
    write_csv(workdir / "localisation.csv", pd.concat(localisation))
    drawn = table[(table["measure"] == "jaccard") & (table["threshold"] == config.drawn_threshold)]
    quantity = f"Overlap of experts (Jaccard, τ = {config.drawn_threshold:g})"
    draw(figures.plot_alignment(pd.concat(pairs), drawn, quantity=quantity), workdir, "alignment")
    draw(figures.plot_comparisons(pd.concat(compared), pd.concat(partialled)), workdir, "comparisons")
    draw(figures.plot_measures(table.assign(measure=label_measures(table))), workdir, "measures")

    print(f"\n{format_table(table)}\n")
    for note in dict.fromkeys(table.loc[table["note"] != "", "note"]):
        print(f"No correlation where it says so: {note}")
    print(f"Tables and figures are in {workdir}")


def compare(
    model: el.Model,
    concepts: el.ConceptDataset,
    expertise: xr.Dataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> list[Measure]:
    """Every measure of a sentence set: of its experts, of embeddings, and of controls."""

    def embed() -> xr.Dataset:
        print(f"Embedding the sentences of {concepts.name}")
        mean = concept_embeddings(model, concepts, truncate=config.truncate, progress=True)
        return xr.Dataset({"mean": (("layer", "concept", "channel"), mean)})

    embedded = saved_dataset(workdir / "embeddings" / f"{table_name(model, concepts)}.zarr", embed)
    measures = expert_measures(expertise, config.measures, config.thresholds)
    measures += word_measures(model, concepts)
    measures += sentence_measures(embedded["mean"].values, concepts, every_layer=config.every_layer)
    measures += [
        Measure("Baselines", f"vectors_{epath.Path(path).stem}", word_vector_similarity(path, concepts))
        for path in config.word_vectors
    ]
    for path in config.sentence_models:
        other = load_named(path, config)
        mean = mean_sentence_embedding(sentence_embeddings(other, concepts.sentences, progress=True), concepts)
        measures.append(
            Measure(
                "Baselines",
                f"sentences_{path.removeprefix('package:').partition('/')[0]}",
                cosine_of_embeddings(mean, concepts),
            )
        )
    for name, control in control_tables(model, concepts, config, workdir):
        measures += expert_measures(
            control, config.control_measures, [config.drawn_threshold], group="Controls", suffix=f"_{name}"
        )
    return measures


def control_tables(
    model: el.Model, concepts: el.ConceptDataset, config: ml_collections.ConfigDict, workdir: epath.Path
) -> Iterator[tuple[str, xr.Dataset]]:
    """Tables of expertise that ask what the trained model adds: without its training, its layers, or the word itself.

    Yields:
      The control's name, and its table.
    """
    for seed in config.random_weights:
        yield f"random_weights_{seed}", saved_expertise(el.randomize_weights(model, seed), concepts, config, workdir)
    if config.embedding_experts:
        responses = embedding_responses(model, concepts.sentences, truncate=config.truncate)
        yield "input_embedding", el.measure_expertise(responses, concepts, **negatives(config))
    if config.masked:
        mask = model.tokenizer.mask_token or config.masked
        yield "masked", saved_expertise(model, mask_words(concepts, mask), config, workdir)


def is_drawn(measure: Measure, config: ml_collections.ConfigDict) -> bool:
    """Whether it is the one that is drawn, and held against the others."""
    return measure.name == "jaccard" and measure.threshold == config.drawn_threshold


def describe(
    sentences: str, measure: Measure, result: el.Alignment, config: ml_collections.ConfigDict
) -> dict[str, object]:
    """A row of the table."""
    from_experts = measure.name.startswith((*THRESHOLDED, *UNTHRESHOLDED))
    return {
        "group": measure.group,
        "sentences": sentences,
        "measure": measure.name,
        "threshold": measure.threshold,
        "negatives_per_positive": config.negatives_per_positive if from_experts else float("nan"),
        "experts_median": measure.experts_median,
        **{
            field.name: getattr(result, field.name)
            for field in dataclasses.fields(result)
            if field.name not in ("table", "missing")
        },
    }


def label_measures(table: pd.DataFrame) -> pd.Series:
    """Names of measures for people: with the threshold, without underscores."""
    names = table["measure"].str.replace("_", " ")
    thresholds = table["threshold"].map(lambda t: "" if pd.isna(t) else f", τ = {t:g}")
    return names + thresholds


def format_table(table: pd.DataFrame) -> str:
    """The table as people read it, a row per sentence set, measure and ratings."""
    number = "{:.3f}".format
    return pd.DataFrame(
        {
            "sentences": table["sentences"],
            "measure": label_measures(table),
            "ratings": table["ratings"],
            "experts": table["experts_median"].map(lambda n: "" if pd.isna(n) else f"{n:.0f}"),
            "pairs": table["pairs"],
            "Spearman": table["spearman"].map(lambda r: "none" if pd.isna(r) else number(r)),
            "95% interval": [
                "" if pd.isna(row.spearman) else f"{number(row.ci_low)} to {number(row.ci_high)}"
                for row in table.itertuples()
            ],
            "p": table["p_value"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
        }
    ).to_string(index=False, justify="left")


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """What a finished run found of its claim, against random weights and TF-IDF on the same pairs."""
    table = pd.read_csv(workdir / "alignment.csv")
    config = json.loads((workdir / "config.json").read_text())
    found, held = [], []
    for (sentences, ratings), rows in table.groupby(["sentences", "ratings"], sort=False):
        experts = rows[(rows["measure"] == "jaccard") & (rows["threshold"] == config["drawn_threshold"])].iloc[0]
        if pd.isna(experts["spearman"]):
            continue
        by_name = rows.set_index("measure")["spearman"]
        controls = [(name, by_name[name]) for name in by_name.index if "random_weights" in name and "jaccard" in name]
        controls.append(("tfidf", by_name["tfidf"]))
        beaten = experts["spearman"] > max(value for _, value in controls)
        held.append(experts["p_value"] < 0.05 and beaten)
        against = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in controls)
        found.append(
            f"{sentences}, {ratings}: {experts['spearman']:.2f} ({experts['ci_low']:.2f} to {experts['ci_high']:.2f}, "
            f"p = {experts['p_value']:.2g}) against {against}"
        )
    return [
        Conclusion(
            claim="The more the expert sets of two concepts overlap, the more alike people say the concepts are, "
            "beyond what the sentences or the untrained network bring.",
            found=f"{sum(held)} of {len(held)} correlations with ratings (Spearman, Jaccard at "
            f"τ = {config['drawn_threshold']:g}) are significant and above both controls; most had to be. "
            f"{'; '.join(found) or 'Too few rated pairs are among the concepts'}.",
            held=2 * sum(held) > len(held),
            figure="alignment",
        )
    ]


if __name__ == "__main__":
    launch(run)
