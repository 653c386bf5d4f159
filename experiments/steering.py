"""Does a model write of a concept when the concept's experts are made to speak, and only then?

Claim (Suau et al. 2022; Fedzechkina et al. 2025): setting a concept's experts to what they say at its sentences raises
the probability of the concept in what the model writes; doing the same to units that are no experts does not. It would
be refuted by controls (as many random units, units equally active at the same sentences that don't know the concept,
another concept's experts) that raise it as much, or by an effect that is there only where the text falls apart: the
surprise of steered text under the unsteered model, of held-out text under the steered one, and its repetitions stand
beside it.

    python -m experiments.steering --config=configs/demo.py --workdir=runs/steering

Experts come from the config's first sentence set, held-out text from its last. Writes into the run directory
`effects.csv` (a row per steering and measure, with 95% intervals over prompts and seeds), `curves.csv` (means over
concepts), `claim.csv` (experts against each control, over concepts), `away.csv` and `moved.csv` (a concept removed,
another spared: what became of their words and of every concept's experts), `samples.csv`, `figures/`, and
`report.html`, where continuations stand side by side. Each steering that was measured is kept in `measured/`; a run
that was killed goes on.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from experiments.launch import find_model, launch
from experiments.measured import draw, load_datasets, saved_expertise
from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering_effects import Writing, measure_effect, word_in_place
from expertlens_jax.errors import SelectionError, UnsupportedModelError
from expertlens_jax.experts.controls import equally_active_units, random_units
from expertlens_jax.experts.steering import METHODS, refuse_unknown_concepts
from expertlens_jax.report import figures
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.pages import Page, Samples
from expertlens_jax.run_directory import open_run, saved_dataset, write_csv, write_text

CONTROLS = ("random", "equally_active", "another_concept")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One steering that is measured."""

    concept: str
    arm: str
    """Whose units: "experts", a control's name, "shared" (a domain's), or "unsteered"."""
    method: str
    count: int
    strength: float

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.concept.replace(' ', '_')}_{self.arm}_{self.method}_{self.count}_{self.strength:g}"


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    check(config.steering)
    datasets = load_datasets(config)
    concepts, elsewhere = datasets[0], datasets[-1]
    model = find_model(config)
    if not model.config.causal:
        raise UnsupportedModelError(f"{model.name} is an encoder and writes nothing. Steer a causal language model.")
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    expertise = saved_steering_table(model, concepts, config, workdir)
    refuse_unknown_concepts(expertise, config.steering.concepts)
    writing = Writing(
        prompts=tuple(config.steering.prompts),
        held_out=held_out_texts(elsewhere, config),
        num_seeds=config.steering.num_seeds,
        max_new_tokens=config.steering.max_new_tokens,
        temperature=config.steering.temperature,
        seed=config.seed,
    )

    measured = {}
    for trial in tqdm(trials(config.steering), desc="steering", unit="steering"):
        file = workdir / "measured" / f"{trial.name}.json"
        measured[trial] = saved_json(file, lambda trial=trial: measure(model, expertise, trial, writing, config))
    effects = describe_effects(measured, config)
    write_csv(workdir / "effects.csv", effects)
    curves = describe_curves(effects, config)
    write_csv(workdir / "curves.csv", curves)
    claim = describe_claim(effects, config)
    write_csv(workdir / "claim.csv", claim)
    samples = pd.DataFrame([row for trial in measured for row in sample_rows(measured[trial], trial, config)])
    write_csv(workdir / "samples.csv", samples)
    draw(figures.plot_steering(curves), workdir, "steering")
    draw(figures.plot_steering_cost(curves), workdir, "cost")

    away, moved = steer_away(model, expertise, concepts, elsewhere, config, workdir)
    write_csv(workdir / "away.csv", away)
    write_csv(workdir / "moved.csv", moved)
    draw(figures.plot_steered_away(away, moved), workdir, "away")

    report(model, config, claim, effects, samples, away, workdir)
    print(f"\n{claim.to_string(index=False, float_format='{:.3f}'.format)}\n")
    print(f"Tables, figures and report.html are in {workdir}")


