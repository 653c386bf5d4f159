"""Interventions against PyTorch hooks that do the same, in every call; what they cost, and what is refused."""

import json

import families
import hooks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from launched import run_script
from test_generation import hf_generate

import expertlens_jax as el
from expertlens_jax.errors import SelectionError
from expertlens_jax.models import generation, scoring
from expertlens_jax.models import model as calls
from expertlens_jax.models.scoring import score_continuations, score_words
from expertlens_jax.models.sites import SITES
from expertlens_jax.models.units import units_table

TOLERANCE = 1e-4  # absolute, float32, on activations of order 1 to 10
LENGTHS = (9, 12, 4)
NAMES = ("gpt2", "llama", "gpt_neox", "bert")
CASES = [case for case in families.CASES if case.name in NAMES]
PLACES = ("resid.pre", "resid", "mlp.act", "attn.z", "attn.q")

pytestmark = pytest.mark.compiled_quickly


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(request, tmp_path_factory):
    directory = families.save(families.make_hf_model(request.param), tmp_path_factory.mktemp(request.param.name))
    return families.load_hf_model(request.param, directory, torch.float32), el.load_model(directory)


@pytest.fixture(scope="module")
def llama_directory(tmp_path_factory):
    case = next(case for case in CASES if case.name == "llama")
    return families.save(families.make_hf_model(case), tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def llama(llama_directory):
    return el.load_model(llama_directory)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    token_ids = rng.integers(4, families.VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    return token_ids, np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]


def addresses(model, site):
    """(module, its channels `[channels]`) of each layer."""
    units = units_table(model.family, model.config, (site,))
    return [
        (rows["hf_module"].iloc[0], torch.tensor(rows["hf_channel"].to_numpy())) for _, rows in units.groupby("layer")
    ]


def at_channels(activations, channels, change):
    """Changes some of a module's channels, as a hook does."""
    new = activations.clone()
    new[..., channels] = change(activations[..., channels])
    return new


def mix(x, at, params):
    """Mixes channels, by the layer, position and token too, so that each is shown to be what it is said to be."""
    moved = jnp.roll(x, 1, axis=-1) * params["scale"] + params["shift"][at.layer]
    told = 0.01 * at.positions + 0.001 * at.token_ids
    return jnp.where(at.mask[..., None], moved + told[..., None], 0.0).astype(x.dtype)


def mix_in_torch(x, layer, token_ids, mask, params):
    positions = torch.clamp(torch.tensor(mask).long().cumsum(1) - 1, min=0)
    moved = torch.roll(x, 1, -1) * float(params["scale"]) + torch.tensor(params["shift"][layer])
    told = 0.01 * positions + 0.001 * torch.tensor(token_ids)
    return torch.where(torch.tensor(mask)[..., None], moved + told[..., None], 0.0).float()


def make_params(model, seed=0):
    rng = np.random.default_rng(seed)
    return {"scale": np.float32(0.7), "shift": rng.normal(size=model.config.num_layers).astype(np.float32)}


@pytest.mark.parametrize("site", PLACES)
def test_a_function_of_activations_does_what_a_hook_does(pair, site):
    """In some layers; with units of the same site steered before it, and others elsewhere."""
    reference, model = pair
    token_ids, mask = batch()
    params, layers = make_params(model), [0, model.config.num_layers - 1]
    units = units_table(model.family, model.config, (site, "mlp.up"))
    units = units.groupby("site", observed=True).sample(9, random_state=1).reset_index(drop=True)
    places = addresses(model, site)
    modules = [*dict.fromkeys([*(module for module, _ in places), *units["hf_module"]])]

    def see(module, activations):
        shape = activations.shape
        activations = activations.reshape(*token_ids.shape, -1)
        rows = (units["hf_module"] == module).to_numpy()
        steered = torch.tensor(units.loc[rows, "hf_channel"].to_numpy())
        activations = at_channels(activations, steered, lambda x: x * 0.5 + 1.0)
        layer = next((i for i, (name, _) in enumerate(places) if name == module), None)
        if layer in layers:
            change = lambda x: mix_in_torch(x, layer, token_ids, mask, params)  # noqa: E731
            activations = at_channels(activations, places[layer][1], change)
        return activations.reshape(shape)

    with hooks.hooked(reference, modules, see):
        theirs = hooks.run(reference, token_ids, mask)
    steering = el.steer_units(model, units, 0.5, 1.0)
    intervention = el.intervene(site, mix, layers=layers, params=params)
    ours = np.asarray(model(token_ids, mask, steering=steering, interventions=[intervention]))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)
    for other in (dict(steering=steering), dict(interventions=[intervention])):
        assert np.abs(ours - np.asarray(model(token_ids, mask, **other)))[mask].max() > 1e-2


