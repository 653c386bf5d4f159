"""Steering at some tokens only: against hooks in PyTorch that are written out here, and what can't be met."""

import copy
import dataclasses
import functools
import json

import families
import hooks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensError, SelectionError, SettingError
from expertlens_jax.experts.token_masks import pool_over_words
from expertlens_jax.models.model import apply
from expertlens_jax.models.scoring import score_continuations
from expertlens_jax.models.sites import SITES as ALL_SITES
from expertlens_jax.models.steering_files import load_steering
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.when import _STAGE_OF
from expertlens_jax.report.hub_card import write_steering_card

pytestmark = pytest.mark.compiled_quickly

CASES = {case.name: case for case in families.CASES}
NAMES = ("gpt2", "llama", "gpt_neox")
TOLERANCE = 1e-5  # absolute, float32, on logits of order 1
PROMPTS = ("a b c", "k", "z 9 8 q e r t y")
NEW_TOKENS = 5
SITES = ("attn.v", "attn.z", "mlp.act", "resid")
SENTENCES = ["A cat sat there.", "Two cats ran to the category.", "THE CAT'S ears."]

rng = np.random.default_rng(0)
IDS = rng.integers(4, families.VOCABULARY, (3, 9))
MASK = np.stack([np.arange(9) < 9, np.arange(9) < 5, np.arange(9) >= 3])  # padding on either side
POSITIONS = np.maximum(MASK.cumsum(1) - 1, 0)


@pytest.fixture(scope="module", params=NAMES)
def pair(request, tmp_path_factory):
    """A PyTorch model, and ours with a steering of units of four sites in all layers but the first."""
    reference = families.make_hf_model(CASES[request.param])
    directory = families.save(reference, tmp_path_factory.mktemp(request.param))
    model = el.load_model(directory, name="tiny").replace(end_ids=())
    reference = families.load_hf_model(CASES[request.param], directory, torch.float32)
    reference.generation_config.eos_token_id = None
    units = [(layer, site, channel) for layer in (1, 2) for site in SITES for channel in (1, 7)]
    return reference, model, el.steer_units(model, el.trace(model, ["a"], units).units, scale=0.5, shift=2.0)


@pytest.fixture(scope="module")
def lenslet():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def values(lenslet):
    """A steering that sets one unit of layer 0 to 7, where it applies."""
    units = lenslet.units.query("site == 'attn.v' and layer == 0").head(1)
    return el.steer_units(lenslet, units, scale=0.0, shift=7.0, label="seven")


def steered_by_hand(reference, model, steering, applies):
    """A context of PyTorch hooks that change what stands at tokens where `applies(number of tokens)` says so."""
    units = el.trace(model, ["a"], list(steering.units)).units

    def change(address, activations):
        rows = (units["hf_module"] == address).to_numpy()
        channels = torch.tensor(units.loc[rows, "hf_channel"].to_numpy())
        scale, shift = (torch.tensor(np.asarray(each)[rows]) for each in (steering.scale, steering.shift))
        changed = activations.clone()
        changed[..., channels] = changed[..., channels] * scale + shift
        return torch.where(applies(activations.shape[1])[..., None], changed, activations)

    return hooks.hooked(reference, list(units["hf_module"].unique()), change)


def hf_generate(reference, tokenizer):
    """Greedy continuations of prompts padded on the left: ids, log-probabilities."""
    rows = tokenizer(list(PROMPTS))["input_ids"]
    length = max(map(len, rows))
    given = {
        "input_ids": torch.tensor([[0] * (length - len(row)) + row for row in rows]),
        "attention_mask": torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows]),
    }
    asked = {"do_sample": False, "pad_token_id": 0, "max_new_tokens": NEW_TOKENS}
    output = reference.generate(**given, **asked, return_dict_in_generate=True, output_logits=True)
    new = output.sequences[:, length:]
    log_probs = torch.stack(output.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]
    return new.numpy(), log_probs.numpy(), np.array([len(row) for row in rows])


