"""Learned steering: its losses against PyTorch and scipy, what it does to what is written, and what is refused."""

import dataclasses

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch

import expertlens_jax as el
from expertlens_jax.errors import (
    ConceptDataError,
    SelectionError,
    SettingError,
    UnfitConceptsError,
    UnsupportedModelError,
)
from expertlens_jax.experts import learned_steering
from expertlens_jax.experts.learned_steering import _draw_texts, _draw_words, _learnable
from expertlens_jax.experts.steering_objectives import distribution_loss, shrink, word_loss
from expertlens_jax.models.scoring import score_words
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.transformer import Transformer

pytestmark = pytest.mark.compiled_quickly

WORDS = ("cat", "bread")
SITES = ("attn.v", "mlp.down")
BEGINNINGS = ("They talked about the", "There was a", "I saw the old")


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    begin, end = ("The old", "A small", "My other", "That new"), ("was here again", "stood near me", "is not there")
    sentences = [f"{start} {word} {close}." for word in WORDS for start in begin for close in end]
    labels = np.kron(np.eye(2, dtype=bool), np.ones((1, 12), bool))
    return el.ConceptDataset("short", tuple(sentences), WORDS, ("animal", "food"), labels, np.ones(24, bool))


@pytest.fixture(scope="module")
def learned(model, concepts):
    return el.learn_steering(model, concepts, "cat", sites=SITES, steps=8, sentences=6, most_tokens=10)


def by_units(model, sites, **values):
    """A steering of all units at sites, with the same values for each."""
    return el.steer_units(model, _table(model, sites), **values)


def _table(model, sites):
    return model.units[model.units["site"].isin(sites)]


def learnable(model, sites, sentences):
    return _learnable(model, _table(model, sites)[["layer", "site", "channel"]], sites, sentences)


def some_maps(model, sites, size, seed=0):
    rng, widths = np.random.default_rng(seed), model.config.site_channels()
    shapes = {site: (model.config.num_layers, widths[site]) for site in sites}
    return {
        site: tuple(jnp.asarray(rng.normal(0, size, shape), jnp.float32) for _ in range(2))
        for site, shape in shapes.items()
    }


def as_steering(model, units, maps):
    """The same maps by their formula, as a steering of units by hand."""
    table = _table(model, tuple(maps))
    scale, shift = [], []
    for layer, site, channel in table[["layer", "site", "channel"]].itertuples(index=False):
        change, moved = (float(each[layer, channel]) for each in maps[site])
        mean, spread = (float(each[site][layer, channel]) for each in (units.mean, units.spread))
        scale.append(1 + change)  # mean + (1 + a)(x - mean) + b spread
        shift.append(mean - (1 + change) * mean + moved * spread)
    return el.steer_units(model, table, scale=np.array(scale), shift=np.array(shift))


def test_a_unit_is_told_by_the_mean_and_the_spread_of_its_responses(model, concepts):
    units = learnable(model, SITES, list(concepts.sentences))
    told = el.record_responses(model, concepts.sentences, sites=SITES, pooling="mean")
    for site in SITES:
        here = told.values[:, told["site"].values.astype(str) == site]
        for mine, wanted in ((units.mean, here.mean(axis=0)), (units.spread, here.std(axis=0))):
            np.testing.assert_allclose(mine[site].ravel(), wanted, rtol=1e-5, atol=1e-6)
        assert units.chosen[site].all()


@pytest.mark.parametrize("word", [" cat", " unbelievable"])
def test_the_loss_of_a_word_is_its_formula_in_pytorch(model, concepts, word):
    """A word of one token, and one of several; divergence against torch's own kl_div."""
    units = learnable(model, SITES, list(concepts.sentences))
    maps = some_maps(model, SITES, 0.3)
    learning = el.Learning(most_tokens=12)
    batch = _draw_words(model, word, list(concepts.sentences[12:]), 3, learning)(np.random.default_rng(5))
    network = Transformer(model.config, Taps(SITES, "mean"), jnp.dtype(model.dtype))
    loss = word_loss(network, model.params, units.collection(maps), batch, 2.5)

    steering = as_steering(model, units, maps)
    pieces = len(model.tokenizer(word)["input_ids"])
    assert (pieces > 1) == (word == " unbelievable")
    given, divergences = [], []
    for ids, mask in zip(batch.token_ids, batch.attention_mask, strict=True):
        ids = ids[mask]
        assert model.tokenizer.decode(ids).endswith(word)
        steered, plain = (
            torch.log_softmax(torch.tensor(np.array(model([ids.tolist()], steering=each)))[0], -1)
            for each in (steering, None)
        )
        before = len(ids) - pieces
        first = steered[:before, ids[before]].logsumexp(0) - np.log(before)
        rest = sum(steered[before + i - 1, ids[before + i]] for i in range(1, pieces))
        given.append(float(first + rest))
        compared = [*range(before), len(ids) - 1]
        divergences.append(
            torch.nn.functional.kl_div(plain[compared], steered[compared], log_target=True, reduction="none").sum(1)
        )
    wanted = 2.5 * float(torch.cat(divergences).mean()) - np.mean(given)
    assert float(loss) == pytest.approx(wanted, rel=2e-4)