def check(settings: ml_collections.ConfigDict) -> None:
    """Refuses what would fail late.

    Raises:
      SelectionError: an unknown method or control, a drawn count that isn't measured, or nothing to steer.
    """
    for method in (settings.method, *settings.methods, *settings.away_methods):
        if method not in METHODS:
            raise SelectionError(f"steering.methods hold {method!r}; there are {', '.join(METHODS)}.")
    for control in settings.controls:
        if control not in CONTROLS:
            raise SelectionError(f"steering.controls hold {control!r}; there are {', '.join(CONTROLS)}.")
    if settings.drawn_count not in settings.counts:
        raise SelectionError(
            f"steering.drawn_count is {settings.drawn_count}, which is none of steering.counts {settings.counts}."
        )
    if 1.0 not in settings.strengths or not all(0 < strength <= 1 for strength in settings.strengths):
        raise SelectionError(
            f"steering.strengths are {settings.strengths}; wanted numbers above 0 and up to 1, and 1 among them."
        )
    if len(settings.concepts) < 2 or not settings.prompts or settings.num_seeds < 1:
        raise SelectionError(
            "steering wants two concepts or more, a prompt or more, and num_seeds of 1 or more; it was given "
            f"{len(settings.concepts)}, {len(settings.prompts)} and {settings.num_seeds}."
        )


def saved_steering_table(
    model: el.Model, concepts: el.ConceptDataset, config: ml_collections.ConfigDict, workdir: epath.Path
) -> xr.Dataset:
    """The expertise table, with the distributions of the units that may be steered."""
    table = saved_expertise(model, concepts, config, workdir)

    def measure_more() -> xr.Dataset:
        responses = el.record_responses(
            model, concepts.sentences, pooling=config.pooling, truncate=config.truncate, progress=True
        )
        more = el.measure_distributions(table, responses, concepts, top=max(config.steering.counts), progress=True)
        return more[["auroc", "transport_slope"]].drop_vars([name for name in more.coords if name != "concept"])

    more = saved_dataset(workdir / "distributions.zarr", measure_more)
    return table.assign({name: (("concept", "unit"), more[name].values) for name in more.data_vars})