def check_generated(reference, model, steering):
    ours = el.generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0, steering=steering)
    token_ids, log_probs, _ = hf_generate(reference, model.tokenizer)
    np.testing.assert_array_equal(np.stack(ours.token_ids), token_ids)
    np.testing.assert_allclose(np.stack(ours.log_probs), log_probs, atol=TOLERANCE, rtol=0)
    return np.stack(ours.log_probs)


@pytest.mark.long
@pytest.mark.parametrize("pair", ["gpt_neox"], indirect=True)
def test_from_a_token_on_is_what_a_hook_does_at_those_tokens(pair):
    reference, model, steering = pair
    when = el.When(from_token=3)
    plain = np.asarray(model(IDS, MASK))
    ours = np.asarray(model(IDS, MASK, steering=steering.only(when)))
    with steered_by_hand(reference, model, steering, lambda tokens: torch.tensor(POSITIONS >= 3)):
        theirs = hooks.run(reference, IDS, MASK)
    np.testing.assert_allclose(ours[MASK], theirs[MASK], atol=TOLERANCE, rtol=0)
    before = MASK & (POSITIONS < 3)
    np.testing.assert_allclose(ours[before], plain[before], atol=TOLERANCE)
    assert np.abs(ours - plain)[MASK & ~before].max() > 0.1


@pytest.mark.parametrize("pair", ["gpt_neox"], indirect=True)
@pytest.mark.parametrize("part", ["prompt", "continuation"])
def test_in_generation_a_part_is_what_a_hook_does_at_its_tokens(pair, part):
    """The prompt is what is computed at once, the continuation what is computed a token at a time."""
    reference, model, steering = pair
    with steered_by_hand(
        reference, model, steering, lambda tokens: torch.tensor([[(tokens > 1) == (part == "prompt")]])
    ):
        steered = check_generated(reference, model, steering.only(el.When(part=part)))
    plain = np.stack(el.generate(model, PROMPTS, max_new_tokens=1, temperature=0).log_probs)
    assert np.allclose(steered[:, :1], plain, atol=1e-6) == (part == "continuation")  # the first comes of the prompt


@pytest.mark.parametrize("pair", ["gpt_neox"], indirect=True)
def test_where_a_unit_fires_is_what_a_hook_does_where_it_fires(pair):
    """The unit's site is steered too, in its layer, which is read before."""
    reference, model, steering = pair
    layer, site, channel = 1, "mlp.act", 7
    seen = np.asarray(model.capture(IDS, MASK, sites=site)[site])[layer, ..., channel]
    middle = between(seen[MASK])
    when = el.When(unit=(layer, site, channel), above=middle, from_token=1)
    late = [unit for unit in steering.units if unit[0] == 2 or unit[1] in ("mlp.act", "resid")]
    steering = el.steer_units(model, el.trace(model, ["a"], late).units, scale=0.5, shift=2.0)
    ours = np.asarray(model(IDS, MASK, steering=steering.only(when)))
    applies = torch.tensor((seen > middle) & (POSITIONS >= 1))
    assert 0 < applies[MASK].float().mean() < 1
    with steered_by_hand(reference, model, steering, lambda tokens: applies):
        theirs = hooks.run(reference, IDS, MASK)
    np.testing.assert_allclose(ours[MASK], theirs[MASK], atol=TOLERANCE, rtol=0)
    below = np.asarray(model(IDS, MASK, steering=steering.only(el.When(unit=f"L1 mlp.act {channel}", below=middle))))
    with steered_by_hand(reference, model, steering, lambda tokens: torch.tensor(seen < middle)):
        np.testing.assert_allclose(below[MASK], hooks.run(reference, IDS, MASK)[MASK], atol=TOLERANCE, rtol=0)


