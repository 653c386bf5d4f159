"""Generation against Hugging Face PyTorch's own, and what it promises besides."""

import copy
import json

import families
import hooks
import hypothesis.extra.numpy
import jax
import numpy as np
import pytest
import scipy.stats
import tokenizers
import torch
import transformers
from launched import run_script

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensWarning, SelectionError, TokenizationError, UnsupportedModelError
from expertlens_jax.models import generation, sampling
from expertlens_jax.models.generation import generate
from expertlens_jax.models.units import units_table

PROMPTS = ("a b c", "k", "z 9 8 q e r t y", "p o")
NEW_TOKENS = 12
TOLERANCE = 1e-4  # absolute, float32, on log-probabilities of order 1 to 10

pytestmark = pytest.mark.compiled_quickly

CAUSAL = [case for case in families.CASES if case.config not in families.ENCODERS]


def load(case, directory):
    """A PyTorch model and ours, which never stop by themselves: some families' configs bring their own end."""
    reference = families.make_hf_model(case)
    model = el.load_model(families.save(reference, directory)).replace(end_ids=None)  # the tokenizer's, if any
    reference.generation_config.eos_token_id = None
    model.tokenizer.eos_token = None
    return reference, model


@pytest.fixture(scope="module", params=CAUSAL, ids=lambda case: case.name)
def pair(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp(request.param.name))


@pytest.fixture(scope="module")
def gpt2_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("gpt2")


@pytest.fixture(scope="module")
def gpt2(gpt2_directory):
    return load(families.CASES[0], gpt2_directory)


def hf_generate(reference, tokenizer, prompts, **options):
    """Greedy continuations by transformers of prompts padded on the left: token ids, log-probabilities.

    Llama 4's one by one, since transformers counts padding in their temperature.
    """
    if len(prompts) > 1 and reference.config.model_type.startswith("llama4"):
        each = [hf_generate(reference, tokenizer, [prompt], **options) for prompt in prompts]
        return tuple(map(np.concatenate, zip(*each, strict=True)))
    rows = tokenizer(list(prompts))["input_ids"]
    length = max(map(len, rows))
    token_ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    output = reference.generate(
        input_ids=token_ids,
        attention_mask=mask,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    new = output.sequences[:, length:]
    log_probs = torch.stack(output.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]
    return new.numpy(), log_probs.numpy()


@pytest.mark.parametrize("steered", [False, True], ids=["plain", "steered"])
def test_greedy_matches(pair, steered):
    """Without and with units of every site set, scaled and shifted, at the prompt's tokens and the new ones.

    Without is a steering that changes nothing, so that one compilation serves both.
    """
    reference, model = pair
    units = units_table(model.family, model.config, tuple(model.config.site_channels()))
    units = hooks.draw_units(units, 4)
    assert set(units["site"]) == set(model.config.site_channels())
    units = hooks.with_experts(units)
    rng = np.random.default_rng(2)
    scale, shift = rng.choice([0.0, 0.5, 1.0], len(units)), rng.normal(size=len(units))

    def steer(address, activations):
        rows = (units["hf_module"] == address).to_numpy()
        channels = torch.tensor(units.loc[rows, "hf_channel"].to_numpy())
        factor, term = (torch.tensor(values[rows], dtype=torch.float32) for values in (scale, shift))
        activations = activations.clone()
        activations[..., channels] = activations[..., channels] * factor + term
        return activations

    with hooks.hooked(reference, list(units["hf_module"].unique()) if steered else [], steer):
        theirs = hf_generate(reference, model.tokenizer, PROMPTS, max_new_tokens=NEW_TOKENS)
    steering = el.steer_units(model, units, scale, shift) if steered else el.steer_units(model, units, 1.0, 0.0)
    ours = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0, steering=steering)
    np.testing.assert_array_equal(np.stack(ours.token_ids), theirs[0])
    np.testing.assert_allclose(np.stack(ours.log_probs), theirs[1], atol=TOLERANCE, rtol=0)


def test_greedy_without_any_steering_matches(gpt2):
    reference, model = gpt2
    ours = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0)
    theirs = hf_generate(reference, model.tokenizer, PROMPTS, max_new_tokens=NEW_TOKENS)
    np.testing.assert_array_equal(np.stack(ours.token_ids), theirs[0])
    np.testing.assert_allclose(np.stack(ours.log_probs), theirs[1], atol=TOLERANCE, rtol=0)