@pytest.mark.long
def test_the_loss_of_a_distribution_is_the_sum_of_squared_wasserstein_distances(model, concepts):
    """Against the responses that the steered and the plain model give; of one unit, scipy's distance bounds it."""
    units = learnable(model, SITES, list(concepts.sentences))
    maps = some_maps(model, SITES, 0.3, seed=1)
    others, own = list(concepts.sentences[12:]), list(concepts.sentences[:12])
    batch = _draw_texts(model, others, own, 4, el.Learning(most_tokens=12))(np.random.default_rng(3))
    network = Transformer(model.config, Taps(SITES, "mean"), jnp.dtype(model.dtype))
    loss = distribution_loss(network, model.params, units.collection(maps), batch, units)
    steering, total = as_steering(model, units, maps), 0.0
    args = [(batch.token_ids[:, which], batch.attention_mask[:, which]) for which in (0, 1)]
    moved = np.asarray(model.respond(*args[0], sites=SITES, pooling="mean", steering=steering))
    wanted = np.asarray(model.respond(*args[1], sites=SITES, pooling="mean"))
    spread = np.concatenate([np.concatenate([units.spread[s][layer] for s in SITES]) for layer in range(4)])
    assert moved.shape[1] == len(spread)
    squares = np.square((np.sort(moved, 0) - np.sort(wanted, 0)) / spread).mean(0)
    total = squares.sum()
    assert float(loss) == pytest.approx(total, rel=1e-3)
    distance = scipy.stats.wasserstein_distance(moved[:, 7] / spread[7], wanted[:, 7] / spread[7])
    assert distance**2 <= squares[7] * (1 + 1e-5)  # of order 1 and 2: Jensen's inequality


def test_no_map_changes_nothing(model, concepts):
    units = learnable(model, SITES, list(concepts.sentences))
    steering = units.collection(some_maps(model, SITES, 0.0))
    assert all((leaf in (0, 1)) for leaf in jax.tree.map(lambda x: float(x.max()), jax.tree.leaves(steering)))


def test_what_is_shrunk_is_drawn_to_zero_and_not_past_it():
    maps = {"resid": (jnp.array([[3.0, -0.5]]), jnp.array([[-2.0, 1.0]]))}
    by = {"resid": (jnp.array([[1.0, 1.0]]), jnp.array([[0.5, 1.0]]))}
    (first, second) = shrink(maps, by)["resid"]
    assert first.tolist() == [[2.0, 0.0]] and second.tolist() == [[-1.5, 0.0]]


def test_the_word_becomes_likelier_after_texts_that_it_was_not_learned_on(model, learned):
    plain = score_words(model, BEGINNINGS, ["cat"])
    steered = score_words(model, BEGINNINGS, ["cat"], steering=learned)
    assert (steered > plain + 1).all()
    assert (learned.table["scale"] == 1).all() and set(learned.table["site"]) == {*SITES}
    assert repr(learned) == "Steering of lenslet-2m: cat, learned (word); 1,024 units (512 at attn.v, 512 at mlp.down)"


def test_more_fluency_makes_the_word_rarer_and_the_text_more_like_the_models_own(model, concepts):
    gains, distances = [], []
    for fluency in (0.0, 60.0):
        settings = {"steps": 8, "sentences": 6, "most_tokens": 10, "fluency": fluency}
        steering = el.learn_steering(model, concepts, "cat", sites=SITES, **settings)
        gains.append(score_words(model, BEGINNINGS, ["cat"], steering=steering).mean())
        ids = model.tokenizer(list(BEGINNINGS))["input_ids"]
        steered, plain = (np.asarray(model(ids, steering=each)) for each in (steering, None))
        distances.append(np.square(steered - plain).mean())
    assert gains[0] > gains[1] and distances[0] > distances[1]


def test_the_same_seed_learns_the_same_and_only_the_chosen_units(model, concepts):
    units = el.top_experts(
        el.measure_expertise(el.record_responses(model, concepts.sentences, sites=SITES), concepts), "cat", 9
    )
    programs = learned_steering._take_step._cache_size()
    first, second = (
        el.learn_steering(model, concepts, "cat", units=units, steps=2, sentences=6, most_tokens=10) for _ in range(2)
    )
    assert learned_steering._take_step._cache_size() == programs + 1  # of all steps, the first one too
    pd_units = {tuple(row) for row in units[["layer", "site", "channel"]].astype({"site": str}).to_numpy().tolist()}
    assert set(first.units) == pd_units and len(first) == 9
    np.testing.assert_array_equal(first.shift, second.shift)
    assert first.provenance.same_model(model.provenance)


