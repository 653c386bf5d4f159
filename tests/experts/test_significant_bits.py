"""Responses of few significant bits: rounded as numpy rounds them, and ties that no size of batch breaks."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from ml_dtypes import bfloat16

import expertlens_jax as el
from expertlens_jax.errors import RunDirectoryError, SelectionError
from expertlens_jax.experts.responses import round_to_bits

pytestmark = [pytest.mark.models, pytest.mark.compiled_quickly]

BARE = dict(halves=False, permutations=0, transport=False)
finite = st.floats(-(2.0**126), 2.0**126, width=32, allow_subnormal=False)


def rounded(values, bits):
    """To even in the middle, in float64, whose 53 bits hold all that comes between."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 2.0**bits), exponent - bits).astype(np.float32)


@given(values=hnp.arrays(np.float32, 20, elements=finite), bits=st.integers(2, 24))
def test_it_rounds_as_numpy_does(values, bits):
    got = np.asarray(round_to_bits(values, bits))
    np.testing.assert_array_equal(got, rounded(values, bits))
    np.testing.assert_array_equal(np.asarray(round_to_bits(got, bits)), got)
    assert (np.diff(got[np.argsort(values)]) >= 0).all()  # no pair changes places
    if bits == 8:
        np.testing.assert_array_equal(got, values.astype(bfloat16).astype(np.float32))


def test_none_changes_no_bit():
    values = np.random.default_rng(0).normal(size=100).astype(np.float32)
    assert np.asarray(round_to_bits(values, None)).tobytes() == values.tobytes()


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    return el.load_concepts("facts").subset(["cat", "dog", "rain", "bread"])


def test_no_size_of_batch_breaks_ties_of_sentences_that_begin_alike(model, concepts):
    """Without it, one part in ten of average precision differs by more than 0.001."""

    def differing(bits):
        tables = [
            el.measure_expertise(
                el.record_responses(
                    model, concepts.sentences, sites="mlp.up", tokens_per_batch=size, significant_bits=bits
                ),
                concepts,
                transport=False,
            )
            for size in (64, 2048)
        ]
        first, second = (table["average_precision"].values for table in tables)
        return (np.abs(first - second) > 1e-3).mean(), np.abs(first - second).mean()

    share, mean = differing(None)
    share_rounded, mean_rounded = differing(12)
    assert share > 0.02 and share_rounded < 1e-3
    assert mean_rounded < mean / 50


@pytest.mark.long
def test_a_run_rounds_as_recording_does_and_says_so(model, concepts, tmp_path):
    asked = dict(sites="attn.v", significant_bits=12)
    responses = el.record_responses(model, concepts.sentences, **asked)
    plain = el.record_responses(model, concepts.sentences, sites="attn.v")
    np.testing.assert_array_equal(responses.values, rounded(plain.values, 12))
    assert responses.provenance.significant_bits == 12 and plain.provenance.significant_bits == 0
    assert "significant_bits" not in plain.provenance.attributes()
    measured = el.measure_expertise(responses, concepts, transport=False)
    table = el.find_experts(model, concepts, tmp_path / "run", store=tmp_path / "store", **asked, **BARE)
    assert table["average_precision"].values.tobytes() == measured["average_precision"].values.tobytes()
    assert table.attrs["significant_bits"] == measured.attrs["significant_bits"] == 12
    with pytest.raises(RunDirectoryError, match="significant_bits: 12 there, None asked for"):
        el.find_experts(model, concepts, tmp_path / "run", sites="attn.v", **BARE)
    whole = el.find_experts(model, concepts, tmp_path / "whole", store=tmp_path / "store", sites="attn.v", **BARE)
    assert whole["average_precision"].values.tobytes() == (
        el.measure_expertise(plain, concepts, transport=False)["average_precision"].values.tobytes()
    )


@pytest.mark.parametrize("bits", [0, 1, 25, -1, 12.0, True, "12"])
def test_what_is_no_number_of_bits_is_refused(bits):
    with pytest.raises(
        SelectionError, match=re.escape(f"significant_bits={bits!r} was given; wanted an integer from 2")
    ):
        el.Recording(significant_bits=bits)
