"""Control vectors of llama.cpp, read back by its own library; and what they can't carry."""

import gguf
import numpy as np
import pandas as pd
import pytest

import expertlens_jax as el
from expertlens_jax.errors import SelectionError


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


def shift(model, units, **values):
    rows = pd.DataFrame(units, columns=["layer", "site", "channel"])
    return el.steer_units(model, rows, **{"scale": 1.0, "shift": 0.5} | values)


def test_vectors_are_the_shifts_of_each_layer(model, tmp_path):
    concepts = el.load_concepts("facts").subset(["cat", "rain"])
    expertise = el.measure_expertise(el.record_responses(model, concepts.sentences, sites="resid"), concepts)
    steering = el.steer(expertise, "cat", units=expertise["unit"].values[expertise["layer"].values > 0][::5])
    steering = steering.replace(scale=np.ones(len(steering), np.float32))
    steering.save_gguf(tmp_path / "cat.gguf", model_hint="gpt2")
    reader = gguf.GGUFReader(tmp_path / "cat.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert fields["general.architecture"] == "controlvector" and fields["controlvector.model_hint"] == "gpt2"
    assert fields["controlvector.layer_count"] == 3 and fields["general.description"] == repr(steering)
    read = {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors}
    assert list(read) == ["direction.1", "direction.2", "direction.3"]
    want = np.zeros((4, model.config.d_model), np.float32)
    for (layer, _, channel), value in zip(steering.units, steering.shift, strict=True):
        want[layer, channel] = value
    np.testing.assert_array_equal(np.stack(list(read.values())), want[1:])


@pytest.mark.parametrize(
    ("units", "values", "message"),
    [
        (
            [(1, "resid", 3), (2, "mlp.up", 4)],
            {},
            "1 of its 2 units aren't at the residual stream .*: L2 mlp.up 4",
        ),
        (
            [(1, "resid", 3)],
            {"scale": 0.0},
            "1 of its 1 units are scaled, and a vector can only be added: ",
        ),
        ([(0, "resid", 3), (1, "resid", 3)], {}, "1 of its 2 units are in layer 0, which llama.cpp gives no control"),
        ([], {}, "it changes no unit"),
    ],
)
def test_what_a_control_vector_cannot_carry_is_told(model, tmp_path, units, values, message):
    with pytest.raises(SelectionError, match=f"a control vector can't carry this steering: {message}"):
        shift(model, units, **values).save_gguf(tmp_path / "no.gguf")
    assert not (tmp_path / "no.gguf").exists()


def test_a_table_of_some_channels_is_told(model, tmp_path):
    steering = shift(model, [(1, "resid", 3)]).replace(channels=(("resid", None),))
    with pytest.raises(SelectionError, match="its table holds some channels of resid only, so how long the vectors"):
        steering.save_gguf(tmp_path / "no.gguf")