def with_end(model, end):
    """The model with another end-of-text token."""
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_special_tokens({"eos_token": tokenizer.convert_ids_to_tokens(int(end))})
    return model.replace(tokenizer=tokenizer)


def test_rows_stop_at_the_end_of_text(gpt2, monkeypatch):
    """Each row at its own, the loop with the last of them; the token is kept, its text isn't."""
    reference, model = gpt2
    free = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0)
    end = next(i for i in free.token_ids[1][1:] if i < len(model.tokenizer))
    decode, states = generation.decode, []
    monkeypatch.setattr(generation, "decode", lambda *args: states.append(decode(*args)) or states[-1])
    ours = generate(with_end(model, end), PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0)
    theirs, _ = hf_generate(reference, model.tokenizer, PROMPTS, max_new_tokens=NEW_TOKENS, eos_token_id=int(end))
    for ids, log_probs, text, row in zip(ours.token_ids, ours.log_probs, ours.texts, theirs, strict=True):
        stop = np.flatnonzero(row == end)
        np.testing.assert_array_equal(ids, row[: stop[0] + 1] if len(stop) else row)
        assert len(log_probs) == len(ids)
        assert model.tokenizer.convert_ids_to_tokens(int(end)) not in text.split()
    lengths = [len(ids) for ids in ours.token_ids]
    assert min(lengths) < max(lengths)
    assert int(states[0].steps) == max(lengths)

    alone = generate(with_end(model, end), [PROMPTS[1]], max_new_tokens=NEW_TOKENS, temperature=0)
    assert int(states[1].steps) == len(alone.token_ids[0]) == lengths[1] < NEW_TOKENS


def saved_with_ends(case, directory, generation, config):
    """The case's files, `eos_token_id` stated in each as given; a generation config of None isn't there."""
    families.save(families.make_hf_model(case), directory)
    stated = json.loads((directory / "config.json").read_text())
    stated.pop("eos_token_id", None)
    (directory / "config.json").write_text(json.dumps(stated | config))
    (directory / "generation_config.json").unlink()
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))
    return directory


@pytest.mark.parametrize(
    "generation_ends, config_ends",
    [([0], None), ([0, 1], None), (0, None), (None, 0), (None, [1, 0]), ([0], [1]), (1, 0), (None, None)],
)
def test_rows_stop_at_any_end_that_the_files_state_as_transformers_does(gpt2, tmp_path, generation_ends, config_ends):
    """Among the tokens that free rows write, at least one of them ends each of the stated kinds."""
    free = generate(gpt2[1], PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0).token_ids
    places = free[0][4], free[1][6]

    def of(places_of_ends):
        if isinstance(places_of_ends, list):
            return [int(places[end]) for end in places_of_ends]
        return int(places[places_of_ends])

    generation_config = None if generation_ends is None else {"eos_token_id": of(generation_ends), "pad_token_id": 0}
    config = {} if config_ends is None else {"eos_token_id": of(config_ends)}
    directory = saved_with_ends(families.CASES[0], tmp_path, generation_config, config)
    ours = generate(el.load_model(directory), PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0)
    reference = transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    for prompt, ids in zip(PROMPTS, ours.token_ids, strict=True):
        theirs = hf_generate(reference, gpt2[1].tokenizer, [prompt], max_new_tokens=NEW_TOKENS)[0][0]
        np.testing.assert_array_equal(ids, theirs)
    stopped = min(map(len, ours.token_ids)) < NEW_TOKENS
    assert stopped == (generation_ends is not None or config_ends is not None)


