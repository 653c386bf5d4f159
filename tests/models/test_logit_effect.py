"""What a unit adds to the logits, against PyTorch's own norms and heads."""

import families
import hooks
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.errors import SelectionError, UnsupportedModelError
from expertlens_jax.models.logit_effect import effect_on_logits

PARTS = {
    # final norm, head, a layer's kernels of mlp.down and attn.out from inputs to outputs, and the norms after them
    "gpt2": lambda m, i: (m.transformer.ln_f, m.lm_head, m.transformer.h[i].mlp.c_proj.weight,
                          m.transformer.h[i].attn.c_proj.weight, None, None),
    "gpt_neox": lambda m, i: (m.gpt_neox.final_layer_norm, m.get_output_embeddings(),
                              m.gpt_neox.layers[i].mlp.dense_4h_to_h.weight.T,
                              m.gpt_neox.layers[i].attention.dense.weight.T, None, None),
    "llama": lambda m, i: (m.model.norm, m.lm_head, m.model.layers[i].mlp.down_proj.weight.T,
                           m.model.layers[i].self_attn.o_proj.weight.T, None, None),
    "gemma2": lambda m, i: (m.model.norm, m.lm_head, m.model.layers[i].mlp.down_proj.weight.T,
                            m.model.layers[i].self_attn.o_proj.weight.T, m.model.layers[i].post_feedforward_layernorm,
                            m.model.layers[i].post_attention_layernorm),
    "olmo2": lambda m, i: (m.model.norm, m.lm_head, m.model.layers[i].mlp.down_proj.weight.T,
                           m.model.layers[i].self_attn.o_proj.weight.T, m.model.layers[i].post_feedforward_layernorm,
                           m.model.layers[i].post_attention_layernorm),
    "gemma4_text": lambda m, i: (m.model.norm, m.lm_head, m.model.layers[i].mlp.down_proj.weight.T,
                                 m.model.layers[i].self_attn.o_proj.weight.T,
                                 m.model.layers[i].post_feedforward_layernorm,
                                 m.model.layers[i].post_attention_layernorm),
    "olmo": lambda m, i: (m.model.norm, m.lm_head, m.model.layers[i].mlp.down_proj.weight.T,
                          m.model.layers[i].self_attn.o_proj.weight.T, None, None),
    "granite": lambda m, i: (m.model.norm, m.lm_head, m.model.layers[i].mlp.down_proj.weight.T,
                             m.model.layers[i].self_attn.o_proj.weight.T, None, None),
}  # fmt: skip
CENTRED = ("gpt2", "gpt_neox", "olmo")