def between(values):
    """A number between the two in the middle, and so equal to none, however they are rounded."""
    return float(np.sort(values, axis=None)[values.size // 2 - 1 :][:2].mean())


def by_a_unit(model, steering):
    """The units of layer 2, where one of layer 1 says more than it does at half of the tokens."""
    seen = np.asarray(model.capture(IDS, sites="attn.q")["attn.q"])[1, ..., 3]
    units = el.trace(model, ["a"], [unit for unit in steering.units if unit[0] == 2]).units
    when = el.When(unit=(1, "attn.q", 3), above=between(seen), from_token=1)
    return el.steer_units(model, units, scale=0.5, shift=2.0, when=when)


@pytest.mark.parametrize("part", ["prompt", "continuation"])
def test_hooks_in_pytorch_steer_at_the_same_tokens_of_a_text_that_is_written(pair, part):
    """By part; and, joined to that, from a token on where a unit fires."""
    reference, model, steering = pair
    steering = steering.only(el.When(part=part)).then(by_a_unit(model, steering))
    with steering.to_torch(reference) as made:
        steered = check_generated(reference, model, steering)
        assert repr(made).startswith(repr(steering))
    assert np.abs(steered - hf_generate(reference, model.tokenizer)[1]).max() > 1e-3  # and the hooks are gone


def test_hooks_in_pytorch_steer_at_the_same_tokens_of_a_text_that_is_read(pair):
    reference, model, steering = pair
    for each in (steering.only(el.When(from_token=2)), by_a_unit(model, steering)):
        ours = np.asarray(model(IDS, MASK, steering=each))
        with each.to_torch(reference):
            np.testing.assert_allclose(hooks.run(reference, IDS, MASK)[MASK], ours[MASK], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pair", ["gpt_neox"], indirect=True)
def test_what_pytorch_cannot_tell_is_refused(pair):
    reference, _, steering = pair
    with pytest.raises(SelectionError, match="at 'a' can't be carried to PyTorch: a hook is given token ids, and not"):
        steering.only(el.When(words="a")).to_torch(reference)
    ids = torch.tensor(IDS)
    with steering.only(el.When(part="prompt")).to_torch(reference), torch.no_grad():
        with pytest.raises(SelectionError, match="this call of the PyTorch model has no cache, so which of the two"):
            reference(ids)
        cache = transformers.DynamicCache()
        reference(ids[:, :4], past_key_values=cache, use_cache=True)
        with pytest.raises(SelectionError, match="adds 2 tokens to a cache that is filled already"):
            reference(ids[:, 4:6], past_key_values=cache, use_cache=True)
    with steering.only(el.When(from_token=2)).to_torch(reference), torch.no_grad():
        with pytest.raises(
            SelectionError, match=r"attention mask is \[3, 1, 9, 9\], which doesn't say where the 9 tokens"
        ):
            reference(ids, attention_mask=torch.ones(3, 1, 9, 9))


@pytest.mark.parametrize("pair", ["gpt_neox"], indirect=True)
def test_at_every_token_is_as_without_a_condition(pair):
    """To the bit, though another program computes it."""
    _, model, steering = pair
    everywhere = steering.only(el.When(from_token=0))
    np.testing.assert_array_equal(model(IDS, MASK, steering=everywhere), model(IDS, MASK, steering=steering))


@pytest.mark.long
def test_other_positions_words_units_and_bounds_compile_nothing(lenslet, values):
    rows = lenslet.tokenizer(["A cat sat there."])["input_ids"]
    gated = lenslet.units.query("site == 'resid' or site == 'mlp.down' and layer == 3").head(2)
    gated = el.steer_units(lenslet, gated, shift=1.0)
    for first, second in (
        (values.only(el.When(from_token=1)), values.only(el.When(from_token=2))),
        (values.only(el.When(words="cat")), values.only(el.When(words=["sit", "there"], from_token=1))),
        (
            gated.only(el.When(unit=(0, "attn.v", 1), above=0.1)),
            gated.only(el.When(unit=(1, "attn.v", 5), above=-1, below=0.2)),
        ),
    ):
        outputs = [np.asarray(lenslet(rows, steering=first))]
        compiled = apply.compiled._cache_size()
        outputs.append(np.asarray(lenslet(rows, steering=second)))
        assert apply.compiled._cache_size() == compiled
        assert not np.array_equal(*outputs)


@pytest.mark.long
@pytest.mark.compiled_quickly(False)  # to the last bit
def test_streamed_layers_give_the_same(tmp_path):
    directory = families.save(families.make_hf_model(CASES["gpt_neox"]), tmp_path)
    model, streamed = (el.load_model(directory, **given) for given in ({}, {"offload": "host"}))
    units = el.trace(model, ["a"], [(2, "mlp.act", 3), (1, "resid", 5)]).units
    steering = el.steer_units(model, units, shift=3.0, when=el.When(unit=(0, "attn.k", 2), above=0.0, from_token=1))
    ours, theirs = (each(IDS, MASK, steering=steering) for each in (model, streamed))
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(np.asarray(ours) - np.asarray(model(IDS, MASK))).max() > 1e-3


@pytest.mark.long
def test_rows_of_a_batch_are_steered_each_by_its_own_condition(lenslet, values):
    """As each is by itself: in reading, writing and scoring; beside rows that are steered at every token, or not."""
    units = lenslet.units.query("site == 'mlp.down'").sample(60, random_state=0)
    strong = el.steer_units(lenslet, units, 1.0, 2.0)
    late = el.steer_units(lenslet, units.query("layer > 1"), 1.0, 3.0)
    fires = late.only(el.When(unit=(0, "attn.v", 3), above=0.0))
    other = late.at_strength(0.5).only(el.When(unit=(1, "attn.v", 9), below=0.1, from_token=1)).then(values)
    prompts = ["A cat sat there.", "A dog ran.", "It rained all day.", "Two cats ran.", "Then the sun came."]
    own = [strong.only(el.When(words="cat")), None, fires, strong, other]
    token_ids = [lenslet.tokenizer(prompt)["input_ids"] for prompt in prompts]
    together = np.asarray(lenslet(token_ids, steering=own))
    for row, ids, steering in zip(together, token_ids, own, strict=True):
        alone = np.asarray(lenslet(token_ids, steering=steering))[token_ids.index(ids)]  # of one shape, to compile less
        np.testing.assert_allclose(row[: len(ids)], alone[: len(ids)], atol=TOLERANCE)
    own[0], own[3] = strong.only(el.When(words="cat", part="prompt")), strong.only(el.When(part="continuation"))
    given = {"max_new_tokens": 4, "temperature": 0}
    written = el.generate(lenslet, prompts, steering=own, **given)
    continuations = [" and it was said", " again", " on", " far from the house", " up"]
    scored = score_continuations(lenslet, prompts, continuations, steering=own)
    for row in (0, 3):
        alone = el.generate(lenslet, prompts, steering=own[row], **given)
        np.testing.assert_allclose(written.log_probs[row], alone.log_probs[row], atol=TOLERANCE)
        alone = score_continuations(lenslet, prompts, continuations, steering=own[row])
        np.testing.assert_allclose(scored[row], alone[row], atol=TOLERANCE)
    with pytest.raises(SelectionError, match="none of the 1 texts has such a token"):
        lenslet(token_ids[:2], steering=[None, strong.only(el.When(words="cat"))])  # which the other row has


# Words.


def steered_tokens(model, sentences, steering, **options):
    """Of each sentence, the tokens at which the unit was set."""
    seen = el.trace(model, sentences, steering.table, steering=steering, **options)
    return [
        [token for token, (value,) in zip(tokens, values, strict=True) if value == 7]
        for tokens, values in zip(seen.tokens, seen.activations, strict=True)
    ]


@pytest.mark.long
def test_words_are_steered_at_the_tokens_that_pooling_takes_for_theirs(lenslet, values):
    """In tracing, in recording, and of token ids, which are decoded."""
    concepts = el.ConceptDataset("cats", SENTENCES, ("cat",), ("",), np.ones((1, 3), bool), np.ones(3, bool))
    pooled = pool_over_words(lenslet.tokenizer, concepts, "concept", max_tokens=64)
    steering = values.only(el.When(words="cat"))
    assert steered_tokens(lenslet, SENTENCES, steering) == [[" cat"], [" cat", "s"], [" C", "AT"]]
    token_ids = lenslet.tokenizer(list(SENTENCES))["input_ids"]
    read = np.asarray(lenslet.capture(token_ids, sites="attn.v", steering=steering)["attn.v"])[0, :, :, 0]
    for of_sentence, mask in zip(read, pooled.in_pool, strict=True):
        np.testing.assert_array_equal(of_sentence[: len(mask)] == 7, mask)
    recorded = el.record_responses(lenslet, SENTENCES, sites="attn.v", pooling="max", steering=steering)
    assert (recorded.values[:, 0] == 7).all()
    np.testing.assert_array_equal(
        lenslet.respond(token_ids, sites="attn.v", steering=steering)[:, 0], recorded.values[:, 0]
    )


def test_of_several_words_each_is_steered_and_all_conditions_have_to_hold(lenslet, values):
    both = el.When(words=["cat", "run"])
    assert steered_tokens(lenslet, SENTENCES[:2], values.only(both)) == [[" cat"], [" cat", "s", " ran"]]
    late = el.When(words=("cat", "run"), from_token=3)
    assert steered_tokens(lenslet, SENTENCES[:2], values.only(late)) == [[], ["s", " ran"]]
    german = el.When(words="Katze", language="de")
    assert steered_tokens(lenslet, ["Zwei Katzen."], values.only(german)) == [[" K", "at", "zen"]]


@pytest.mark.long
def test_words_that_are_cut_off_or_stand_in_a_conversation_are_found_where_they_are(lenslet, values):
    long = "It rained and " * 40 + "the cat sat."
    steering = values.only(el.When(words="cat"))
    assert steered_tokens(lenslet, [long, SENTENCES[0]], steering, truncate=True) == [[], [" cat"]]
    template = "{% for m in messages %}cat {{ m['content'] }} cat{% endfor %}"
    chatting = lenslet.replace(tokenizer=copy.deepcopy(lenslet.tokenizer))
    chatting.tokenizer.chat_template = template
    (found,) = steered_tokens(chatting, ["A cat sat."], steering, chat=True)
    assert found == [" cat"]  # and not the template's own


def test_generation_steers_the_words_of_the_prompt(lenslet, values):
    """As if the prompt, and no new token, were read with the steering: texts, ids and conversations alike."""
    units = lenslet.units.query("site == 'mlp.down'").sample(60, random_state=0)
    strong = el.steer_units(lenslet, units, 1.0, 2.0)
    steering = strong.only(el.When(words="cat", part="prompt"))
    prompts = ["They talked about the cat and", "The dog"]
    token_ids = lenslet.tokenizer(prompts)["input_ids"]
    logits = lenslet(token_ids, steering=strong.only(el.When(words="cat")))
    want = [jax.nn.log_softmax(row[len(ids) - 1]).max() for row, ids in zip(logits, token_ids, strict=True)]
    plain = el.generate(lenslet, prompts, max_new_tokens=3, temperature=0)
    for given in (prompts, token_ids):
        made = el.generate(lenslet, given, max_new_tokens=3, temperature=0, steering=steering)
        np.testing.assert_allclose([row[0] for row in made.log_probs], want, atol=TOLERANCE)
        np.testing.assert_array_equal(made.token_ids[1], plain.token_ids[1])  # which has no cat
    assert abs(want[0] - plain.log_probs[0][0]) > 1e-3


# Scoring.


def test_scoring_tells_a_prompt_from_its_continuation(lenslet):
    """What a prompt's steering does to the first of the new tokens, one of the continuation can't."""
    units = lenslet.units.query("site == 'mlp.down'").sample(60, random_state=0)
    steering = el.steer_units(lenslet, units, 1.0, 2.0)
    rows = (lenslet, ["The dog", "It was a"], [" ran to the cat", " cat"])
    given = {name: steering.only(el.When(part=name)) for name in ("prompt", "continuation")}
    scored = {name: score_continuations(*rows, steering=each) for name, each in given.items()}
    everywhere, plain = score_continuations(*rows, steering=steering), score_continuations(*rows)
    for row in range(2):
        np.testing.assert_allclose(scored["prompt"][row][0], everywhere[row][0], atol=1e-6)
        np.testing.assert_allclose(scored["continuation"][row][0], plain[row][0], atol=1e-6)
    written = el.generate(lenslet, "The dog", max_new_tokens=4, temperature=0, steering=given["continuation"])
    (again,) = score_continuations(lenslet, ["The dog"], list(written.texts), steering=given["continuation"])
    np.testing.assert_allclose(again, written.log_probs[0], atol=TOLERANCE)
    words = el.When(part="continuation", words="cat")
    (of_word, _) = score_continuations(*rows, steering=steering.only(words))
    np.testing.assert_allclose(of_word, plain[0], atol=1e-6)  # the cat comes last, and what is after it isn't scored


# Steerings as values.


def test_a_condition_travels_with_the_steering(lenslet, values, tmp_path):
    words = ("cat", "ice cream")
    steering = values.only(
        el.When(part="prompt", from_token=2, words=words, unit="L0 resid.pre 5", above=0.25, below=3)
    )
    assert repr(steering) == (
        "Steering of lenslet-2m: seven; 1 unit (1 at attn.v), only in the prompt, from token 2 on, at 'cat', 'ice "
        "cream', where L0 resid.pre 5 > 0.25 and < 3"
    )
    assert repr(steering.when) == (
        "When(part='prompt', from_token=2, words=('cat', 'ice cream'), unit=(0, 'resid.pre', 5), above=0.25, below=3.0)"
    )
    assert steering.at_strength(0.5).when == steering.transfer(lenslet).when == steering.when
    assert steering.table["when"].tolist() == [str(steering.when)] and "when" not in values.table
    digests = {
        each.digest
        for each in (values, steering, values.only(el.When(from_token=2)), values.only(el.When(from_token=3)))
    }
    assert len(digests) == 4
    for each in (steering, steering.then(values).then(values.only(el.When(part="continuation")))):
        each.save(tmp_path / "cat.json")
        read = load_steering(tmp_path / "cat.json")
        assert (read.digest, repr(read), read.when) == (each.digest, repr(each), each.when)
        older = json.loads((tmp_path / "cat.json").read_text())
        assert not {"layer", "site", "channel", "scale", "shift"} & set(older)  # which a version before wants
    card = write_steering_card(values.only(el.When(from_token=2)).then(values), "me/seven", None)
    assert "only from token 2 on; then at every token" in card and "1 unit is changed" in card
    values.save(tmp_path / "plain.json")
    assert "parts" not in json.loads((tmp_path / "plain.json").read_text())
    recorded = el.record_responses(lenslet, SENTENCES, sites="attn.v", steering=values.only(el.When(from_token=2)))
    assert "only from token 2 on, digest" in recorded.provenance.steering


def test_steerings_that_are_joined_apply_each_when_it_did(lenslet, values):
    first, later = el.When(words="cat"), el.When(from_token=3)
    doubled = dataclasses.replace(values, scale=np.full(1, 2.0, np.float32), shift=np.zeros(1, np.float32))
    joined = values.only(first).then(doubled).then(doubled.only(later))
    assert joined.when == (first, None, later) and [len(part) for part in joined.parts] == [1, 1, 1]
    plain, done = (
        el.trace(lenslet, SENTENCES[:1], values.table, steering=each).activations[0][:, 0] for each in (None, joined)
    )
    at_word, late = np.arange(5) == 1, np.arange(5) >= 3
    np.testing.assert_allclose(done, np.where(at_word, 7, plain) * 2 * np.where(late, 2, 1), rtol=1e-6)
    one = values.only(first).then(doubled.only(first))
    assert one.when == first and len(one) == 1 and one.shift.tolist() == [14]
    assert values.then(doubled).stages == () and values.then(doubled).shift.tolist() == [14]
    same = el.When(unit=values.units[0], above=0.3)  # the second goes by what the first makes of the unit
    assert len(values.only(same).then(doubled.only(same)).parts) == 2


@pytest.mark.long
def test_gradients_flow_through_what_applies_at_some_tokens(lenslet, values):
    rows = lenslet.tokenizer(["A cat sat there."])["input_ids"]

    def total(shift, when):
        steering = dataclasses.replace(values, scale=jnp.ones(1), shift=shift)
        return lenslet(rows, steering=steering.only(when))[0, 2].sum()

    early, late = (jax.grad(total)(jnp.ones(1), el.When(from_token=k)) for k in (1, 3))
    assert abs(float(early[0])) > 1e-3 and float(late[0]) == 0.0


@pytest.mark.parametrize("name", ["qwen2_moe", "llama", "gpt_neox"])
def test_sites_are_known_in_the_order_in_which_they_are_computed(name, tmp_path):
    """Of a mixture with a shared expert, a gated model, and one whose branches stand side by side."""
    model = el.load_model(families.save(families.make_hf_model(CASES[name]), tmp_path))
    sites, told = tuple(model.config.site_channels()), []

    def note(x, at, site):
        told.append(site)
        return x

    acting = model.place_interventions(
        [el.intervene(site, functools.partial(note, site=site)) for site in sites], [(1, 2)]
    )
    told.clear()  # of what was told while they were placed
    ids, mask = np.zeros((1, 2), int), np.ones((1, 2), bool)
    jax.eval_shape(functools.partial(apply.function, Transformer(model.config)), model.params, ids, mask, None, acting)
    order = [_STAGE_OF[site] for site in dict.fromkeys(told)]
    assert order == sorted(order) and len(order) == len(sites)
    assert set(_STAGE_OF) == {name for name, site in ALL_SITES.items() if site.steered}


# What can't be met.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"el.When\(\) was given nothing to go by; give one or more of part=, from_token=, words=, unit="),
        ({"part": "answer"}, "part='answer' was given; wanted one of prompt, continuation"),
        ({"from_token": -1}, "from_token=-1 was given; wanted a whole number of 0 or more"),
        ({"from_token": True}, "from_token=True was given; wanted a whole number"),
        ({"from_token": 1.5}, "from_token=1.5 was given; wanted a whole number"),
        ({"words": ["cat", "?!"]}, r"words=\('cat', '\?!'\) were given, and '\?!' has no word in it"),
        ({"words": [3]}, "and 3 has no word in it; wanted words such as 'cat'"),
        ({"from_token": 1, "language": "de"}, "language='de' was given without words, whose language it would be"),
        ({"words": "cat", "language": "xx"}, "'xx'"),
        ({"unit": "L0 attn.v 1"}, "unit=.* was given with neither above= nor below=; say what it means that it fires"),
        ({"above": 1.0}, "above were given without unit=, whose activation they would bound"),
        ({"unit": "L0 attn.v 1", "above": float("nan")}, "above=nan was given; wanted a finite number"),
        ({"unit": "L0 attn.v 1", "above": 2, "below": 1}, "above=2 and below=1 were given, and no number is both"),
        ({"unit": "L0 attn.v", "above": 0}, "'L0 attn.v' was given for a unit; wanted rows of a table"),
        ({"unit": [(0, "attn.v", 1), (0, "attn.v", 2)], "above": 0}, "2 units were given; wanted one"),
        ({"unit": "L0 nowhere 1", "above": 0}, "the sites of units are resid.pre, attn.q"),
        ({"unit": "L0 attn.head 1", "above": 0}, "units of the site attn.head can't be what a steering goes by"),
        ({"unit": "L0 sae 1", "above": 0}, "units of the site sae can't be what a steering goes by"),
    ],
)
def test_conditions_that_cannot_hold_are_told(given, message):
    with pytest.raises(ExpertLensError, match=message):
        el.When(**given)


def test_units_that_are_not_known_in_time_are_told(lenslet, values):
    with pytest.raises(
        SelectionError, match="which has no such unit: attn.k has the channels 0 to 127, in layers 0 to 3"
    ):
        el.steer_units(lenslet, values.table, when=el.When(unit=(0, "attn.k", 128), above=0))
    with pytest.raises(
        SelectionError, match="fit lenslet-2m, which has no such unit: its sites are .*, in layers 0 to 3"
    ):
        lenslet(
            [[5, 6]],
            steering=values.only(el.When(unit=(0, "resid.pre", 1), above=0)).replace(
                stages=((1, el.When(unit=(0, "mlp.gate", 1), above=0)),)
            ),
        )
    for unit, message in (
        (
            (1, "resid.pre", 3),
            "computes L0 attn.v before L1 resid.pre, and so doesn't know yet whether that unit fires",
        ),
        ((0, "mlp.up", 3), "computes L0 attn.v before L0 mlp.up"),
        ((0, "attn.k", 3), "computes L0 attn.v beside L0 attn.k"),
    ):
        when = el.When(unit=unit, above=0.5)
        with pytest.raises(
            SelectionError, match=f"1 of the 1 units can't be steered where L.* > 0.5: the model {message}"
        ):
            values.only(when)
        with pytest.raises(SelectionError, match="can't be steered where"):
            el.steer_units(lenslet, values.table, when=when)


def test_calls_that_know_no_prompt_or_no_words_say_so(lenslet, values):
    prompted = values.only(el.When(part="prompt"))
    token_ids = lenslet.tokenizer(["A dog"])["input_ids"]
    for call in (
        lambda **given: lenslet(token_ids, **given),
        lambda **given: lenslet.respond(token_ids, **given),
        lambda **given: lenslet.capture(token_ids, sites="resid", **given),
        lambda **given: el.record_responses(lenslet, SENTENCES, **given),
        lambda **given: el.trace(lenslet, SENTENCES, values.table, **given),
    ):
        with pytest.raises(SelectionError, match="only in the prompt was given to a call that reads texts as they are"):
            call(steering=prompted)
    with pytest.raises(SelectionError, match="none of the 1 texts has such a token. Give texts with the word"):
        lenslet(token_ids, steering=values.only(el.When(words="cat")))
    for when in (el.When(words="dog"), el.When(words="dog", part="continuation")):
        with pytest.raises(
            SelectionError, match="to a call that writes text: whether a token is of a word .cat. or of"
        ):
            el.generate(lenslet, "A dog", max_new_tokens=1, steering=values.only(when))
    torn = [lenslet.tokenizer.convert_tokens_to_ids(["A", "\u0120c", "at"])]  # and " cat" is a token of its own
    with pytest.raises(
        SelectionError, match="the token ids of row 0 aren't those that the tokenizer makes of any text"
    ):
        lenslet(torn, steering=values.only(el.When(words="cat")))
    slow = lenslet.replace(tokenizer=SlowTokenizer())
    with pytest.raises(SelectionError, match="SlowTokenizer doesn't tell where in a text its tokens stand"):
        slow(token_ids, steering=values.only(el.When(words="dog")))


class SlowTokenizer:
    """One without offsets."""

    is_fast = False

    def convert_ids_to_tokens(self, token_id):
        return str(token_id)


def test_what_is_no_condition_and_a_second_one_are_told(lenslet, values):
    with pytest.raises(SettingError, match=r"when='prompt' was given; wanted el.When\(part, from_token, words, unit\)"):
        el.steer_units(lenslet, values.table, when="prompt")
    with pytest.raises(
        SelectionError, match="applies only from token 1 on already, and was to apply only in the prompt"
    ):
        values.only(el.When(from_token=1)).only(el.When(part="prompt"))
    torn = values.only(el.When(from_token=1)).replace(stages=((2, el.When(from_token=1)),))
    with pytest.raises(SelectionError, match="stages of 2 units were given to a steering of 1; wanted as many"):
        lenslet([[5, 6]], steering=torn)


def test_files_that_cannot_carry_a_condition_say_so(lenslet, values, tmp_path):
    steering = values.at_strength(1.0).only(el.When(part="continuation"))
    for carrier, save in (
        ("a control vector", lambda: steering.save_gguf(tmp_path / "no.gguf")),
        ("lm-evaluation-harness", lambda: steering.save_lm_eval(tmp_path / "no.pt", None)),
    ):
        with pytest.raises(
            SelectionError, match=f"{carrier} can't carry this steering: it applies only in the continuat"
        ):
            save()
    assert not list(tmp_path.iterdir())