def test_captured_activations_are_what_hooks_see(pair):
    reference, model = pair
    token_ids, mask = batch()
    captured = model.capture(token_ids, mask, sites=tuple(model.config.site_channels()))
    assert list(captured) == list(model.config.site_channels())
    for site, ours in captured.items():
        places, seen = addresses(model, site), {}
        with hooks.hooked(reference, [module for module, _ in places], seen.__setitem__):
            hooks.run(reference, token_ids, mask)
        assert ours.shape == (model.config.num_layers, *token_ids.shape, SITES[site].channels(model.config))
        for layer, (module, channels) in enumerate(places):
            theirs = seen[module].detach().numpy().reshape(*token_ids.shape, -1)[..., channels.numpy()]
            np.testing.assert_allclose(ours[layer][mask], theirs[mask], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
def test_a_head_is_the_length_of_its_part_of_z(pair, pooling):
    """By PyTorch's activations: the norm of each head's part at each token, then pooled."""
    reference, model = pair
    token_ids, mask = batch()
    seen, heads = {}, (model.config.num_heads, model.config.head_dim)
    modules = [module for module, _ in addresses(model, "attn.z")]
    with hooks.hooked(reference, modules, seen.__setitem__):
        hooks.run(reference, token_ids, mask)
    units = units_table(model.family, model.config, ("attn.head",))
    ours = np.asarray(model.respond(token_ids, mask, sites=["attn.head", "mlp.act"], pooling=pooling))
    at_heads = units_table(model.family, model.config, ("attn.head", "mlp.act"))["site"] == "attn.head"
    theirs = []
    for module in modules:
        norms = seen[module].detach().reshape(*token_ids.shape, *heads).norm(dim=-1).numpy()
        pool = {"max": lambda x: x.max(0), "mean": lambda x: x.mean(0), "last": lambda x: x[-1]}[pooling]
        theirs.append(np.stack([pool(row[real]) for row, real in zip(norms, mask, strict=True)]))
    np.testing.assert_allclose(ours[:, at_heads], np.concatenate(theirs, axis=1), atol=TOLERANCE, rtol=0)
    assert len(units) == model.config.num_layers * model.config.num_heads
    assert set(units["hf_module"]) == {""} and set(units["hf_channel"]) == {-1}


def nudge(x, at, params):
    """Turns channels round at positions from the third on: in generation, at new tokens and some of the prompt."""
    return jnp.where((at.positions >= 2)[..., None] & at.mask[..., None], jnp.roll(x, 1, axis=-1) * params, x)


@pytest.mark.parametrize("site", ["resid", "mlp.act", "attn.z"])
def test_generation_is_pytorchs_with_hooks_token_for_token(pair, site):
    reference, model = pair
    if not model.config.causal:
        with pytest.raises(el.ExpertLensError, match="is an encoder"):
            el.generate(model, "a", interventions=[el.intervene(site, nudge, params=0.9)])
        return
    prompts = ("a b", "k l m n o p q r", "0")
    units = units_table(model.family, model.config, ("mlp.up",)).sample(9, random_state=1)
    places = addresses(model, site)
    lengths = torch.tensor([len(ids) for ids in model.tokenizer(list(prompts))["input_ids"]])
    longest, passed = int(lengths.max()), 0

    def see(module, activations):
        nonlocal passed
        rows = (units["hf_module"] == module).to_numpy()
        steered = torch.tensor(units.loc[rows, "hf_channel"].to_numpy())
        activations = at_channels(activations, steered, lambda x: x * 0.5 + 1.0)
        channels = dict(places).get(module)
        if channels is None:
            return activations
        start = 0 if activations.shape[1] > 1 else longest + passed
        slots = start + torch.arange(activations.shape[1])
        positions = slots - (longest - lengths)[:, None]
        if module == places[-1][0] and activations.shape[1] == 1:
            passed += 1
        turn = lambda x: torch.where((positions >= 2)[..., None], torch.roll(x, 1, -1) * 0.9, x)  # noqa: E731
        return at_channels(activations, channels, turn)

    with hooks.hooked(reference, [*dict.fromkeys([*dict(places), *units["hf_module"]])], see):
        theirs = hf_generate(reference, model.tokenizer, prompts, max_new_tokens=12)
    given = dict(steering=el.steer_units(model, units, 0.5, 1.0), interventions=el.intervene(site, nudge, params=0.9))
    ours = el.generate(model, prompts, max_new_tokens=12, temperature=0, **given)
    np.testing.assert_array_equal(np.stack(ours.token_ids), theirs[0])
    np.testing.assert_allclose(np.stack(ours.log_probs), theirs[1], atol=TOLERANCE, rtol=0)
    plain = el.generate(model, prompts, max_new_tokens=12, temperature=0)
    assert any((a != b).any() for a, b in zip(plain.token_ids, ours.token_ids, strict=True))
    scored = score_continuations(model, ["a b"], [ours.texts[0]], **given)
    np.testing.assert_allclose(scored[0][:3], _of_one(model, given, ours.texts[0])[:3], atol=TOLERANCE)


def _of_one(model, given, text):
    """Log-probabilities of a text's tokens by the model's logits, under the same changes."""
    ids = np.array(model.tokenizer("a b" + text)["input_ids"][:-1])[None]
    known = len(model.tokenizer("a b")["input_ids"]) - 1
    log_probs = jax.nn.log_softmax(model(ids, **given))[0]
    return np.asarray(log_probs[np.arange(known - 1, ids.shape[1] - 1), ids[0, known:]])


def test_responses_are_of_what_the_network_goes_on_with(llama):
    """Every call that records says the same, and what it says is capped."""
    sentences = ["a b c d", "e f", "g h i j k l m n o p"]
    low = el.cap("mlp.act", 0.05, layers=1)
    sites = ("mlp.act", "resid")
    recorded = el.record_responses(llama, sentences, sites=sites, interventions=[low])
    plain = el.record_responses(llama, sentences, sites=sites)
    capped = ((recorded.units["site"] == "mlp.act") & (recorded.units["layer"] == 1)).to_numpy()
    before = (recorded.units["layer"] == 0).to_numpy()
    np.testing.assert_allclose(recorded.values[:, capped], np.minimum(plain.values[:, capped], 0.05), atol=1e-6)
    np.testing.assert_allclose(recorded.values[:, before], plain.values[:, before], atol=1e-6)
    after = (recorded.units["layer"] == 2).to_numpy()
    assert np.abs(recorded.values - plain.values)[:, after].max() > 1e-3
    encoded = llama.tokenizer(sentences, padding=True, return_special_tokens_mask=True, return_tensors="np")
    pool_mask = encoded["special_tokens_mask"] == 0
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    ours = llama.respond(ids, mask, pool_mask, sites=sites, interventions=low)
    np.testing.assert_allclose(ours, recorded.values, atol=1e-5)
    words = [score_words(llama, ["a b"], ["c"], **given)[0] for given in ({}, {"interventions": [low]})]
    assert abs(words[0] - words[1]) > 1e-4


def test_what_was_done_is_told_by_the_responses(llama):
    """By functions' programs and arrays, not their names: two lambdas aren't one, nor are two thresholds."""
    texts = ["a b", "c d e"]

    def told(*interventions):
        return el.record_responses(llama, texts, sites=("resid",), interventions=interventions).provenance

    first = told(el.intervene("resid", lambda x, at: x * 2))
    assert first.steering.startswith("Intervention <lambda> at resid, all layers, digest ")
    assert first == told(el.intervene("resid", lambda y, where: y * 2))
    direction = jnp.arange(24.0)
    others = [
        told(),
        told(el.intervene("resid", lambda x, at: x * 3)),
        told(el.intervene("resid", lambda x, at: x * 2, layers=[0])),
        told(el.intervene("resid", lambda x, at: x + direction)),
        told(el.intervene("resid", lambda x, at: x - direction)),
        told(el.cap("resid", 1.0)),
        told(el.cap("resid", 2.0)),
        told(el.cap("resid", 2.0), el.cap("resid", 1.0)),
    ]
    assert len({json.dumps(each.settings()) for each in (first, *others)}) == 9


def test_removing_a_direction(pair):
    """Nothing of it is left, and PyTorch with a hook that projects it out says the same."""
    reference, model = pair
    token_ids, mask = batch()
    direction = np.random.default_rng(3).normal(size=model.config.d_model).astype(np.float32)
    removed = el.remove_direction("resid", direction, layers=[0, 1])
    left = model.capture(token_ids, mask, sites="resid", interventions=removed)["resid"]
    assert np.abs(np.asarray(left[:2]) @ direction)[:, mask].max() < 1e-4 * np.linalg.norm(direction)
    d = torch.tensor(direction / np.linalg.norm(direction))
    modules = [module for module, _ in addresses(model, "resid")][:2]
    with hooks.hooked(reference, modules, lambda module, x: x - (x @ d)[..., None] * d):
        theirs = hooks.run(reference, token_ids, mask)
    ours = np.asarray(model(token_ids, mask, interventions=removed))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)
    by_layer = np.stack([direction, -3 * direction, *[direction[::-1]] * (model.config.num_layers - 2)])
    each = el.remove_direction("resid", by_layer, layers=[0, 1])
    np.testing.assert_allclose(model(token_ids, mask, interventions=each), ours, atol=1e-5)


