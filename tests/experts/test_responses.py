"""Recording sentences: what the tokenizer adds and how batches are cut must not matter."""

import families
import numpy as np
import pytest
from launched import run_script

import expertlens_jax as el
from expertlens_jax.errors import SelectionError, TokenizationError
from expertlens_jax.models.tokens import batches, bucket_lengths, padding_id, tokenize

SENTENCES = ["a b c", "d", "e f g h i j k l m n o p", "b", "c a", "x y z " * 6, "q r s t u v w x"]


pytestmark = pytest.mark.compiled_quickly


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "bert")
    return families.save(families.make_hf_model(case), tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory)


def one_by_one(model, sentence, pooling="max"):
    """The response to a sentence by itself, unpadded; CLS and SEP stay out of the pool."""
    ids = np.array([model.tokenizer(sentence)["input_ids"]])
    pool_mask = np.ones(ids.shape, bool)
    pool_mask[:, [0, -1]] = False
    return np.asarray(model.respond(ids, pool_mask=pool_mask, pooling=pooling))[0]


@pytest.mark.parametrize("pooling", ["max", "min", "mean", "last"])
def test_rows_are_what_each_sentence_gives_by_itself(model, pooling):
    responses = el.record_responses(model, SENTENCES, pooling=pooling)
    assert responses.values.shape == (len(SENTENCES), len(model.units))
    assert responses.values.dtype == np.float32
    alone = np.stack([one_by_one(model, sentence, pooling) for sentence in SENTENCES])
    np.testing.assert_allclose(responses.values, alone, atol=2e-5)


def test_batch_size_does_not_matter(model):
    small = el.record_responses(model, SENTENCES, tokens_per_batch=8)
    large = el.record_responses(model, SENTENCES, tokens_per_batch=4096)
    np.testing.assert_allclose(small.values, large.values, atol=2e-5)


def test_asked_for_sites_are_the_columns(model):
    responses = el.record_responses(model, SENTENCES, sites=("resid", "attn.k"))
    assert list(responses.units["site"].unique()) == ["attn.k", "resid"]  # in the table's order
    everything = el.record_responses(model, SENTENCES)
    keys = (model.units["site"] == "attn.k").to_numpy()
    ours = (responses.units["site"] == "attn.k").to_numpy()
    np.testing.assert_allclose(responses.values[:, ours], everything.values[:, keys], atol=1e-6)


def test_steering_is_applied_while_recording(model):
    unit = model.units[model.units["site"] == "mlp.up"].iloc[[3]]
    steered = el.record_responses(model, SENTENCES, steering=el.steer_units(model, unit, shift=7.0))
    assert (steered.values[:, unit.index[0]] == 7.0).all()


@pytest.mark.process
def test_eight_devices_and_a_split_model_give_the_same_responses_as_one(model, directory, tmp_path):
    script = f"""
import jax, numpy as np, expertlens_jax as el
assert len(jax.devices()) == 8
model = el.load_model({str(directory)!r})
np.save({str(tmp_path)!r} + "/eight.npy", el.record_responses(model, {SENTENCES!r}).values)
split = el.load_model({str(directory)!r}, mesh=el.make_mesh(model=2))
kernel = split.params["layers"]["mlp"]["up"]["kernel"]
assert kernel.addressable_shards[0].data.size * 2 == kernel.size
np.save({str(tmp_path)!r} + "/split.npy", el.record_responses(split, {SENTENCES!r}).values)
"""
    run_script(script)
    one = el.record_responses(model, SENTENCES).values
    np.testing.assert_allclose(np.load(tmp_path / "eight.npy"), one, atol=2e-5)
    np.testing.assert_allclose(np.load(tmp_path / "split.npy"), one, atol=2e-5)


def test_special_tokens_typed_by_the_user_stay_in_the_pool(model):
    tokens = tokenize(model.tokenizer, ["a [SEP] b"], max_tokens=40)
    assert tokens.in_pool[0].tolist() == [False, True, True, True, False]


def test_batches_hold_every_sentence_once_and_pad_to_few_lengths(model):
    tokens = tokenize(model.tokenizer, SENTENCES, max_tokens=40)
    seen, shapes = [], set()
    for batch in batches(tokens, pad_id=0, tokens_per_batch=32, rows_multiple=2):
        seen.extend(batch.rows)
        shapes.add(batch.token_ids.shape)
        assert batch.token_ids.shape[0] % 2 == 0
        assert batch.pool_mask.any(axis=1).all()
        for i, row in enumerate(batch.rows):
            np.testing.assert_array_equal(batch.token_ids[i, batch.attention_mask[i]], tokens.ids[row])
    assert sorted(seen) == list(range(len(SENTENCES)))
    assert {length for _, length in shapes} == set(bucket_lengths(np.array([len(x) for x in tokens.ids])))


def test_a_sentence_too_long_is_named_and_cut_only_if_asked(model):
    long = " ".join("abcdefghij" * 5)
    with pytest.raises(TokenizationError, match=r"1 of 2 sentences.*context of 40 tokens.*number 1, has 52"):
        el.record_responses(model, ["a b", long])
    cut = el.record_responses(model, ["a b", long], truncate=True)
    np.testing.assert_allclose(cut.values[1], one_by_one(model, " ".join(("abcdefghij" * 5)[:38])), atol=2e-5)


@pytest.mark.parametrize("sentence", ["", "  "])
def test_a_sentence_without_tokens_is_refused(model, sentence):
    with pytest.raises(TokenizationError, match="no token of their own; the first is number 1"):
        el.record_responses(model, ["a b", sentence])


def test_a_tokenizer_without_a_pad_token_lends_its_end_of_text_or_is_refused(model):
    class Bare:
        pad_token_id = None
        eos_token_id = 7

    assert padding_id(Bare()) == 7
    Bare.eos_token_id = None
    with pytest.raises(TokenizationError, match="no pad token.*Set tokenizer.pad_token"):
        padding_id(Bare())


def test_unknown_sites_and_poolings_are_refused(model):
    with pytest.raises(SelectionError, match=r"attn.x were given; this model has resid.pre, attn.q, attn.k"):
        el.record_responses(model, SENTENCES, sites=("attn.q", "attn.x"))
    with pytest.raises(SelectionError, match="pooling 'median' was given; wanted one of max, mean, last"):
        el.record_responses(model, SENTENCES, pooling="median")
    with pytest.raises(SelectionError, match="a single string was given"):
        el.record_responses(model, "a b")


def test_token_ids_of_another_vocabulary_are_refused(model):
    with pytest.raises(TokenizationError, match="run from 5 to 900; the vocabulary of .* has 83"):
        model(np.array([[5, 900]]))
    with pytest.raises(TokenizationError, match="41 tokens were given; .* has positions for 40"):
        model(np.ones((1, 41), int))
    with pytest.raises(TokenizationError, match=r"shape \[4\]"):
        model(np.ones(4, int))


def test_steering_units_that_are_not_there_is_refused(model):
    units = model.units.iloc[:3].assign(channel=999)
    with pytest.raises(SelectionError, match="no unit layer 0, site attn.q, channel 999"):
        el.steer_units(model, units)
    with pytest.raises(SelectionError, match="1 unit is given twice"):
        el.steer_units(model, model.units.iloc[[0, 1, 1]])