def test_a_distribution_is_learned_with_scales_and_a_price_leaves_units_alone(model, concepts):
    settings = {"objective": "distribution", "sites": ("mlp.down",), "steps": 12, "sentences": 6, "most_tokens": 10}
    free = el.learn_steering(model, concepts, "cat", **settings)
    dear = el.learn_steering(model, concepts, "cat", **settings, sparsity=2.0)
    assert len(free) == 512 and (free.table["scale"] != 1).all()
    assert 0 < len(dear) < 400

    others, own = list(concepts.sentences[12:]), list(concepts.sentences[:12])

    def apart(steering):
        """How far the means over sentences are apart, in the spread of the concept's."""
        moved = el.record_responses(model, others, sites="mlp.down", pooling="mean", steering=steering).values
        wanted = el.record_responses(model, own, sites="mlp.down", pooling="mean").values
        return np.abs((moved.mean(0) - wanted.mean(0)) / wanted.std(0)).mean()

    assert apart(free) < 0.8 * apart(None)
    with pytest.raises(SelectionError, match="no unit is changed: being changed is dearer"):
        el.learn_steering(model, concepts, "cat", **settings, sparsity=1e6)


def test_an_encoder_learns_a_distribution_and_no_word(tmp_path, concepts):
    case = next(case for case in families.CASES if case.name == "bert")
    encoder = el.load_model(families.save(families.make_hf_model(case), tmp_path))
    with pytest.raises(
        UnsupportedModelError, match=r'writes no words. Learn its steering with objective="distribution"'
    ):
        el.learn_steering(encoder, concepts, "cat")
    longer = tuple(f"{sentence} And so on." if i < 12 else sentence for i, sentence in enumerate(concepts.sentences))
    concepts = dataclasses.replace(concepts, sentences=longer)  # its tiny vocabulary has none of their words
    steering = el.learn_steering(
        encoder, concepts, "cat", objective="distribution", sites="mlp.down", steps=1, sentences=2, most_tokens=12
    )
    assert set(steering.table["site"]) == {"mlp.down"}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"concept": "unicorn"}, ConceptDataError, "'short' has no concept 'unicorn'; it has 2 others."),
        ({"steps": 0}, SettingError, "steps=0 was given; wanted a whole number of 1 or more."),
        ({"objective": "truth"}, SettingError, "objective='truth' was given; wanted one of word, distribution."),
        ({"sparsity": -1}, SettingError, "sparsity=-1 was given; wanted a number of 0 or more."),
        ({"rate": 0}, SettingError, "rate=0 was given; wanted a number above 0."),
        ({"pace": 3}, SettingError, "learn_steering has no setting 'pace'."),
        ({"learning": el.Learning(), "steps": 3}, SettingError, "which holds that setting too"),
        ({"sites": "mlp.down", "units": 1}, SelectionError, "units and sites were both given"),
        ({"sites": "mlp.sideways"}, SelectionError, "mlp.sideways"),
        ({"sites": "attn.heads"}, SelectionError, "attn.heads"),
        ({"most_tokens": 3, "concept": "long"}, SettingError, "most_tokens=3 was given, and ' unbelievableness' alone"),
    ],
)
def test_what_cannot_be_learned_is_told_by_name(model, concepts, given, error, message):
    long = dataclasses.replace(concepts, concepts=("long", "bread"), words=("unbelievableness", "bread"))
    with pytest.raises(error, match=message):
        el.learn_steering(model, long if given.get("concept") == "long" else concepts, **{"concept": "cat"} | given)


def test_units_of_another_model_and_too_few_sentences_are_refused(model, concepts):
    table = _table(model, SITES).head(2).assign(channel=9999)
    with pytest.raises(SelectionError, match=r"lenslet-2m has no unit layer 0, site attn.v, channel 9999"):
        el.learn_steering(model, concepts, "cat", units=table)
    with pytest.raises(SelectionError, match="no units were given to learn a steering of"):
        el.learn_steering(model, concepts, "cat", units=table.head(0))
    with pytest.raises(ConceptDataError, match="'short' has 0 sentences that can stand against those of 'cat'"):
        el.learn_steering(model, concepts.subset(["cat"]), "cat")
    wordless = dataclasses.replace(concepts, words=("", "bread"))
    with pytest.raises(UnfitConceptsError, match="steering that is learned by a concept's word can't be made of"):
        el.learn_steering(model, wordless, "cat")