def test_patching_all_that_differs_gives_the_other_run(pair):
    """After the last layer's residual stream of every token but one is another run's, only that one is as it was."""
    reference, model = pair
    (clean_ids, mask), (ids, _) = batch(), batch(seed=1)
    source = model.capture(clean_ids, mask, sites="resid")["resid"]
    clean, plain = (np.asarray(model(each, mask)) for each in (clean_ids, ids))
    last = model.config.num_layers - 1
    patched = np.asarray(model(ids, mask, interventions=el.patch_tokens("resid", source, [0, 2, 3], layers=last)))
    for position in range(4):
        other = clean if position in (0, 2, 3) else plain
        np.testing.assert_allclose(patched[:, position], other[:, position], atol=1e-5)
    # Padded on the left, positions are the same tokens.
    left_ids, left_mask = (
        np.stack([np.roll(row, max(LENGTHS) - length) for row, length in zip(rows, LENGTHS, strict=True)])
        for rows in (ids, mask)
    )
    left = np.asarray(
        model(left_ids, left_mask, interventions=el.patch_tokens("resid", source, [0, 2, 3], layers=last))
    )
    np.testing.assert_allclose(left[left_mask], patched[mask], atol=1e-4)
    # An earlier layer's is what PyTorch says with a hook.
    module = addresses(model, "resid")[0][0]

    def put(_, x):
        return torch.cat([x[:, :1], torch.tensor(np.asarray(source[0]))[:, 1:2], x[:, 2:]], dim=1)

    with hooks.hooked(reference, [module], put):
        theirs = hooks.run(reference, ids, mask)
    ours = np.asarray(model(ids, mask, interventions=[el.patch_tokens("resid", source, 1, layers=0)]))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)


