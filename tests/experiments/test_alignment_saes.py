"""SAE features beside a model's experts in the alignment experiment: named, measured as the library does, refused."""

import families
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

import expertlens_jax as el
from configs.minilm import get_config
from experiments.baselines import compare_concepts
from experiments.run import Run
from experiments.sources import Sources
from expertlens_jax.errors import CheckpointError, SelectionError
from expertlens_jax.models.sae_named import carry_each

FEATURES = 200


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "bert")
    return families.save(families.make_hf_model(case), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory)


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    rng = np.random.default_rng(0)
    syllables = np.array([consonant + vowel for consonant in "bdfklmnp" for vowel in "aeiou"])
    words, others = syllables[:6], syllables[6:]
    rows = [
        {"concept": word, "domain": "", "sentence": f"{word} {' '.join(rest)}"}
        for word in words
        for rest in rng.choice(others, (8, 4))
    ]
    path = tmp_path_factory.mktemp("sentences") / "syllables.tsv"
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return el.load_concepts(path)


@pytest.fixture(scope="module")
def saes(tmp_path_factory):
    """A directory of SAELens and one of Gemma Scope, of random weights; the former reads layer 1."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("saes")
    weights = {
        "W_enc": rng.normal(size=(36, FEATURES)).astype(np.float32),
        "b_enc": rng.normal(size=FEATURES).astype(np.float32),
        "b_dec": rng.normal(size=36).astype(np.float32),
        "threshold": np.full(FEATURES, 0.5, np.float32),
    }
    for name in ("named", "average_l0_9"):
        (root / name).mkdir()
    safetensors.numpy.save_file(weights, root / "named" / "sae_weights.safetensors")
    (root / "named" / "cfg.json").write_text('{"architecture": "jumprelu", "hook_name": "blocks.2.hook_resid_pre"}')
    np.savez(root / "average_l0_9" / "params.npz", **weights)
    return root


def settings(**changes):
    config = get_config("small")
    config.base_rates.negatives_per_positive = config.random_weights = ()
    config.update(changes)
    return config


@pytest.mark.long
def test_jaccard_of_features_is_a_baseline_named_after_the_directory(directory, model, concepts, saes, tmp_path):
    config = settings(saes=(f"{saes}/named", f"{saes}/average_l0_9@1"), model=str(directory), model_sha256="")
    carrying = carry_each(model, config.saes)
    this = Run(config, tmp_path, Sources())
    measures = compare_concepts(this, concepts, this.expertise(this.model, concepts), {}, carrying)
    by_name = {each.name: each for each in measures}
    for name, sae in {
        "sae_named": el.load_sae(saes / "named"),
        "sae_average_l0_9_layer1": el.load_sae(saes / "average_l0_9", layer=1),
    }.items():
        responses = el.record_responses(model.with_sae(sae), concepts.sentences, sites=("sae",))
        experts = el.select_experts(el.measure_expertise(responses, concepts), threshold=0.5)
        found = by_name[f"jaccard_{name}"]
        assert found.group == "Baselines" and found.threshold == 0.5
        np.testing.assert_allclose(found.similarity.values, el.jaccard(experts).values, atol=1e-6)
        assert 0 < found.similarity.values[np.triu_indices(6, 1)].max() < 1
    assert not np.allclose(by_name["jaccard_sae_named"].similarity, by_name["jaccard"].similarity)


def test_saes_that_cannot_be_used_are_refused_before_anything_runs(model, saes, tmp_path):
    with pytest.raises(SelectionError, match="two of them would be called sae_named; rename one's directory"):
        carry_each(model, (f"{saes}/named", f"{saes}/named"))
    with pytest.raises(CheckpointError, match="doesn't say which layer it reads"):
        carry_each(model, (f"{saes}/average_l0_9",))
    with pytest.raises(CheckpointError, match="reads layer 7; .* has layers 0 to 2"):
        carry_each(model, (f"{saes}/average_l0_9@7",))


def test_what_an_sae_is_loaded_with_can_be_told(model, saes):
    carrying = carry_each(model, (f"{saes}/average_l0_9@layer=1,site=mlp.down,centred=True",))
    ((name, carried),) = carrying.items()
    assert name == "sae_average_l0_9_layer1"
    assert (carried.saes[0].layer, carried.saes[0].site, carried.saes[0].centred) == (1, "mlp.down", True)
    for wrong in ("layer=one", "centred=yes", "width=3"):
        with pytest.raises(SelectionError, match=f"'{wrong}' in it isn't understood. Write PATH, PATH@12"):
            carry_each(model, (f"{saes}/average_l0_9@{wrong}",))