def held_out_texts(dataset: el.ConceptDataset, config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Sentences that mention none of the steered concepts, drawn by the config's seed."""
    mentions = dataset.mentions()[[name in config.steering.concepts for name in dataset.concepts]].any(0)
    free = np.flatnonzero(~mentions)
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(free, min(config.steering.held_out, len(free)), replace=False)
    return tuple(dataset.sentences[i] for i in np.sort(chosen))


def trials(settings: ml_collections.ConfigDict) -> list[Trial]:
    """Every steering to measure, each once: curves over counts, over strengths, other methods, domains."""
    wanted = []
    for concept in settings.concepts:
        wanted.append(Trial(concept, "unsteered", "none", 0, 0.0))
        for arm in ("experts", *settings.controls):
            wanted += [Trial(concept, arm, settings.method, count, 1.0) for count in settings.counts]
            wanted += [Trial(concept, arm, settings.method, settings.drawn_count, s) for s in settings.strengths]
        for method in settings.methods:
            wanted += [Trial(concept, "experts", method, settings.drawn_count, s) for s in settings.strengths]
    for domain in settings.domains:
        wanted.append(Trial(domain, "unsteered", "none", 0, 0.0))
        wanted += [Trial(domain, "shared", settings.method, count, 1.0) for count in settings.counts]
    return list(dict.fromkeys(wanted))


def saved_json(file: epath.Path, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """What a file holds; computed and written first if it isn't there."""
    if not file.exists():
        write_text(file, json.dumps(compute()) + "\n")
    return json.loads(file.read_text())


def measure(
    model: el.Model, expertise: xr.Dataset, trial: Trial, writing: Writing, config: ml_collections.ConfigDict
) -> dict[str, Any]:
    """A trial's measures `[rows, columns]`, the continuations, and the steering in words."""
    words = (trial.concept,)
    if trial.concept in config.steering.domains:
        expertise = el.share_expertise(expertise, trial.concept)
        words = tuple(expertise.attrs["members"])
    steering = make_steering(expertise, trial, config)
    written, values = measure_effect(model, expertise, trial.concept, words, steering, writing)
    return {
        "steering": repr(steering) if steering else "none",
        "words": words,
        "texts": written.texts.tolist(),
        "measures": {name: np.where(np.isnan(value), None, value).tolist() for name, value in values.items()},
    }


def make_steering(expertise: xr.Dataset, trial: Trial, config: ml_collections.ConfigDict) -> el.Steering | None:
    """The trial's steering; controls are given the concept's own values on units that aren't its experts."""
    if trial.arm == "unsteered":
        return None
    options = {"method": trial.method, "strength": trial.strength}
    experts = el.select_experts(expertise.sel(concept=[trial.concept]), top=trial.count)
    experts = expertise["unit"].values[experts.values[0]]
    match trial.arm:
        case "random":
            units = random_units(expertise, experts, seed=config.seed)
        case "equally_active":
            units = equally_active_units(expertise, trial.concept, experts)
        case "another_concept":
            among = list(config.steering.concepts)
            other = among[(among.index(trial.concept) + 1) % len(among)]
            return el.steer(expertise, other, top=trial.count, **options)
        case _:
            units = experts
    return el.steer(expertise, trial.concept, units=units, **options)


def describe_effects(measured: Mapping[Trial, Mapping[str, Any]], config: ml_collections.ConfigDict) -> pd.DataFrame:
    """A row per trial and measure: its mean and interval, and those of its change from the unsteered model."""
    rows = []
    for trial, result in measured.items():
        plain = measured[Trial(trial.concept, "unsteered", "none", 0, 0.0)]["measures"]
        for name, values in result["measures"].items():
            values, before = (np.array(each, np.float64) for each in (values, plain[name]))
            value, low, high = bootstrap_mean(values, config.resamples, config.seed)
            change, change_low, change_high = bootstrap_mean(values - before, config.resamples, config.seed)
            rows.append(
                {
                    **dataclasses.asdict(trial),
                    "measure": name,
                    **{"value": value, "ci_low": low, "ci_high": high},
                    **{"change": change, "change_ci_low": change_low, "change_ci_high": change_high},
                }
            )
    return pd.DataFrame(rows)


def describe_curves(effects: pd.DataFrame, config: ml_collections.ConfigDict) -> pd.DataFrame:
    """Means over concepts, with intervals over them: a row per arm, method, count, strength and measure."""
    concepts = effects[effects["concept"].isin(list(config.steering.concepts))]
    rows = []
    for key, group in concepts.groupby(["arm", "method", "count", "strength", "measure"], sort=False):
        row = dict(zip(["arm", "method", "count", "strength", "measure"], key, strict=True))
        for column, prefix in (("value", ""), ("change", "change_")):
            mean, low, high = bootstrap_mean(group[[column]].to_numpy(), config.resamples, config.seed)
            row |= {column: mean, f"{prefix}ci_low": low, f"{prefix}ci_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def describe_claim(effects: pd.DataFrame, config: ml_collections.ConfigDict) -> pd.DataFrame:
    """Experts against each control at the drawn count and full strength: the difference of their effects, and p.

    p is Wilcoxon's signed-rank test over concepts, two-sided.
    """
    s = config.steering
    drawn = effects[(effects["method"] == s.method) & (effects["count"] == s.drawn_count) & (effects["strength"] == 1)]
    rows = []
    for name in ("word_log_prob", "mention", "expert_response"):
        by_arm = drawn[drawn["measure"] == name].pivot_table(index="concept", columns="arm", values="change")
        experts = by_arm["experts"].dropna()
        for control in ("unsteered", *s.controls):
            difference = experts if control == "unsteered" else experts - by_arm.loc[experts.index, control]
            mean, low, high = bootstrap_mean(difference.to_numpy()[:, None], config.resamples, config.seed)
            moved = difference[difference != 0]
            p = scipy.stats.wilcoxon(moved).pvalue if len(moved) else 1.0
            rows.append(
                {
                    **{"measure": name, "control": control, "concepts": len(difference)},
                    **{"difference": mean, "ci_low": low, "ci_high": high, "p_value": p},
                }
            )
    return pd.DataFrame(rows)


def sample_rows(result: Mapping[str, Any], trial: Trial, config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """The first continuation of each prompt."""
    return [
        {**dataclasses.asdict(trial), "prompt": prompt, "text": texts[0], "words": " ".join(result["words"])}
        for prompt, texts in zip(config.steering.prompts, result["texts"], strict=True)
    ]


def steer_away(
    model: el.Model,
    expertise: xr.Dataset,
    concepts: el.ConceptDataset,
    elsewhere: el.ConceptDataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Removes a concept and spares another: their words' probability where they stand in held-out sentences, and
    every concept's experts as the steered model has them.

    Returns:
      `away`: a row per pair, method, whether the other was spared, and whose word: `change` of its log-probability,
      with interval over sentences. `moved`: a row per pair and concept: `kept`, the Jaccard overlap of the concept's
      expert set with that of the steered model (first method, sparing).
    """
    s, away, moved = config.steering, [], []
    for concept, spared in s.away:
        refuse_unknown_concepts(expertise, (concept, spared))
        steerings = {
            (method, sparing): el.steer(
                expertise, concept, top=s.drawn_count, method=method, sparing=(spared,) if sparing else ()
            )
            for method in s.away_methods
            for sparing in (False, True)
        }
        for (method, sparing), steering in steerings.items():
            for word in (concept, spared):

                def change(word: str = word, steering: el.Steering = steering) -> dict[str, Any]:
                    after, before = (word_in_place(model, elsewhere, word, by) for by in (steering, None))
                    return {"change": (after - before).tolist()}

                name = f"away_{concept}_{spared}_{method}_{'sparing' if sparing else 'all'}_{word}"
                values = saved_json(workdir / "measured" / f"{name}.json", change)["change"]
                mean, low, high = bootstrap_mean(np.array(values)[:, None], config.resamples, config.seed)
                away.append(
                    {
                        **{"concept": concept, "spared": spared, "method": method, "sparing": sparing, "word": word},
                        **{"units": len(steering), "change": mean, "ci_low": low, "ci_high": high},
                    }
                )

        def kept(steering: el.Steering = steerings[s.away_methods[0], True]) -> dict[str, Any]:
            responses = el.record_responses(
                model,
                concepts.sentences,
                pooling=config.pooling,
                steering=steering,
                truncate=config.truncate,
                progress=True,
            )
            asked = {name: expertise.attrs[name] for name in ("negatives_per_positive", "exclude_mentions")}
            after = el.measure_expertise(responses, concepts, **asked)
            before, after = (el.select_experts(t, threshold=config.drawn_threshold).values for t in (expertise, after))
            either = (before | after).sum(1)
            return {"kept": np.where(either > 0, (before & after).sum(1) / np.maximum(either, 1), 1.0).tolist()}

        values = saved_json(workdir / "measured" / f"moved_{concept}_{spared}.json", kept)["kept"]
        moved += [
            {"concept": concept, "spared": spared, "of": name, "domain": domain, "kept": value}
            for name, domain, value in zip(concepts.concepts, concepts.domains, values, strict=True)
        ]
    return pd.DataFrame(away), pd.DataFrame(moved)


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """What a finished run found of its claim."""
    claim = pd.read_csv(workdir / "claim.csv")
    rows = claim[claim["measure"] == "word_log_prob"].set_index("control")
    against = "; ".join(
        f"{name.replace('_', ' ')} {row.difference:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f}, p = {row.p_value:.2g})"
        for name, row in rows.iterrows()
    )
    mentions = claim[claim["measure"] == "mention"].set_index("control")["difference"]["unsteered"]
    return [
        Conclusion(
            claim="Making a concept's experts speak raises the probability of the concept; doing the same to units "
            "that are no experts does not.",
            found=f"log-probability of the concept's word under steered experts, above that under each control (nats, "
            f"mean over {rows['concepts'].iloc[0]} concepts, all intervals had to lie above 0): {against}. "
            f"Continuations mention the concept in {100 * mentions:+.1f} percentage points more cases.",
            held=bool((rows["ci_low"] > 0).all()),
            figure="steering",
        )
    ]


def report(
    model: el.Model,
    config: ml_collections.ConfigDict,
    claim: pd.DataFrame,
    effects: pd.DataFrame,
    samples: pd.DataFrame,
    away: pd.DataFrame,
    workdir: epath.Path,
) -> None:
    """One self-contained page: the claim, its numbers and figures, and texts before and after, side by side."""
    s = config.steering
    page = Page(f"Steering {model.name} with its experts")
    page.paragraph(__doc__.split("\n\n")[1])
    page.table(claim)
    page.figure(workdir / "figures" / "steering.svg", "Effects over the number of units and over strength.")
    page.figure(workdir / "figures" / "cost.svg", "What each method's effect costs.")
    drawn = samples[(samples["count"] == s.drawn_count) & (samples["strength"] == 1)]
    for concept in (*s.concepts, *s.domains):
        plain = samples[(samples["concept"] == concept) & (samples["arm"] == "unsteered")]
        of_concept = drawn[(drawn["concept"] == concept) & (drawn["method"] == s.method)]
        columns = {"before": plain} | dict(iter(of_concept.groupby("arm", sort=False)))
        texts = {arm.replace("_", " "): rows["text"].tolist() for arm, rows in columns.items()}
        page.heading(concept)
        page.samples(Samples(list(s.prompts), texts, plain["words"].iloc[0].split(" ")))
    if len(away):
        page.heading("Steering away")
        page.table(away)
        page.figure(workdir / "figures" / "away.svg", "One concept removed, another spared.")
    write_text(workdir / "report.html", page.html())


if __name__ == "__main__":
    launch(run)