def test_any_end_id_can_be_set_and_its_text_is_left_out(gpt2):
    """() never ends, the model's own ends go before its tokenizer's."""
    _, model = gpt2
    free = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0)
    end = int(free.token_ids[0][5])
    other = with_end(model, next(i for i in free.token_ids[1][1:] if i < len(model.tokenizer)))
    endless = generate(other.replace(end_ids=()), PROMPTS, max_new_tokens=NEW_TOKENS, temperature=0)
    np.testing.assert_array_equal(np.stack(endless.token_ids), np.stack(free.token_ids))
    told = []
    ended = generate(
        other.replace(end_ids=(7000, end)),
        PROMPTS,
        max_new_tokens=NEW_TOKENS,
        temperature=0,
        on_token=lambda *new: told.append(new),
    )
    first = free.token_ids[0].tolist().index(end)
    assert ended.token_ids[0].tolist() == free.token_ids[0][: first + 1].tolist()
    decoded = model.tokenizer.decode(free.token_ids[0][:first], skip_special_tokens=True)
    assert ended.texts[0].strip() == decoded.strip()
    assert "".join(text for row, _, text in told if row == 0) == ended.texts[0]


def test_prompts_may_be_token_ids(gpt2):
    """A list or an array, one or several, of any lengths, beside texts; they are taken as they are."""
    _, model = gpt2
    texts = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, seed=2)
    ids = model.tokenizer(list(PROMPTS))["input_ids"]
    for prompts in (ids, [np.array(row) for row in ids], [PROMPTS[0], *ids[1:]], tuple(map(tuple, ids))):
        np.testing.assert_equal(generate(model, prompts, max_new_tokens=NEW_TOKENS, seed=2).token_ids, texts.token_ids)
    assert generate(model, [PROMPTS[0], *ids[1:]], max_new_tokens=1).prompts == (
        PROMPTS[0],
        *(model.tokenizer.decode(row) for row in ids[1:]),
    )
    for one in (ids[0], np.array(ids[0]), np.array([ids[0]]), torch.tensor(ids[0])):
        np.testing.assert_array_equal(
            generate(model, one, max_new_tokens=NEW_TOKENS, seed=2).token_ids[0], texts.token_ids[0]
        )
    bare = generate(model, [4, 5], max_new_tokens=NEW_TOKENS, temperature=0)  # without CLS and SEP
    theirs = gpt2[0].generate(torch.tensor([[4, 5]]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    np.testing.assert_array_equal(bare.token_ids[0], theirs[0, 2:])


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([[4, 5], [4, 900]], r"number 1 \('ids \[4, 900\]'\), has 900.*vocabulary of .* has 83"),
        ([[4, -1]], "has -1"),
        ([[4.0, 5.0]], "prompt 0 is neither a text nor the token ids of one: float64 of shape"),
        ([True, False], "prompt 0 is neither a text nor the token ids of one: bool"),
        (["a", None], "prompt 1 is neither a text nor .*object"),
        ([[[4]]], r"prompt 0 is neither .* shape \[1, 1\]"),
        ([[4], []], r"prompt 1 is .*without a single token"),
        ({"input_ids": [[4]]}, r'a mapping with input_ids was given for prompts.*encoded\["input_ids"\]'),
    ],
)
def test_prompts_that_are_no_token_ids_are_refused(gpt2, prompts, message):
    with pytest.raises(TokenizationError, match=message):
        generate(gpt2[1], prompts)


def test_a_prompt_with_the_start_that_the_tokenizer_adds_is_told(gpt2):
    """The tests' tokenizer adds CLS and SEP; here they are its BOS and EOS."""
    _, model = gpt2
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = "[CLS]", "[SEP]"
    model = model.replace(tokenizer=tokenizer, end_ids=())
    with pytest.warns(ExpertLensWarning) as told:
        doubled = generate(model, ["a b", "[CLS] a b"], max_new_tokens=2, temperature=0)
    (message,) = (str(warning.message) for warning in told)
    assert "1 of 2 texts have a BOS of their own" in message and "number 1, begins with '[CLS]': '[CLS] a b'" in message
    assert "or give its token ids: model.tokenizer(text, add_special_tokens=False)" in message
    with pytest.warns(ExpertLensWarning, match=r"have a EOS of their own.*ends with '\[SEP\]'"):
        generate(model, "a b [SEP]", max_new_tokens=1)
    ids = tokenizer("[CLS] a b [SEP]", add_special_tokens=False)["input_ids"]
    once = generate(model, ids, max_new_tokens=2, temperature=0)  # not told
    np.testing.assert_array_equal(once.token_ids[0], doubled.token_ids[0])


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_streaming_gives_the_same(gpt2, temperature):
    _, model = gpt2
    free = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=temperature)
    model = with_end(model, next(i for i in free.token_ids[1][1:] if i < len(model.tokenizer)))
    told = []
    streamed = generate(
        model,
        PROMPTS,
        max_new_tokens=NEW_TOKENS,
        temperature=temperature,
        on_token=lambda *new: told.append(new),
    )
    whole = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, temperature=temperature)
    assert streamed.texts == whole.texts
    assert min(map(len, whole.token_ids)) < NEW_TOKENS
    for row, (ids, text) in enumerate(zip(whole.token_ids, whole.texts, strict=True)):
        assert [token_id for i, token_id, _ in told if i == row] == ids.tolist()
        assert "".join(piece for i, _, piece in told if i == row) == text