def pair(name, directory):
    case = next(case for case in families.CASES if case.name == name)
    families.save(families.make_hf_model(case), directory)
    return el.load_model(directory), families.load_hf_model(case, directory, torch.float32)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            made[name] = pair(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


def torch_norm(name, norm, direction):
    """What a norm makes of a direction, but for what it divides by."""
    if name in CENTRED:
        direction = direction - direction.mean()
    if name == "olmo":  # whose norms have no parameters
        return direction
    return direction * (1 + norm.weight if name == "gemma2" else norm.weight)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("site", ["mlp.act", "mlp.down", "attn.z", "attn.out", "resid", "resid.pre"])
def test_effects_are_those_of_pytorchs_weights(pairs, name, site):
    model, reference = pairs(name)
    layer, channel = 1, 5
    norm, head, down, out, after_mlp, after_attention = PARTS[name](reference, layer)
    with torch.no_grad():
        direction = {"mlp.act": down[channel], "attn.z": out[channel]}.get(
            site, torch.eye(model.config.d_model)[channel]
        )
        after = {"mlp": after_mlp, "att": after_attention}.get(site[:3])
        if after is not None:
            direction = torch_norm(name, after, direction)
        if name == "granite" and site[:3] in ("mlp", "att"):
            direction = direction * reference.config.residual_multiplier
        if name == "gemma4_text":  # whose layers multiply the stream by a number at their end
            for each in reference.model.layers[layer + (site == "resid") :]:
                direction = direction * each.layer_scalar
        theirs = (head.weight @ torch_norm(name, norm, direction)).numpy()[: len(model.tokenizer)]
        theirs = theirs / getattr(reference.config, "logits_scaling", 1)
    table = el.logit_effect(model, (layer, site, channel), 7)
    assert table.columns.tolist() == ["token", "token_id", "effect", "does"]
    assert table["does"].tolist() == ["raises"] * 7 + ["lowers"] * 7
    np.testing.assert_allclose(table["effect"], theirs[table["token_id"]], atol=1e-5)
    np.testing.assert_allclose(table["effect"][:7], np.sort(theirs)[::-1][:7], atol=1e-5)
    np.testing.assert_allclose(table["effect"][7:], np.sort(theirs)[:7][::-1], atol=1e-5)
    words = {token_id: word for word, token_id in model.tokenizer.get_vocab().items()}
    assert table["token"].tolist() == [words[token_id] for token_id in table["token_id"]]


@pytest.mark.parametrize("name", PARTS)
def test_the_effects_of_all_channels_add_up_to_pytorchs_logits(pairs, name):
    model, reference = pairs(name)
    norm, head, *_ = PARTS[name](reference, 0)
    ids = np.array([[5, 9, 11, 30]])
    seen = []
    handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()[0, -1]))
    logits = hooks.run(reference, ids, np.ones_like(ids))[0, -1]
    handle.remove()
    x = seen[-1].double()
    centred = x - x.mean() if name in CENTRED else x
    eps = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon", None) or 1e-5  # OLMo's is in its code
    divisor = torch.sqrt((centred**2).mean() + eps)
    ours = np.asarray(effect_on_logits(model, jnp.asarray(x.float().numpy()))) / float(divisor)
    if getattr(norm, "bias", None) is not None:
        ours = ours + (head.weight @ norm.bias).detach().numpy()
    cap = model.config.logits_softcap
    ours = ours if cap is None else cap * np.tanh(ours / cap)
    np.testing.assert_allclose(ours, logits, atol=1e-4)


def test_units_that_write_nowhere_are_refused_by_name(pairs):
    model, _ = pairs("gpt2")
    wanted = r"doesn't write to the residual stream.*units at attn.z, mlp.act, attn.out, mlp.down, resid.pre, resid do"
    with pytest.raises(SelectionError, match=rf"the unit L1 mlp.up 7 {wanted}.*neuron it feeds: 'L1 mlp.act 7'"):
        el.logit_effect(model, (1, "mlp.up", 7))
    with pytest.raises(SelectionError, match=rf"the unit L0 attn.k 3 {wanted}.*is read at attn.z"):
        el.logit_effect(model, "L0 attn.k 3")
    with pytest.raises(SelectionError, match=rf"the unit L0 attn.head 1 {wanted}"):
        el.logit_effect(model, "L0 attn.head 1")
    carrying = model.with_sae(el.SAE(np.ones((24, 5), np.float32), np.zeros(5, np.float32), layer=1, site="resid"))
    with pytest.raises(SelectionError, match=rf"the unit L1 sae 2 {wanted}.*carries the encoder only"):
        el.logit_effect(carrying, (1, "sae", 2))


def test_what_has_no_straight_way_to_logits_is_refused(pairs):
    with pytest.raises(UnsupportedModelError, match=r"is an encoder \(bert\) and has no logits"):
        el.logit_effect(pairs("bert")[0], (1, "resid", 7))
    with pytest.raises(UnsupportedModelError, match="norms the residual stream after each block's additions"):
        el.logit_effect(pairs("opt-post")[0], (1, "resid", 7))


def test_other_bad_input_is_told(pairs):
    model, _ = pairs("gpt2")
    with pytest.raises(SelectionError, match="2 units were given; wanted one, such as 'L1 mlp.act 7'"):
        el.logit_effect(model, [(1, "mlp.act", 7), (0, "mlp.act", 7)])
    with pytest.raises(SelectionError, match="L7 mlp.act 7 was given; .* in layers 0 to 2"):
        el.logit_effect(model, (7, "mlp.act", 7))
    with pytest.raises(SelectionError, match="count=0 was given; wanted a number of tokens"):
        el.logit_effect(model, (1, "mlp.act", 7), 0)
    assert len(el.logit_effect(model, (1, "mlp.act", 7), 1000)) == 80  # each token that the tokenizer has, once
