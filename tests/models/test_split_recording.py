"""Recording over several devices that hold parts of each parameter: the same responses, with few collectives."""

import json

import pytest
from launched import run_script

CHILD = """
import json, re, sys
import numpy as np
import expertlens_jax as el
from expertlens_jax import parallel
from expertlens_jax.experts.responses import prepare_recording
from expertlens_jax.models.model import respond

sentences = el.load_concepts("facts").sentences[:24]
alone = el.record_responses(el.load_model("lenslet-2m"), sentences).values
report = {}
for model_axis in (2, 4, 8):  # 4 heads: two on a device, one, and half of one, where rows are split instead
    model = el.load_model("lenslet-2m", mesh=parallel.make_mesh(model=model_axis))
    recording = prepare_recording(model, sentences)
    batch = next(recording.batches())
    arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, batch.pool_mask), recording.mesh)
    text = respond.lower(recording.network, recording.params, *arrays, None).compile().as_text()
    rows, tokens = batch.token_ids.shape
    width = model.config.d_model
    split = el.record_responses(model, sentences).values
    report[model_axis] = {
        "apart": float(np.abs(split - alone).max()),
        "gathers": len(re.findall(rf"= f32\\[{rows * model_axis // 8},{tokens},{width}\\]\\S* all-gather\\(", text)),
        "rows": len(re.findall(rf"ROOT .*f32\\[{rows // 8},", text)),
    }
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report():
    """What a process with eight devices finds, by the length of the mesh's model axis."""
    said = run_script(CHILD, optimised=True)
    assert "rematerialization" not in said  # what XLA says when it must gather all to lay an array out anew
    return json.loads(said.splitlines()[-1])


@pytest.mark.parametrize("model_axis", ["2", "4", "8"])
def test_the_same_responses_and_one_gather_of_the_residual_stream_a_layer(report, model_axis):
    found = report[model_axis]
    assert found["apart"] < 2e-5  # float32 sums in another order, of responses up to 14
    assert found["gathers"] == 1  # in the loop over layers
    assert found["rows"] >= 1  # what comes out is split over all devices