def test_streaming_waits_for_whole_characters(gpt2):
    """With a token a byte, no piece of text holds half a character, and together they are the text."""
    _, model = gpt2
    characters = "abcdefgh" + "".join(map(chr, range(0xC3, 0xF5))) + "¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º"
    inner = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(characters)}, merges=[]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    model = model.replace(tokenizer=transformers.PreTrainedTokenizerFast(tokenizer_object=inner))
    told = []
    prompts = ["aé", "b"] * 8
    result = generate(model, prompts, max_new_tokens=24, temperature=50.0, on_token=lambda *new: told.append(new))
    for row, text in enumerate(result.texts):
        assert "".join(piece for i, _, piece in told if i == row) == text
    texts = "".join(result.texts)
    assert any(ord(c) > 127 and c != "\ufffd" for c in texts)  # else the test asked nothing
    assert any(piece == "" for _, _, piece in told)


def test_sampling_is_reproducible_and_a_row_does_not_depend_on_the_others(gpt2):
    _, model = gpt2
    texts = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, seed=3).texts
    assert generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, seed=3).texts == texts
    assert generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, seed=4).texts != texts
    assert generate(model, PROMPTS[:1], max_new_tokens=NEW_TOKENS, seed=3).texts == texts[:1]
    others = (PROMPTS[0], "q q q q", PROMPTS[2], "1 2 3 4 5 6 7 8 9")
    other_texts = generate(model, others, max_new_tokens=NEW_TOKENS, seed=3).texts
    assert other_texts[0] == texts[0] and other_texts[2] == texts[2]
    assert len(set(generate(model, PROMPTS[2:3] * 4, max_new_tokens=NEW_TOKENS).texts)) == 4


def test_streaming_refills_the_cache_too(tmp_path):
    """LongRoPE's keys are turned anew once the text outgrows the original context."""
    case = next(case for case in CAUSAL if case.name == "phi3-longrope-long")
    _, model = load(case, tmp_path)
    assert len(PROMPTS[2].split()) + 2 < model.config.rotary.original_max_tokens < 10 + NEW_TOKENS
    options = dict(max_new_tokens=NEW_TOKENS, temperature=0)
    streamed = generate(model, PROMPTS, **options, on_token=lambda *_: None)
    np.testing.assert_array_equal(streamed.token_ids, generate(model, PROMPTS, **options).token_ids)


def test_fewer_new_tokens_are_the_first_of_more(gpt2):
    _, model = gpt2
    more = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS)
    fewer = generate(model, PROMPTS, max_new_tokens=9)
    for ids, first in zip(more.token_ids, fewer.token_ids, strict=True):
        np.testing.assert_array_equal(ids[:9], first)


def test_batches_change_nothing(gpt2):
    _, model = gpt2
    prompts = PROMPTS + PROMPTS[1:]
    whole = generate(model, prompts, max_new_tokens=NEW_TOKENS)
    told = []
    parts = generate(
        model,
        prompts,
        max_new_tokens=NEW_TOKENS,
        tokens_per_batch=128,
        on_token=lambda *new: told.append(new),
    )
    assert parts.texts == whole.texts
    assert {row for row, _, _ in told} == set(range(7))


def test_nothing_new_is_compiled_for_other_prompts_seeds_and_temperatures(gpt2):
    _, model = gpt2
    generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, top_p=0.9)
    compiled = generation.prefill._cache_size(), generation.decode._cache_size()
    generate(
        model,
        ["0 1 2 3 4 5 6 7", "b", "c d"],
        max_new_tokens=NEW_TOKENS - 3,
        temperature=0.3,
        top_p=0.5,
        seed=9,
    )
    assert (generation.prefill._cache_size(), generation.decode._cache_size()) == compiled


