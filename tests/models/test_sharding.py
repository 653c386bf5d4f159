"""Parameters split over eight virtual devices: the same outputs, and no device holds more than its share."""

import json

import families
import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from launched import run_script

import expertlens_jax as el
from expertlens_jax import parallel
from expertlens_jax.errors import CheckpointError, ExpertLensError
from expertlens_jax.models.sharding import partition

SIZES = dict(hidden_size=48, num_hidden_layers=3, intermediate_size=96)
CASES = {
    # Each with something that the model axis doesn't divide: the vocabulary is 83.
    "gpt2": families.Case("gpt2", "GPT2Config", dict(n_embd=48, n_layer=3, n_head=3, n_positions=40)),
    "gpt_neox": families.Case("gpt_neox", "GPTNeoXConfig", SIZES | dict(num_attention_heads=3)),
    "llama": families.Case(
        "llama", "LlamaConfig", SIZES | dict(num_attention_heads=6, num_key_value_heads=2, head_dim=10)
    ),
}

CASES["mixtral"] = families.Case(
    "mixtral", "MixtralConfig", CASES["llama"].options | dict(num_local_experts=8, num_experts_per_tok=3)
)
"""Two experts to each part of the model axis."""

CASES["gemma4_text"] = families.Case(
    "gemma4_text",
    "Gemma4TextConfig",
    families.GEMMA4
    | dict(hidden_size=48, intermediate_size=96, hidden_size_per_layer_input=8, final_logit_softcapping=None),
)
"""Layers that differ: key heads are 2 to 4 parts of the model axis."""

MODEL_AXIS = {"gpt2": 8, "gpt_neox": 4, "llama": 4, "mixtral": 4, "gemma4_text": 4}