def test_ablated_heads_say_nothing(pair):
    """As do heads whose channels of z are steered to 0."""
    _, model = pair
    token_ids, mask = batch()
    heads = [(0, 1), (1, 0), (1, 2)]
    units = units_table(model.family, model.config, ("attn.z",))
    of_head = units["channel"] // model.config.head_dim
    chosen = np.any([(units["layer"] == layer) & (of_head == head) for layer, head in heads], axis=0)
    steered = model(token_ids, mask, steering=el.steer_units(model, units[chosen], 0.0, 0.0))
    ablated = el.ablate_heads(model, heads)
    np.testing.assert_allclose(model(token_ids, mask, interventions=ablated), steered, atol=1e-5)
    responses = np.asarray(model.respond(token_ids, mask, sites=["attn.head"], interventions=ablated))
    rows = units_table(model.family, model.config, ("attn.head",))
    silent = [(layer, head) in heads for layer, head in zip(rows["layer"], rows["channel"], strict=True)]
    np.testing.assert_array_equal((responses == 0).all(axis=0), silent)


def test_they_act_in_the_order_in_which_they_are_given(llama):
    token_ids, mask = batch()
    add, double = el.intervene("resid", _add, params=1.0), el.intervene("resid", _double)
    both = {name: np.asarray(llama.capture(token_ids, mask, sites="resid", interventions=each)["resid"][0])
            for name, each in {"add": [add, double], "double": [double, add]}.items()}  # fmt: skip
    plain = np.asarray(llama.capture(token_ids, mask, sites="resid")["resid"][0])
    np.testing.assert_allclose(both["add"], 2 * (plain + 1), atol=1e-5)
    np.testing.assert_allclose(both["double"], 2 * plain + 1, atol=1e-5)