def steerings_of(model):
    """Two steerings of different sites, and none."""
    parts = (model.units.query(f"site == '{site}'").head(6) for site in ("mlp.up", "attn.v"))
    return [el.steer_units(model, units, scale=0.5, shift=2.0) for units in parts] + [None]


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_steerings_that_share_a_batch_write_what_each_writes_alone(gpt2, temperature):
    _, model = gpt2
    steerings, count = steerings_of(model), len(PROMPTS)
    options = dict(max_new_tokens=NEW_TOKENS, temperature=temperature, seed=3)
    together = generate(
        model,
        PROMPTS * 3,
        steering=[steering for steering in steerings for _ in PROMPTS],
        draws=[*range(count)] * 3,
        tokens_per_batch=7 * 24,  # so that batches end within a steering
        **options,
    )
    for place, steering in enumerate(steerings):
        alone, rows = generate(model, PROMPTS, steering=steering, **options), slice(place * count, (place + 1) * count)
        assert together.texts[rows] == alone.texts
        for got, want in zip(together.log_probs[rows], alone.log_probs, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-5)
    firsts = [together.log_probs[place * count][0] for place in range(3)]
    assert np.diff(sorted(firsts)).min() > 0.01  # else the steerings did nothing


def test_prompts_of_one_number_draw_alike(gpt2):
    _, model = gpt2
    texts = generate(model, ["k"] * 4, max_new_tokens=NEW_TOKENS, draws=[0, 5, 0, 5]).texts
    assert texts[:2] == texts[2:] and texts[0] != texts[1]
    assert generate(model, ["k"] * 6, max_new_tokens=NEW_TOKENS).texts[5] == texts[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steering": [None]}, "1 steering was given for 4 rows. Give one for all rows, or a list with one, or None"),
        (
            {"steering": [None, None, "cat", None]},
            "a str was given as steering; wanted what el.steer or el.steer_units",
        ),
        ({"draws": [0, 1]}, r"draws has shape \[2\]; wanted a number for each of 4 prompts, \[4\]"),
        ({"draws": [0, 1, 2, -3]}, "draws holds int64 such as -3; wanted whole numbers from 0 to 2147483647"),
        ({"draws": [0.5] * 4}, "draws holds float64 such as 0.5; wanted whole numbers"),
    ],
)
def test_steerings_and_draws_of_another_number_are_refused(gpt2, given, message):
    with pytest.raises(SelectionError, match=message):
        generate(gpt2[1], PROMPTS, max_new_tokens=NEW_TOKENS, **given)


@pytest.mark.long
def test_devices_change_nothing(gpt2, gpt2_directory):
    """Rows split over eight devices, some of them without a real row, give the text that one device gives."""
    _, model = gpt2
    own = dict(draws=[0, 1, 0, 1], max_new_tokens=NEW_TOKENS, seed=5)
    script = f"""
import json, jax
import expertlens_jax as el
from expertlens_jax.models.generation import generate
assert jax.device_count() == 8
model = el.load_model({str(gpt2_directory)!r})
result = generate(model, {PROMPTS!r}, max_new_tokens={NEW_TOKENS}, top_p=0.9, seed=5)
print(json.dumps([ids.tolist() for ids in result.token_ids]))
steering = el.steer_units(model, model.units.query("site == 'mlp.up'").head(6), scale=0.5, shift=2.0)
result = generate(model, {PROMPTS!r}, steering=[steering, None] * 2, **{own!r})
print(json.dumps([ids.tolist() for ids in result.token_ids]))
"""
    all_alike, by_row = map(json.loads, run_script(script).splitlines()[-2:])
    one = generate(model, PROMPTS, max_new_tokens=NEW_TOKENS, top_p=0.9, seed=5)
    assert all_alike == [ids.tolist() for ids in one.token_ids]
    one = generate(model, PROMPTS, steering=[steerings_of(model)[0], None] * 2, **own)
    assert by_row == [ids.tolist() for ids in one.token_ids]


