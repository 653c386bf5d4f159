"""A part over its whole."""

import numpy as np
import pytest

from expertlens_jax.experts.ratio import ratio


@pytest.mark.parametrize("empty", [0.0, np.nan])
def test_nothing_of_nothing_is_what_the_caller_says(empty):
    part, whole = np.array([[3, 0], [1, 0]]), np.array([4, 0])
    np.testing.assert_array_equal(ratio(part, whole, empty=empty), [[0.75, empty], [0.25, empty]])
    assert ratio(2, 4, empty=empty) == 0.5 and ratio(part, whole, empty=empty).dtype == np.float64