def _add(x, at, params):
    return x + params


def _double(x, at):
    return x * 2


def test_other_values_and_layers_compile_nothing_new(llama):
    token_ids, mask = batch()
    source = llama.capture(token_ids, mask, sites="resid")["resid"]
    compiled = []
    for layer, value in ((0, 1.0), (1, 0.5), (2, 0.25)):
        given = [
            el.intervene("resid", _add, layers=layer, params=np.float32(value)),
            el.patch_tokens("resid", source * value, layer, layers=layer),
            el.remove_direction("resid", np.full(24, value), layers=[layer]),
            el.ablate_heads(llama, [(layer, layer)]),
            el.cap("mlp.act", value, layers=[0, layer]),
        ]
        llama(token_ids, mask, interventions=given)
        llama.respond(token_ids, mask, interventions=given)
        llama.capture(token_ids, mask, sites="resid", interventions=given)
        score_continuations(llama, ["a"], [" b"], interventions=given[:1])
        el.generate(llama, ["a b"], max_new_tokens=4, temperature=0, interventions=given[2:])
        sizes = [calls.apply, calls.respond, calls.capture, scoring.next_log_probs]
        compiled.append([each._cache_size() for each in (*sizes, generation.prefill, generation.decode)])
    assert compiled[0] == compiled[1] == compiled[2]


def test_without_interventions_the_program_is_what_it_was(llama):
    """None given is no part of the program; one in some layers is a branch more, and one in all of them is none."""
    token_ids, mask = batch()
    network = calls.Transformer(llama.config)

    def program(*interventions):
        placed = llama.place_interventions(interventions, [token_ids.shape])
        return calls.apply.lower(network, llama.params, token_ids, mask, None, placed).as_text()

    plain = calls.apply.lower(network, llama.params, token_ids, mask, None).as_text()
    assert program() == plain
    branches = [program(el.intervene("resid", _double, layers=layers)).count("stablehlo.case") for layers in (0, None)]
    assert branches == [plain.count("stablehlo.case") + 1, plain.count("stablehlo.case")]


def test_outputs_can_be_differentiated_by_params(llama):
    token_ids, mask = batch()

    def loss(direction):
        return jnp.square(llama(token_ids, mask, interventions=el.intervene("resid", _add, params=direction))).mean()

    start, step = jnp.zeros(24), 1e-2
    gradient = jax.grad(loss)(start)
    i = int(np.abs(gradient).argmax())
    difference = (loss(start.at[i].set(step)) - loss(start.at[i].set(-step))) / (2 * step)
    assert float(gradient[i]) == pytest.approx(float(difference), rel=2e-2)