@pytest.mark.parametrize("options", [dict(temperature=0.7, top_k=5, top_p=0.8), dict(temperature=2.0)])
def test_draws_follow_the_filtered_distribution(gpt2, options):
    """512 first tokens of one prompt, by a chi-square test against transformers' warpers."""
    _, model = gpt2
    first = generate(model, ["k"] * 512, max_new_tokens=1, seed=1, **options)
    logits = np.asarray(model(np.array(model.tokenizer(["k"])["input_ids"])))[:, -1]
    scores = transformers.TemperatureLogitsWarper(options["temperature"])(None, torch.tensor(logits))
    if "top_k" in options:
        scores = transformers.TopKLogitsWarper(options["top_k"])(None, scores)
        scores = transformers.TopPLogitsWarper(options["top_p"])(None, scores)
    probs = scores.double().softmax(-1).numpy()[0]
    counts = np.bincount(np.concatenate(first.token_ids), minlength=len(probs))
    assert counts[probs == 0].sum() == 0
    common = probs > 0.01  # the rarer ones as one class, if there are any
    observed, expected = counts[common], 512 * probs[common]
    if (rest := 512 * probs[~common].sum()) > 0:
        observed, expected = np.append(observed, counts[~common].sum()), np.append(expected, rest)
    assert len(observed) > 2
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


LOGITS = np.random.default_rng(0).normal(scale=3.0, size=(5, 97)).astype(np.float32)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        *(
            (lambda x, t=t: sampling.divide_by_temperature(x, t), transformers.TemperatureLogitsWarper(t))
            for t in (0.3, 1.0, 2.5)
        ),
        *((lambda x, k=k: sampling.keep_top_k(x, k), transformers.TopKLogitsWarper(k)) for k in (1, 5, 97)),
        *(
            (lambda x, p=p: sampling.keep_top_p(x, p), transformers.TopPLogitsWarper(p))
            for p in (0.001, 0.3, 0.9, 0.999, 1.0)
        ),
    ],
)
def test_filters_match_transformers(ours, theirs):
    theirs = theirs(None, torch.tensor(LOGITS)).numpy()
    np.testing.assert_allclose(ours(LOGITS), theirs, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(ours)(LOGITS), theirs, rtol=1e-6)


def test_top_p_after_top_k_counts_only_what_is_left():
    kept = transformers.TopKLogitsWarper(7)(None, torch.tensor(LOGITS))
    theirs = transformers.TopPLogitsWarper(0.8)(None, kept).numpy()
    ours = sampling.keep_top_p(sampling.keep_top_k(LOGITS, 7), 0.8)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_draws_are_those_of_jax():
    """Gumbel's noise, added here, draws what jax.random.categorical does; rows may share it."""
    logits = np.random.default_rng(1).normal(size=(6, 97)).astype(np.float32)
    key = jax.random.key(4)
    options = sampling.Sampling(key=key, temperature=1.0, top_p=None, top_k=None)
    keys = [jax.random.fold_in(jax.random.fold_in(key, draw), 2) for draw in (7, 1, 0)]
    want = [int(jax.random.categorical(keys[row % 3], logits[row])) for row in range(6)]
    step, draws = np.int32(2), np.array([7, 1, 0], np.int32)
    assert sampling.draw_tokens(options, draws, step, logits, np.arange(6) % 3).tolist() == want
    assert sampling.draw_tokens(options, np.tile(draws, 2), step, logits).tolist() == want


def test_filters_keep_ties_together():
    logits = np.array([2.0, 1.0, 1.0, 0.0], np.float32)
    kept = [True, True, True, False]
    np.testing.assert_array_equal(np.isfinite(sampling.keep_top_k(logits, 2)), kept)
    np.testing.assert_array_equal(np.isfinite(sampling.keep_top_p(logits, 0.7)), kept)


@hypothesis.given(
    hypothesis.extra.numpy.arrays(
        np.float32,
        hypothesis.strategies.sampled_from([(3, 1), (2, 127), (2, 128), (3, 129), (2, 300)]),
        elements=hypothesis.strategies.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0, np.inf, np.nan]),
        fill=hypothesis.strategies.sampled_from([-np.inf, -1.0, 0.0]),
    )
)
def test_the_first_of_the_largest_is_numpys(values):
    found = sampling.first_largest(values)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, values.argmax(-1))


