"""A part over its whole, where the whole may be nothing."""

import numpy as np
from numpy.typing import ArrayLike


def ratio(part: ArrayLike, whole: ArrayLike, *, empty: float) -> np.ndarray:
    """Return part / whole, float64 in their common shape, and `empty` where the whole is 0.

    Args:
      part: of any shape.
      whole: none below 0; NaN counts as 0.
      empty: what nothing of nothing is: 0 where two empty sets share nothing, NaN where a mean over none is unknown.
    """
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, float(empty)), where=whole > 0)
