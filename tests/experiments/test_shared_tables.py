"""Tables that experiments share: each is handed out to its own model and sentences only, whatever these are called."""

import jax
import numpy as np
import pytest

import expertlens_jax as el
from configs.demo import get_config
from configs.find_experts import get_config as config_of_find_experts
from configs.minilm import get_config as config_of_minilm
from experiments.baselines import kept_beside
from experiments.expertise import asked_together, read_store, saved_expertise, tables_root, wants_transport
from experiments.run import Run
from experiments.sources import Sources
from expertlens_jax.analysis.similarity.embeddings import EMBEDDED, embed_concepts
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import RunDirectoryError
from expertlens_jax.experts import pipeline, poolings
from expertlens_jax.models.packaged import packaged_directory


@pytest.mark.long
def test_a_shared_table_of_another_model_of_the_same_name_is_refused(tmp_path):
    config = get_config("small")
    concepts = el.load_concepts("facts").subset(("cat", "dog", "car"))
    model = el.load_model("lenslet-2m")
    table = saved_expertise(model, concepts, config, tmp_path)
    assert saved_expertise(model, concepts, config, tmp_path).identical(table)
    tuned = model.replace(params=jax.tree.map(lambda leaf: leaf * 1.01, dict(model.params)))
    with pytest.raises(RunDirectoryError, match=r"lenslet-2m_facts holds a run with another config \(weights: "):
        saved_expertise(tuned, concepts, config, tmp_path)
    named = saved_expertise(tuned.replace(name="tuned"), concepts, config, tmp_path)
    assert named.attrs["model"] == "tuned" and named.attrs["weights"] != table.attrs["weights"]
    with pytest.raises(RunDirectoryError, match=r"another config \(sentences_sha256: "):
        saved_expertise(model, el.load_concepts("facts").subset(("cat", "dog", "bus")), config, tmp_path)


@pytest.fixture
def asking():
    config = get_config("small")
    config.base_rates.negatives_per_positive, config.negatives.ratios = (1, 5), (2.5, 5.0, 10)
    config.stability.seeds = (1, 2)
    return config


@pytest.mark.long
def test_tables_of_one_model_and_sentences_record_once_and_sort_together(asking, tmp_path, monkeypatch):
    model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(("cat", "dog", "car", "bus"))
    bare = dict(halves=False, permutations=0, transport=False, significant_bits=12)
    changes = [dict(negatives_per_positive=float(ratio)) for ratio in (1, 5, 10)]
    changes += [dict(sampled=True, seed=seed) for seed in (1, 2)]
    want = [
        el.find_experts(model, concepts, tmp_path / f"want{number}", tokens_per_batch=1024, **each, **bare).load()
        for number, each in enumerate(changes)
    ]
    recorded, ranked = [], []
    record, rank = pipeline.record, pipeline.rank
    monkeypatch.setattr(pipeline, "record", lambda *args: recorded.append(1) or record(*args))
    monkeypatch.setattr(pipeline, "rank", lambda *args: ranked.append(1) or rank(*args))
    plain = saved_expertise(model, concepts, asking, tmp_path, keep=True)
    got = [saved_expertise(model, concepts, asking, tmp_path, keep=True, **each) for each in changes]
    for table, alone in zip(got, want, strict=True):
        assert table["average_precision"].values.tobytes() == alone["average_precision"].values.tobytes()
        for name in el.Negatives().attributes():
            assert table.attrs[name] == alone.attrs[name]
    halves = saved_expertise(model, concepts, asking, tmp_path, keep=True, halves=True)
    assert halves["average_precision"].values.tobytes() == plain["average_precision"].values.tobytes()
    alone = el.find_experts(model, concepts, tmp_path / "halves", tokens_per_batch=1024, **bare | {"halves": True})
    assert halves["average_precision_halves"].values.tobytes() == alone["average_precision_halves"].values.tobytes()
    fewer = draw_sentences(concepts, 5)
    small = saved_expertise(model, fewer, asking, tmp_path)
    # One of each is the library's, asked for the halves above; the others' rankings are of four tables.
    assert (len(recorded), len(ranked)) == (2, 5)
    alone = el.find_experts(model, fewer, tmp_path / "fewer", tokens_per_batch=1024, **bare)
    assert small["average_precision"].values.tobytes() == alone["average_precision"].values.tobytes()


def test_responses_are_kept_of_the_own_model_and_sentences_alone(asking, tmp_path):
    asking.concepts = ("cat", "dog", "car")
    this = Run(asking, tmp_path, Sources())
    concepts = this.datasets[0]
    this.expertise(this.random_model(0), concepts)
    this.expertise(this.model, concepts, pool_over="others")
    this.expertise(this.model, draw_sentences(concepts, 5))
    assert not list((tmp_path / "expertise").glob("responses/*/responses.float32"))
    this.expertise(this.model, concepts)
    assert len(list((tmp_path / "expertise").glob("responses/*/responses.float32"))) == 1
    asking.kept_gigabytes = 0.0
    assert read_store(asking, tmp_path, read_only=False) is None