def test_one_prompt_is_one_row_and_prints_as_text(gpt2):
    _, model = gpt2
    result = generate(model, "a b", max_new_tokens=NEW_TOKENS, temperature=0)
    assert result.prompts == ("a b",)
    assert len(result.texts) == len(result.token_ids) == len(result.log_probs) == 1
    assert result.token_ids[0].dtype == np.int32 and result.log_probs[0].dtype == np.float32
    whole = model.tokenizer.decode([4, 5, *result.token_ids[0]], skip_special_tokens=True)
    assert "a b" + result.texts[0] == whole
    assert str(result) == repr(result) == f"a b ▸{result.texts[0]}"
    two = generation.Generations(("a", "b"), (" c\nd", " e"), (), ())
    assert str(two) == "a ▸ c\n    d\nb ▸ e"


def test_bfloat16(gpt2, gpt2_directory):
    result = generate(el.load_model(gpt2_directory, dtype="bfloat16"), PROMPTS, max_new_tokens=NEW_TOKENS)
    assert all(np.isfinite(log_probs).all() for log_probs in result.log_probs)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(max_new_tokens=0), "max_new_tokens is 0; it should be at least 1"),
        (
            dict(temperature=-0.5),
            "temperature is -0.5; it should be a finite number above 0, or 0 for greedy",
        ),
        (dict(temperature=float("nan")), "temperature is nan"),
        (dict(top_k=0), "top_k is 0; it should be at least 1, or None"),
        (dict(top_p=0.0), "top_p is 0.0; it should be above 0 and at most 1, or None"),
        (dict(top_p=1.5), "top_p is 1.5"),
    ],
)
def test_options_out_of_range_are_refused(gpt2, options, message):
    with pytest.raises(SelectionError, match=message):
        generate(gpt2[1], "a", **options)


def test_too_long_is_refused_by_how_much(gpt2):
    _, model = gpt2
    with pytest.raises(
        TokenizationError, match=r"prompt 1 has 10 tokens; with max_new_tokens=35 it is 5 more .* 40"
    ) as e:
        generate(model, ["a", PROMPTS[2]], max_new_tokens=35)
    assert "at most 30 new tokens" in str(e.value)
    with pytest.raises(TokenizationError, match=r"Shorten it\.$"):
        generate(model, " ".join("a" * 50), max_new_tokens=1)
    assert len(generate(model, PROMPTS[2], max_new_tokens=30).token_ids[0]) == 30


def test_a_prompt_without_a_token_is_refused(gpt2):
    _, model = gpt2
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer._tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A")
    bare = model.replace(tokenizer=tokenizer)
    with pytest.raises(TokenizationError, match=r"prompt 1 is '', .* \(BOS\)\. .* to start from, any word"):
        generate(bare, ["a", ""])
    tokenizer.eos_token = "z"
    with pytest.raises(TokenizationError, match="such as 'z', which stands between texts"):
        generate(bare, "")
    result = generate(model, ("", *PROMPTS[1:]), max_new_tokens=NEW_TOKENS)  # [CLS] [SEP] are enough
    assert len(result.token_ids[0]) == NEW_TOKENS
    with pytest.raises(TokenizationError, match="no prompts were given"):
        generate(model, [])


def test_encoders_are_refused(tmp_path):
    case = next(case for case in families.CASES if case.name == "bert")
    model = el.load_model(families.save(families.make_hf_model(case), tmp_path))
    with pytest.raises(UnsupportedModelError, match=r"is an encoder \(bert\) and predicts no next token"):
        generate(model, "a")


@pytest.mark.parametrize("devices", [1, 8])
def test_at_most_a_fifth_of_a_large_batch_is_filler(devices):
    """Sizes are few, so that little compiles: four an octave, and the powers of two below."""
    sizes = {wanted: generation._num_rows(wanted, 10_000, devices) for wanted in range(1, 513)}
    assert all(size >= wanted and size % devices == 0 for wanted, size in sizes.items())
    assert all(size - wanted <= max(0.2 * size, 8) for wanted, size in sizes.items())
    assert len(set(sizes.values())) <= 4 + 4 * 6
    assert generation._num_rows(1000, 64, devices) == 64