CHILD = """
import json, pathlib, sys
import jax, numpy as np
import expertlens_jax as el
from expertlens_jax import parallel
from expertlens_jax.models.loading import randomize_weights

token_ids = np.random.default_rng(0).integers(4, 83, (8, 11))
mask = np.arange(11) < np.arange(4, 12)[:, None]


def apart(ours, theirs):
    return float(np.abs(np.asarray(ours, np.float32) - np.asarray(theirs, np.float32))[mask].max())


def compare(directory, model_axis):
    mesh, other = parallel.make_mesh(model=model_axis), parallel.make_mesh(model=1)
    cached = dict(use_cache=True, cache_dir=directory / "cache")
    plain = el.load_model(directory)
    logits = plain(token_ids, mask)
    report = {"scale": float(np.abs(np.asarray(logits)).max())}
    for name, model in {
        "read": el.load_model(directory, mesh=mesh),
        "stored from another mesh": el.load_model(directory, mesh=other, **cached),
        "restored": el.load_model(directory, mesh=mesh, **cached),
    }.items():
        leaves = dict(jax.tree_util.tree_leaves_with_path(model.params))
        report[name] = {
            "equal": all(jax.tree.leaves(jax.tree.map(np.array_equal, model.params, plain.params))),
            "mesh": dict(parallel.mesh_of(model.params).shape),
            "bytes": {
                "/".join(key.key for key in path): [
                    leaf.nbytes, max(shard.data.nbytes for shard in leaf.addressable_shards)
                ]
                for path, leaf in leaves.items()
            },
            "held": [
                sum(s.data.nbytes for leaf in leaves.values() for s in leaf.addressable_shards if s.device ==
                device) for device in jax.devices()
            ],
            "whole": sum(leaf.nbytes for leaf in leaves.values()),
        }
    rows = parallel.split_rows((token_ids, mask), mesh)
    report["logits"] = apart(model(token_ids, mask), logits)
    report["logits of split rows"] = apart(model(*rows), logits)
    ours, theirs = (np.asarray(each.respond(token_ids, mask)) for each in (model, plain))
    report["responses"] = float(np.abs(ours - theirs).max())
    random = randomize_weights(model, 0)
    report["random keeps its layout"] = all(
        a.sharding == b.sharding for a, b in zip(jax.tree.leaves(random.params),
        jax.tree.leaves(model.params))
    )
    report["random is the same"] = all(
        jax.tree.leaves(jax.tree.map(np.array_equal, random.params, randomize_weights(plain, 0).params))
    )
    return report


root = pathlib.Path(sys.argv[1])
print(json.dumps({name: compare(root / name, axis) for name, axis in json.loads(sys.argv[2]).items()}))
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What a process with eight devices finds, for each case."""
    root = tmp_path_factory.mktemp("models")
    for name, case in CASES.items():
        families.save(families.make_hf_model(case), root / name)
    return json.loads(run_script(CHILD, root, json.dumps(MODEL_AXIS)).splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_same_model_as_on_one_device(reports, name):
    found = reports[name]
    for how in "read", "stored from another mesh", "restored":
        assert found[how]["equal"]
    assert found["read"]["mesh"] == found["restored"]["mesh"]
    assert found["read"]["mesh"] == {"data": 8 // MODEL_AXIS[name], "model": MODEL_AXIS[name]}
    assert found["stored from another mesh"]["mesh"] == {"data": 8, "model": 1}
    # Parameters are the same bits; in the pass only the order of float32 sums differs.
    tolerance = 2e-6 * found["scale"]
    assert found["logits"] < tolerance and found["logits of split rows"] < tolerance
    assert found["responses"] < 2e-5


@pytest.mark.long
@pytest.mark.parametrize("how", ["read", "restored"])
@pytest.mark.parametrize("name", CASES)
def test_no_device_holds_more_than_its_share(reports, name, how):
    axis, found = MODEL_AXIS[name], reports[name][how]
    whole = {path for path, (total, largest) in found["bytes"].items() if total == largest}
    # Whole are norms, biases, routers and numbers of layers: everything else of two dimensions is split, and evenly.
    assert all("norm" in path or path.endswith(("bias", "scalar")) or "router" in path for path in whole), whole
    share = 0
    for path, (total, largest) in found["bytes"].items():
        assert path in whole or total == axis * largest, path
        share += largest
    assert found["held"] == [share] * 8
    assert share < found["whole"] / axis * 1.5


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_random_weights_keep_the_layout(reports, name):
    assert reports[name]["random keeps its layout"] and reports[name]["random is the same"]


def mesh(model: int) -> Mesh:
    """A mesh that is only asked for its shape."""
    return jax.sharding.AbstractMesh((1, model), ("data", "model"))


@pytest.mark.parametrize(
    ("path", "shape", "model", "expected"),
    [
        ("embed/token", (96, 10), 4, ("model",)),
        ("embed/token", (83, 12), 4, (None, "model")),
        ("embed/token", (83, 10), 4, ()),
        ("head", (12, 96), 4, (None, "model")),
        ("head", (12, 83), 4, ("model",)),
        ("layers/attn/q/kernel", (4, 8, 16), 4, (None, None, "model")),
        ("layers/attn/q/kernel", (4, 8, 18), 4, (None, "model")),
        ("layers/attn/q/bias", (4, 16), 4, (None, "model")),
        ("layers/attn/out/kernel", (4, 16, 8), 4, (None, "model")),
        ("layers/attn/out/bias", (4, 8), 4, ()),
        ("layers/mlp/gate/kernel", (4, 8, 32), 8, (None, None, "model")),
        ("layers/mlp/down/kernel", (4, 32, 8), 8, (None, "model")),
        ("layers/mlp/down/kernel", (8, 9, 7), 8, ()),  # layers are never split
        ("layers/mlp/up/kernels", (4, 8, 12, 36), 4, (None, "model")),  # by experts
        ("layers/mlp/up/kernels", (4, 6, 12, 36), 4, (None, None, None, "model")),
        ("layers/mlp/down/kernels", (4, 6, 36, 12), 4, (None, None, "model")),
        ("layers/mlp/router/kernel", (4, 12, 8), 4, ()),
        ("layers/attn/q_norm/scale", (4, 16), 4, ()),
        ("final_norm/scale", (16,), 4, ()),
    ],
)
def test_rules(path, shape, model, expected):
    assert partition(path, shape, mesh(model)) == PartitionSpec(*expected)


def test_mesh_that_the_devices_cannot_make():
    with pytest.raises(ExpertLensError, match=r"model=7 was given; \d+ devices? .*model=1"):
        parallel.make_mesh(model=7)


def test_mesh_without_a_model_axis(tmp_path):
    with pytest.raises(CheckpointError, match=r"axes \('data',\); load_model wants \(data, model\).*make_mesh"):
        el.load_model(tmp_path, mesh=parallel.data_mesh())


def test_mesh_of_parameters():
    assert parallel.mesh_of({"a": np.ones(3), "b": jax.numpy.ones(3)}) is None
    assert parallel.mesh_of(parallel.replicate({"a": np.ones(3)}, parallel.make_mesh())) == parallel.make_mesh()
