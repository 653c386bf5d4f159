"""Recording over several devices that hold parts of each parameter: the same responses, with few collectives.

A mixture of experts too, by either way of computing it; and steering at some tokens only.
"""

import json

import families
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


@pytest.mark.long
@pytest.mark.parametrize("model_axis", ["2", "4", "8"])
def test_the_same_responses_and_one_gather_of_the_residual_stream_a_layer(report, model_axis):
    found = report[model_axis]
    assert found["apart"] < 2e-5  # float32 sums in another order, of responses up to 14
    assert found["gathers"] == 1  # in the loop over layers
    assert found["rows"] >= 1  # what comes out is split over all devices


MIXTURE = families.Case(
    "mixtral",
    "MixtralConfig",
    dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=96)
    | dict(num_local_experts=8, num_experts_per_tok=3),
)
"""Two experts to each of four devices."""

OF_MIXTURE = """
import json, re, sys
import jax
import numpy as np
import expertlens_jax as el
from expertlens_jax import parallel
from expertlens_jax.experts.responses import prepare_recording
from expertlens_jax.models import routing
from expertlens_jax.models.model import respond

sentences = ["a ba c", "d", "fo e x y", "b", "z lu mi", "q r s t u", "o", "e f"]
sites = ("mlp.router", "mlp.up", "mlp.act", "mlp.down", "resid")
whole, split = el.load_model(sys.argv[1]), el.load_model(sys.argv[1], mesh=parallel.make_mesh(model=4))
kernels = split.params["layers"]["mlp"]["up"]["kernels"]
report = {"experts": sorted({shard.index[1].indices(8)[:2] for shard in kernels.addressable_shards})}
alone = el.record_responses(whole, sentences, sites=sites).values
for way in ("dense", "grouped"):
    if way == "grouped":
        routing.LARGE = 0  # as if these experts were large
        jax.clear_caches()
    recording = prepare_recording(split, sentences, el.Recording(sites=sites))
    batch = next(recording.batches())
    arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, batch.pool_mask), recording.mesh)
    lowered = respond.lower(recording.network, recording.params, *arrays, None)
    text = lowered.compile().as_text()
    report[way] = {
        "by_device": lowered.as_text().count("manual_computation"),
        "apart": float(np.abs(el.record_responses(split, sentences, sites=sites).values - alone).max()),
        "rows": len(batch.token_ids),
        "gathered": re.findall(r"= [a-z0-9]+\\[([0-9,]*)\\]\\S* all-gather", text),
        "sums": len(re.findall(r" (?:all-reduce|reduce-scatter)\\(", text)),
    }

units = [(1, site, channel) for site in ("mlp.up", "mlp.act", "mlp.down", "resid") for channel in (1, 7)]
by_hand = el.steer_units(whole, el.trace(whole, ["a"], units).units, scale=0.5, shift=2.0)
token_ids = whole.tokenizer(sentences)["input_ids"]
for name, when in {
    "every token": None,
    "from a token": el.When(from_token=2),
    "an expert's unit": el.When(unit=(0, "mlp.act", 5), above=0.0),
    "a unit of the stream": el.When(unit=(0, "resid", 7), below=0.3, from_token=1),
    "the continuation": el.When(part="continuation"),
}.items():
    steering = by_hand if when is None else by_hand.only(when)
    if name == "the continuation":
        greedily = {"max_new_tokens": 4, "temperature": 0}
        said = [el.generate(each, sentences[:3], steering=steering, **greedily) for each in (whole, split)]
        plain = el.generate(whole, sentences[:3], **greedily)
        ours, theirs, unsteered = (np.concatenate(each.log_probs) for each in (*said, plain))
        assert [each.tolist() for each in said[0].token_ids] == [each.tolist() for each in said[1].token_ids]
    else:
        ours, theirs = (el.record_responses(each, sentences, sites=sites, steering=steering).values
                        for each in (whole, split))
        logits = [np.asarray(each(token_ids, steering=steering)) for each in (whole, split)]
        real = np.arange(logits[0].shape[1]) < np.array([len(row) for row in token_ids])[:, None]
        report[f"{name}, logits"] = float(np.abs(logits[0] - logits[1])[real].max())
        unsteered = alone
    report[name] = [float(np.abs(ours - theirs).max()), float(np.abs(ours - unsteered).max())]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    """What a process with eight devices finds of a mixture's experts that are split over four."""
    directory = families.save(families.make_hf_model(MIXTURE), tmp_path_factory.mktemp("mixture"))
    said = run_script(OF_MIXTURE, directory)
    assert "rematerialization" not in said
    return json.loads(said.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("way", ["dense", "grouped"])
def test_experts_stay_where_they_are_and_their_sums_meet(mixture, way):
    found = mixture[way]
    assert mixture["experts"] == [[0, 2], [2, 4], [4, 6], [6, 8]]
    assert found["apart"] < 2e-5
    # In the loop over layers: the choice of experts, and where products are grouped, gate, up and down.
    assert found["by_device"] == (4 if way == "grouped" else 1)
    shapes = [[int(size) for size in shape.split(",") if size] for shape in found["gathered"]]
    assert [48] in [shape[-1:] for shape in shapes]  # the residual stream is gathered, so gathers are found
    assert not [shape for shape in shapes if {48, 96} <= set(shape)]  # and no expert's weights, [..., 48, 96]
    assert all(shape[0] <= found["rows"] // 2 for shape in shapes)  # nor rows, which are split over two
    assert found["sums"] >= 1


@pytest.mark.long
@pytest.mark.parametrize("name", ["every token", "from a token", "an expert's unit", "a unit of the stream"])
def test_steering_at_some_tokens_is_the_same_over_devices(mixture, name):
    apart, changed = mixture[name]
    assert apart < 2e-5 and mixture[f"{name}, logits"] < 2e-5
    assert changed > 0.1


@pytest.mark.long
def test_steering_a_continuation_is_the_same_over_devices(mixture):
    apart, changed = mixture["the continuation"]
    assert apart < 2e-5 and changed > 1e-3
