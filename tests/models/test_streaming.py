"""Models whose layers stay in the host's memory or in files: the same numbers, to the bit, two layers on a device."""

import re

import families
import jax
import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, SelectionError
from expertlens_jax.models import streaming
from expertlens_jax.models.scoring import score_continuations

SENTENCES = ["a b c d e", "f g", "ba be bi bo bu ka", "x y z"]
CASES = {case.name: case for case in families.CASES}
WHERE = [("gpt_neox", "host"), ("gemma3_text", "disk"), ("gpt_oss", "host"), ("modernbert", "disk")]
WHERE += [("gemma4_text", "disk")]
"""A plain model; one with windows and two rotary embeddings; one of experts and sinks; an encoder; one whose layers
differ in width, and some take keys of others."""


@pytest.fixture(scope="module", params=WHERE, ids=lambda where: "-".join(where))
def pair(request, tmp_path_factory):
    """A model as it is, and streamed."""
    name, offload = request.param
    directory = families.save(families.make_hf_model(CASES[name]), tmp_path_factory.mktemp(name))
    return el.load_model(directory), el.load_model(directory, offload=offload)


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    """A plain one, and the same streamed from its files."""
    directory = families.save(families.make_hf_model(CASES["gpt_neox"]), tmp_path_factory.mktemp("neox"))
    return el.load_model(directory), el.load_model(directory, offload="disk")


@pytest.mark.long
def test_responses_and_outputs_are_the_same_to_the_bit(pair):
    plain, streamed = pair
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (3, 11))
    mask = np.arange(11) < np.array([11, 4, 7])[:, None]
    sites = tuple(plain.config.site_channels())
    responses = [each.respond(token_ids, mask, sites=sites) for each in pair]
    np.testing.assert_array_equal(responses[1], responses[0])
    np.testing.assert_array_equal(streamed(token_ids, mask), plain(token_ids, mask))


def test_the_digest_is_the_same(pair):
    """So that runs are resumed, and steerings taken, wherever the layers are."""
    plain, streamed = pair
    assert streamed.provenance == plain.provenance


def test_two_layers_at_most_are_on_the_device(neox, monkeypatch):
    """Of what was put there, only the layer at work and the next are alive when another is asked for."""
    _, model = neox
    sizes, one_layer = [], sum(leaf.nbytes for leaf in jax.tree.leaves(model.params["layers"].read(0)))
    shapes = {leaf.shape[1:] for leaf in jax.tree.leaves(model.params["layers"].shapes)}
    put = streaming.put_layer

    def watched(*given):
        placed = put(*given)
        alive = [array for array in jax.live_arrays() if array.shape in shapes and len(array.shape) == 2]
        sizes.append(sum(array.nbytes for array in alive))
        return placed

    token_ids = np.full((2, 5), 7)
    model.respond(token_ids)
    before = sum(a.nbytes for a in jax.live_arrays() if a.shape in shapes and len(a.shape) == 2)
    monkeypatch.setattr(streaming, "put_layer", watched)
    model.respond(token_ids)
    assert len(sizes) == model.config.num_layers >= 3
    assert one_layer * 0.5 < max(sizes) - before <= 2 * one_layer


@pytest.mark.long
def test_all_that_reads_a_model_reads_a_streamed_one_alike(neox):
    plain, model = neox
    parameters = re.search(r"[\d,]+ in float32", repr(plain))[0]
    assert f"{parameters}, layers streamed from the checkpoint's files" in repr(model)
    responses = [el.record_responses(each, SENTENCES) for each in (plain, model)]
    np.testing.assert_array_equal(responses[0].values, responses[1].values)

    units = plain.units.sample(5, random_state=0)
    steerings = [el.steer_units(each, units, 0.5, 1.0) for each in (plain, model)]
    token_ids = np.random.default_rng(1).integers(4, families.VOCABULARY, (2, 6))
    steered = [np.asarray(each(token_ids, steering=each_of)) for each, each_of in zip(neox, steerings, strict=True)]
    np.testing.assert_array_equal(steered[0], steered[1])
    assert not np.array_equal(steered[0], plain(token_ids))

    acting = el.intervene("resid", lambda values, at: values * 0.5, layers=[1])
    changed = [np.asarray(each(token_ids, interventions=acting)) for each in neox]
    np.testing.assert_array_equal(changed[0], changed[1])

    seen = [el.trace(each, SENTENCES, units, steering=steerings[0]) for each in neox]
    for one, other in zip(seen[0].activations, seen[1].activations, strict=True):
        np.testing.assert_array_equal(one, other)
    captured = [each.capture(token_ids, sites=["mlp.act"])["mlp.act"] for each in neox]
    np.testing.assert_array_equal(captured[0], captured[1])

    given = dict(prompts=["a b", "c"], continuations=[" c d", " e"])
    for one, other in zip(*(score_continuations(each, **given) for each in neox), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)
    written = [el.generate(each, ["a b c", "d"], max_new_tokens=6, seed=3) for each in neox]
    assert written[0].texts == written[1].texts
    for one, other in zip(written[0].log_probs, written[1].log_probs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=0)
    unit = (1, "mlp.act", 3)
    assert el.logit_effect(plain, unit, count=3).equals(el.logit_effect(model, unit, count=3))


@pytest.mark.long
@pytest.mark.compiled_quickly
def test_the_bar_says_how_fast_tokens_are_read_and_where_layers_are(neox, capsys):
    el.record_responses(neox[1], SENTENCES, progress=True)
    told = capsys.readouterr().err
    assert "tokens/s, layers streamed from the checkpoint's files" in told
    el.record_responses(neox[0], SENTENCES, progress=True)
    assert "streamed" not in capsys.readouterr().err


def test_what_needs_all_layers_at_once_is_refused_before_it_begins(neox):
    model, facts = neox[1], el.load_concepts("facts").subset(["cat", "rain"])
    with pytest.raises(SelectionError, match=r"attribution needs all layers of .* Load it without offload='disk'"):
        el.attribute(model, facts)
    with pytest.raises(SelectionError, match=r"learning a steering needs all layers of .* Load it without offload"):
        el.learn_steering(model, facts, "cat")
    with pytest.raises(
        SelectionError, match=r"drawing weights anew needs all layers of .* streamed from the checkpoint"
    ):
        el.randomize_weights(model, seed=0)


def test_what_does_not_go_together_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"offload='gpu' was given; wanted one of 'host', 'disk'"):
        el.load_model(tmp_path, offload="gpu")
    with pytest.raises(CheckpointError, match=r"offload='disk' was given beside a mesh, which splits parameters"):
        el.load_model(tmp_path, offload="disk", mesh=el.make_mesh())
    with pytest.raises(CheckpointError, match=r"offload='host' was given beside use_cache=True"):
        el.load_model(tmp_path, offload="host", use_cache=True)
