"""The choice of how to steer, against its parts by hand."""

import families
import numpy as np
import pandas as pd
import pytest

import expertlens_jax as el
from expertlens_jax.analysis.steering import choosing, effects
from expertlens_jax.analysis.steering.effects import continue_prompts, surprise
from expertlens_jax.errors import SelectionError, UnsupportedModelError
from expertlens_jax.models.generation import generate

PROMPTS = ("There was a", "She dreamt of a")
WRITING = {"prompts": PROMPTS, "num_seeds": 3, "max_new_tokens": 6, "seed": 4}
GRID = {"methods": ("set_p90", "mean_shift"), "tops": (30, 400), "strengths": (1.0,)}


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def expertise(model):
    concepts = el.load_concepts("facts").subset(["cat", "rain"])
    return el.measure_expertise(el.record_responses(model, concepts.sentences, sites=("attn.v", "mlp.up")), concepts)


@pytest.fixture(scope="module")
def choice(model, expertise):
    return el.choose_steering(model, expertise, ["cat", "rain"], most_perplexity=3.0, **GRID, **WRITING)


def written(model, steering, seed=4):
    return continue_prompts(
        model, PROMPTS, num_seeds=3, max_new_tokens=6, temperature=1.0, top_p=None, seed=seed, steering=steering
    )


@pytest.mark.long
def test_each_candidate_is_measured_over_concepts(model, expertise, choice):
    assert choice.table[["method", "top", "strength"]].values.tolist() == [
        ["set_p90", 30, 1.0],
        ["set_p90", 400, 1.0],
        ["mean_shift", 30, 1.0],
        ["mean_shift", 400, 1.0],
    ]
    plain = written(model, None)
    for row in choice.table.iloc[[1, 2]].itertuples():
        shares, dearer = [], []
        for concept, forms in (("cat", {"cat", "cats"}), ("rain", {"rain", "rains", "rained", "raining"})):
            made = written(model, el.steer(expertise, concept, top=row.top, method=row.method))
            shares += [bool(forms & set(text.lower().replace(".", " ").split())) for text in made.texts.ravel()]
            dearer.append(surprise(model, made).mean() - surprise(model, plain).mean())
        assert row.share == pytest.approx(np.mean(shares))
        assert row.perplexity == pytest.approx(np.exp(np.mean(dearer)), rel=1e-6)
        assert row.ci_low <= row.share <= row.ci_high


@pytest.mark.long
def test_candidates_share_batches_of_one_shape(model, expertise, choice, monkeypatch):
    asked = []

    def counted(model, prompts, **options):
        asked.append(len(prompts))
        return generate(model, prompts, **options)

    monkeypatch.setattr(effects, "generate", counted)
    given = {"most_perplexity": 3.0, **GRID, **WRITING}
    again = el.choose_steering(model, expertise, ["cat", "rain"], **given)
    assert asked == [54, 54]  # 2 prompts x 3 seeds: under 8 candidates and none; then under 2 and none, filled up
    asked.clear()
    monkeypatch.setattr(choosing, "count_together", lambda *args: 2)
    fewer = el.choose_steering(model, expertise, ["cat", "rain"], **given)
    assert asked == [12] * (5 + 2)
    for each in (again, fewer):
        pd.testing.assert_frame_equal(each.table, choice.table, rtol=1e-6)
        for name, table in choice.tables.items():
            pd.testing.assert_frame_equal(each.tables[name], table, rtol=1e-6)


def test_the_best_that_fits_is_chosen_and_told_by_new_draws(model, expertise, choice):
    table = choice.table
    assert table["fits"].tolist() == (table["perplexity"] <= 3.0).tolist() and table["chosen"].sum() == 1
    best = table[table["chosen"]].iloc[0]
    assert best["share"] == table.loc[table["fits"], "share"].max()
    assert choice.settings == {name: best[name] for name in ("method", "top", "strength")}
    held_out = choice.tables["held out"].set_index("concept")
    made = written(model, el.steer(expertise, "cat", **choice.settings), seed=5)
    assert held_out.loc["cat", "named"] == sum("cat" in text.lower() for text in made.texts.ravel())
    assert held_out["texts"].tolist() == [6, 6]
    assert choice.tables["examples"]["steered"].tolist()[:2] == made.texts[:, 0].tolist()
    assert (
        f"names the concept most often of the {table['fits'].sum()} of 4 candidates within 3 times" in choice.summary()
    )
    assert f"In new draws it does in {held_out['named'].sum()} of 12 texts" in choice.summary()
    assert choice.plot().axes[0].get_ylabel() == "Texts that name the concept"


def test_where_nothing_fits_none_is_chosen(model, expertise):
    choice = el.choose_steering(model, expertise, "cat", most_perplexity=1e-6, **GRID, **WRITING)
    assert choice.settings == {} and not choice.table["chosen"].any()
    assert "None of 4 candidates stays within 1e-06 times the perplexity of unsteered text" in choice.summary()
    assert choice.plot().axes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concepts": ["cat", "unicorn"]}, "unicorn"),
        ({"concepts": ["cat"], "methods": ()}, "0 candidates, 1 concept and most_perplexity=1.5 were given; wanted"),
        ({"concepts": []}, "16 candidates, 0 concepts"),
        ({"concepts": ["cat"], "most_perplexity": 0}, "most_perplexity=0 were given"),
        ({"concepts": ["cat"], "prompts": ()}, "0 prompts and num_seeds=2 were given; wanted one prompt or more"),
        ({"concepts": ["cat"], "num_seeds": 0}, "10 prompts and num_seeds=0 were given"),
        ({"concepts": ["cat"], "methods": ["magic"]}, "method 'magic' was given; wanted one of set_median"),
    ],
)
def test_a_choice_that_cannot_be_made_is_told_before_anything_is_written(model, expertise, given, message):
    with pytest.raises(SelectionError, match=message):
        el.choose_steering(model, expertise, **{"methods": ("mean_shift", "zero"), "tops": (1, 2, 3, 4)} | given)


def test_an_encoder_writes_nothing(tmp_path, expertise):
    case = next(case for case in families.CASES if case.name == "bert")
    encoder = el.load_model(families.save(families.make_hf_model(case), tmp_path))
    with pytest.raises(UnsupportedModelError, match="is an encoder and writes nothing"):
        el.choose_steering(encoder, expertise, ["cat"])


@pytest.mark.long
def test_a_learned_candidate_has_the_shifts_of_the_best_experts_learned(model, expertise):
    sentences = el.load_concepts("facts").subset(["cat", "rain"])
    learning = el.Learning(steps=3, sentences=4, most_tokens=12)
    given = {"sentences": sentences, "methods": ("learned",), "tops": (30,), "strengths": (0.5, 1.0)}
    choice = el.choose_steering(model, expertise, ["cat"], most_perplexity=99.0, learning=learning, **given, **WRITING)
    units = el.top_experts(expertise, "cat", 30)
    learned = el.learn_steering(model, sentences, "cat", units=units, learning=learning)
    assert choice.table[["method", "top", "strength"]].values.tolist() == [["learned", 30, 0.5], ["learned", 30, 1.0]]
    wanted = learned.at_strength(choice.settings["strength"])
    assert choice.steerings["cat"].units == wanted.units
    np.testing.assert_allclose(choice.steerings["cat"].shift, wanted.shift, rtol=1e-6)
    with pytest.raises(SelectionError, match=r'method "learned" learns from sentences, and none were given'):
        el.choose_steering(model, expertise, ["cat"], methods=("learned",))