@pytest.mark.long
def test_several_devices_change_nothing(llama, llama_directory):
    """Eight devices that share rows, or parameters; with another run's activations, which are on one of them."""
    script = f"""
import json, sys
import jax, jax.numpy as jnp, numpy as np
import expertlens_jax as el
from expertlens_jax.models.scoring import score_words
assert jax.device_count() == 8
direction = jax.device_put(jnp.arange(24.0), jax.devices()[0])
def closes_over(x, at):
    return (x - 0.01 * direction * at.positions[..., None]).astype(x.dtype)
def everything(model):
    source = model.capture(np.arange(4, 12)[None], sites="resid")["resid"]
    given = [el.patch_tokens("resid", source, 1, layers=0), el.intervene("mlp.act", lambda x, at: x * 0.5),
             el.remove_direction("resid", direction), el.intervene("resid", closes_over, layers=[1])]
    sentences = [f"{{a}} {{b}} c d" for a in "abcde" for b in "fgh"]
    responses = el.record_responses(model, sentences, sites=("resid",), interventions=given)
    made = el.generate(model, ["a b", "c d e"], max_new_tokens=6, temperature=0, interventions=given)
    return [responses.values.tolist(), [ids.tolist() for ids in made.token_ids],
            np.asarray(model(np.arange(4, 20).reshape(2, 8), interventions=given)).tolist(),
            score_words(model, ["a b", "c"], ["d"], interventions=given).tolist()]
alone = everything(el.load_model({str(llama_directory)!r}))
mesh = everything(el.load_model({str(llama_directory)!r}, mesh=el.make_mesh(model=2)))
print(json.dumps([alone, mesh]))
"""
    one = run_script(
        script.replace("assert jax.device_count() == 8", "")
        .replace("mesh = everything(", "mesh = (")
        .replace(", mesh=el.make_mesh(model=2)", "")
        .replace("[alone, mesh]", "alone"),
        devices=1,
    )
    eight = run_script(script)
    expected = json.loads(one.splitlines()[-1])
    for found in json.loads(eight.splitlines()[-1]):
        assert found[1] == expected[1]
        for i in (0, 2, 3):
            np.testing.assert_allclose(found[i], expected[i], atol=TOLERANCE)