@pytest.mark.long
def test_embeddings_are_read_unrounded_by_the_pass_that_finds_the_experts(asking, tmp_path, monkeypatch):
    asking.concepts, asking.sites = ("cat", "car"), ("attn.v",)
    this = Run(asking, tmp_path, Sources())
    concepts = this.datasets[0]
    want = embed_concepts(this.model, concepts)
    found = this.expertise(this.model, concepts, **kept_beside(asking))
    alone = el.record_responses(this.model, concepts.sentences, sites="attn.v", significant_bits=12)
    told = el.measure_expertise(alone, concepts)
    np.testing.assert_array_equal(found["average_precision"], told["average_precision"])
    monkeypatch.setattr(poolings, "reading_together", None)  # would be called
    store = read_store(asking, tables_root(asking, tmp_path), read_only=True)
    assert embed_concepts(this.model, concepts, store=store).identical(want)


def test_embeddings_are_not_read_by_a_pass_in_a_chat():
    config = get_config("small")
    assert kept_beside(config)["beside"] == EMBEDDED
    config.chat = "user"
    assert kept_beside(config)["beside"] == ()


def test_controls_by_own_tokens_are_of_the_pass_that_finds_the_experts(asking, tmp_path, monkeypatch):
    asking.concepts, asking.sites, asking.own_tokens = ("cat", "car"), ("attn.v",), True
    this = Run(asking, tmp_path / "together", Sources())
    concepts, alone = this.datasets[0], Run(asking, tmp_path / "alone", this.sources)
    want = {over: alone.expertise(this.model, concepts, pool_over=over) for over in ("concept", "others")}
    this.expertise(this.model, concepts, **kept_beside(asking))
    monkeypatch.setattr(pipeline, "record", None)  # would be called
    for over, table in want.items():
        assert this.expertise(this.model, concepts, pool_over=over).identical(table)
    asking.own_tokens = False
    assert kept_beside(asking)["also_over"] == ()


def test_slopes_of_the_transport_are_measured_where_steering_reads_them():
    full, small = get_config("full"), get_config("small")
    assert wants_transport(full) and not wants_transport(small)
    for setting in ("methods", "away_methods"):
        steered = get_config("small")
        steered.steering[setting] = ("set_median", "linear_ot")
        assert wants_transport(steered)
    assert not wants_transport(config_of_minilm("small")) and wants_transport(config_of_find_experts())


def test_only_the_own_models_table_of_the_own_sentences_has_slopes_of_the_transport(asking, tmp_path):
    asking.transport, asking.concepts, asking.sites = True, ("cat", "car"), ("attn.v",)
    this = Run(asking, tmp_path, Sources())
    concepts = this.datasets[0]
    others = [
        this.expertise(this.random_model(0), concepts),
        this.expertise(this.model, draw_sentences(concepts, 5)),
        this.expertise(this.model, concepts, pool_over="others"),
    ]
    assert "transport_slope" in this.expertise(this.named_model(asking.model), concepts)  # the same model, named
    assert not any("transport_slope" in each for each in others)


def test_a_directory_is_one_model_however_its_path_is_written():
    config, sources, directory = get_config("small"), Sources(), packaged_directory("lenslet-2m", None)
    config.model = str(directory)
    assert sources.holds(sources.named_model(f"{directory.parent}/./{directory.name}", config), config)
    assert not sources.holds(sources.named_model("lenslet-2m-seed1", config), config)


def test_what_is_asked_alone_is_measured_alone(asking):
    own, concepts = el.Negatives(), el.load_concepts("facts").subset(("cat", "dog", "car", "bus"))
    assert asked_together(asking, concepts, own, halves=False) == ([own], False)
    other = el.Negatives(per_positive=7)
    assert asked_together(asking, concepts, other, halves=False) == ([other], False)
    rates = [own, *(el.Negatives(ratio) for ratio in (1.0, 5.0, 10.0))]
    assert asked_together(asking, concepts, el.Negatives(5), halves=False) == (rates, False)
    samples = [own, *(el.Negatives(sampled=True, seed=seed) for seed in (1, 2))]
    assert asked_together(asking, concepts, samples[1], halves=False) == (samples, True)
    assert asked_together(asking, concepts, own, halves=True) == (samples, True)
    assert asked_together(asking, concepts, own, halves=True, own=False) == ([own], True)
    assert asked_together(asking, concepts, samples[1], halves=False, own=False) == (samples, True)
    assert asked_together(config_of_find_experts(), concepts, own, halves=True) == ([own], True)
    # What another experiment asks in vain doesn't stop this one.
    asking.sampled, asking.negatives.ratios = True, (1.0, 1000.0)
    sampled = [el.Negatives(sampled=True), el.Negatives(1.0, sampled=True)]
    assert asked_together(asking, concepts, sampled[1], halves=False) == (sampled, False)
