"""Beyond averages: what steering by whole distributions of responses needs to know of a unit, and what it means.

`measure_expertise` and `find_experts` measure both for every (concept, unit), from the sort that average precision
comes from (`measuring.py`). Here are their definitions, for any two samples, in float64.
"""

import numpy as np
import xarray as xr
from jaxtyping import Float64, Real
from scipy import stats

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.experts.expertise import check_same_responses, check_same_sentences
from expertlens_jax.experts.labelled_responses import Responses, as_responses
from expertlens_jax.experts.ranking import rank_units
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.settings import Negatives

MEASURED = ("auroc", "transport_slope")


def measure_distributions(
    expertise: xr.Dataset,
    responses: Responses,
    concepts: ConceptDataset,
    *,
    top: int | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Measure what a table of expertise lacks of `auroc` and `transport_slope`, and add it.

    Tables from `measure_expertise` and `find_experts` have both, unless `transport=False` was asked for, and come back
    as they are; those of older versions have neither.

    Args:
      expertise: of these responses and concepts; its attributes say which sentences were a concept's negatives.
      responses: float32 over (sentence, unit).
      concepts: labels bool [concepts, sentences].
      top: keep what is added for this many units of highest average precision a concept; None keeps all.
      progress: shows a bar.

    Returns:
      The table with both variables over (concept, unit), float32; those added are NaN where `top` leaves units out.
      `auroc` is the probability that a positive sentence's response is above a negative's (half of it where they
      tie); of the other see `transport_slope`.

    Raises:
      ResponsesError: responses to other sentences, or of other units.

    >>> import expertlens_jax as el
    >>> concepts = el.load_concepts("facts").subset(["cat", "rain"])
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), concepts.sentences, sites="attn.v")
    >>> expertise = el.measure_expertise(responses, concepts, transport=False)
    >>> more = el.measure_distributions(expertise, responses, concepts)
    >>> "transport_slope" in expertise, "transport_slope" in more
    (False, True)
    """
    responses = as_responses(responses)
    check_same_sentences(responses.sentences, concepts.sentences)
    check_same_responses(expertise, responses)
    lacking = [name for name in MEASURED if name not in expertise or np.isnan(expertise[name].values).any()]
    if not lacking:
        return expertise
    contrast = contrast_concepts(concepts, Negatives.of_attributes(expertise.attrs))
    ranking = rank_units(
        responses.values,
        contrast,
        transport="transport_slope" in lacking,
        units=responses.units,
        sentences=responses.sentences,
        progress=progress,
    ).measured()
    kept = select_experts(expertise, top=top or expertise.sizes["unit"]).values
    return expertise.assign(
        {name: (("concept", "unit"), np.where(kept, ranking[name], np.float32(np.nan))) for name in lacking}
    )


def area_under_roc(
    positives: Real[np.ndarray, "P units"], negatives: Real[np.ndarray, "N units"]
) -> Float64[np.ndarray, " units"]:
    """Return the area under the receiver operating characteristic, by ranks (Mann & Whitney 1947).

    Args:
      positives: [P, units].
      negatives: [N, units].

    Returns:
      float64 [units].
    """
    ranks = stats.rankdata(np.concatenate([positives, negatives]), axis=0)
    count = len(positives)
    return (ranks[:count].sum(axis=0) - count * (count + 1) / 2) / (count * len(negatives))


def transport_slope(
    source: Real[np.ndarray, "N units"], target: Real[np.ndarray, "P units"]
) -> Float64[np.ndarray, " units"]:
    """Return the slope of the affine map that brings one distribution closest to another, unit by unit.

    Linear-AcT (Rodriguez et al. 2025, ICLR): with both samples sorted and centred, the map `slope * x + offset` of
    least squared distance to the monotone (optimal) transport has

        slope = sum_i a_(i) b_(i) / sum_i a_(i)^2,    offset = mean(b) - slope * mean(a).

    Samples of other sizes are coupled as distributions: each source response meets the stretch of the target's
    quantile function that has its share of the probability.

    Args:
      source: [N, units].
      target: [P, units].

    Returns:
      float64 [units]; 0 for a unit whose source is constant, which the offset alone brings to the target's mean.
    """
    a = np.sort(source, axis=0)
    a -= a.mean(axis=0)
    b = np.sort(target, axis=0)
    b -= b.mean(axis=0)
    # The integral of the target's quantile function, at the probabilities where one source response gives way to
    # the next.
    below = np.concatenate([np.zeros((1, b.shape[1])), np.cumsum(b, axis=0)]) / len(b)
    probability = np.arange(len(a) + 1) / len(a) * len(b)
    whole = np.minimum(probability.astype(int), len(b) - 1)
    integral = below[whole] + (probability - whole)[:, None] * b[whole] / len(b)
    covariance = (a * np.diff(integral, axis=0)).sum(axis=0)
    variance = np.square(a).mean(axis=0)
    return np.divide(covariance, variance, out=np.zeros_like(covariance), where=variance > 0)