def test_bfloat16_keeps_its_dtype(llama_directory):
    model = el.load_model(llama_directory, dtype="bfloat16")
    token_ids, mask = batch()
    given = [
        el.remove_direction("resid", np.ones(24)),
        el.cap("mlp.act", 0.1),
        el.ablate_heads(model, [(0, 0)]),
        el.patch_tokens("resid", np.zeros((3, 1, 2, 24)), 1, layers=1),
        el.intervene("resid", _add, params=1.0),  # a Python number has no dtype of its own
    ]
    assert np.isfinite(np.asarray(model(token_ids, mask, interventions=given))).all()
    with pytest.raises(SelectionError, match=r"returned float32 \[3, 12, 24\]; .* End it with .astype\(x.dtype\)"):
        model(token_ids, mask, interventions=el.intervene("resid", lambda x, at: x + np.ones(24, np.float32)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: el.intervene("residual", _double), "the site 'residual' isn't known; .* resid.pre, attn.q"),
        (lambda m: el.intervene("sae", _double), "units of the site sae can't be intervened on"),
        (lambda m: el.intervene("attn.head", _double), "attn.head can't be intervened on: .* Use channels of attn.z"),
        (lambda m: el.intervene("mlp.gate", _double), "'mlp.gate' is to be intervened on; gpt2.* has resid.pre"),
        (lambda m: el.intervene("resid", _double, layers=[1, 3]), r"names layer 3; gpt2.* has layers 0 to 2"),
        (lambda m: el.intervene("resid", _double, layers=[-1]), r"layers=\[-1\] was given; wanted numbers of layers"),
        (lambda m: el.intervene("resid", _double, layers=[]), r"layers=\[\] was given"),
        (lambda m: el.intervene("resid", _double, layers=True), "layers=True was given"),
        (lambda m: el.intervene("resid", lambda x: x), r"can't be called as function\(x, at\)"),
        (lambda m: el.intervene("resid", _add), r"can't be called as function\(x, at\) .* Give params= if"),
        (lambda m: el.intervene("resid", _double, params=1.0), r"can't be called as function\(x, at, params\)"),
        (lambda m: el.intervene("resid", 3.0), "a float was given for the function"),
        (
            lambda m: el.intervene("mlp.act", lambda x, at: x[..., :5]),
            r"<lambda> of an intervention at mlp.act was given float32 \[3, 12, 96\] and returned float32 \[3, 12, 5\]",
        ),
        (lambda m: el.intervene("resid", lambda x, at: x.mean(1)), r"returned float32 \[3, 24\]; it has to keep shape"),
        (lambda m: el.intervene("resid", lambda x, at: x > 0), r"returned bool .* End it with .astype"),
        (lambda m: el.intervene("resid", lambda x, at: (x, x)), "returned a tuple; wanted an array"),
        (lambda m: el.intervene("resid", lambda x, at: None), "returned a NoneType"),
        (lambda m: el.intervene("resid", lambda x, at: x @ jnp.ones((7, 7))), r"\[3, 12, 24\] and raised TypeError"),
        (lambda m: el.intervene("resid", lambda x, at: x if at.layer else 2 * x), "raised TracerBoolConversionError"),
        (lambda m: el.intervene("resid", _add, params="one"), "raised TypeError"),
        (lambda m: _double, "a function was given among interventions; wanted what el.intervene returns"),
        (lambda m: el.remove_direction("resid", np.zeros(24)), "of a length above 0"),
        (lambda m: el.remove_direction("resid", np.ones(23)), r"was given float32 \[3, 12, 24\] and raised"),
        (lambda m: el.patch_tokens("resid", np.ones((3, 12, 24)), 1), r"shape \[3, 12, 24\] were given; wanted"),
        (lambda m: el.patch_tokens("resid", np.ones((3, 3, 12, 24)), [1, 12]), "positions 0 to 11"),
        (lambda m: el.patch_tokens("resid", np.ones((3, 2, 12, 24)), 1), r"\[3, 12, 24\] and raised ValueError"),
        (lambda m: el.ablate_heads(m, [(0, 3)]), r"heads \(0, 3\) were given; .* layers 0 to 2 with heads 0 to 2"),
        (lambda m: el.ablate_heads(m, []), r"heads \(none\) were given"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_anything_runs(gpt2, make, message, monkeypatch):
    monkeypatch.setattr(calls, "apply", None)
    token_ids, mask = batch()
    with pytest.raises(SelectionError, match=message):
        gpt2(token_ids, mask, interventions=[make(gpt2)])


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    case = next(case for case in CASES if case.name == "gpt2")
    return el.load_model(families.save(families.make_hf_model(case), tmp_path_factory.mktemp("gpt2")))


def test_every_call_checks_first(gpt2):
    wrong = [el.intervene("resid", lambda x, at: x[..., :1])]
    with pytest.raises(SelectionError, match=r"returned float32 \[2, 3, 1\]"):
        gpt2.respond(np.ones((2, 3), int), interventions=wrong)
    with pytest.raises(SelectionError, match=r"returned float32 \[2, 3, 1\]"):
        gpt2.capture(np.ones((2, 3), int), sites="resid", interventions=wrong)
    for call in (
        lambda: el.record_responses(gpt2, ["a b"], interventions=wrong),
        lambda: el.generate(gpt2, "a b", interventions=wrong),
        lambda: score_continuations(gpt2, ["a"], [" b"], interventions=wrong),
        lambda: score_words(gpt2, ["a"], ["b"], interventions=wrong),
    ):
        with pytest.raises(SelectionError, match="at resid was given float32 .* and returned float32"):
            call()
    # Rows of a recording come in any order, so what differs by row would be put into the wrong ones.
    by_row = el.patch_tokens("resid", np.ones((3, 4, 3, 24), np.float32), 1)
    with pytest.raises(SelectionError, match=r"given float32 \[1, 8, 24\] and"):
        el.record_responses(gpt2, ["a b", "c d", "e", "f"], tokens_per_batch=32, interventions=[by_row])
    with pytest.raises(SelectionError, match="'resdi' is to be captured; .* Did you mean resid"):
        gpt2.capture(np.ones((2, 3), int), sites="resdi")
    with pytest.raises(SelectionError, match="attn.head can't be captured"):
        gpt2.capture(np.ones((2, 3), int), sites=["attn.head"])
    with pytest.raises(SelectionError, match="no sites were given"):
        gpt2.capture(np.ones((2, 3), int), sites=[])


def test_how_one_is_shown():
    assert repr(el.cap("mlp.act", 2.0, layers=[4, 3])) == "Intervention _cap at mlp.act, layers 3, 4"
    assert repr(el.intervene("resid", _double)) == "Intervention _double at resid, all layers"
