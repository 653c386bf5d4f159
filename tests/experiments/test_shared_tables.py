"""Tables that experiments share: each is handed out to its own model and sentences only, whatever these are called."""

import jax
import pytest

import expertlens_jax as el
from configs.demo import get_config
from experiments.expertise import saved_expertise
from expertlens_jax.errors import RunDirectoryError


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
