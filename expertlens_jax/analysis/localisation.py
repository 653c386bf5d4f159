"""Where in the model the experts are."""

import pandas as pd
import xarray as xr


def count_experts(experts: xr.DataArray) -> pd.DataFrame:
    """Counts an average concept's experts in each layer and site.

    Args:
      experts: bool (concept, unit), from `select_experts`, with the units' `layer` and `site`.

    Returns:
      A row per layer and site: `layer`, `site`, `units` (how many there are), `experts_per_concept` (mean over
      concepts) and `share` (of the site's units, 0 to 1).
    """
    units = pd.DataFrame({name: experts[name].values for name in ("layer", "site")})
    units["experts_per_concept"] = experts.mean("concept").values
    grouped = units.groupby(["layer", "site"], sort=False)["experts_per_concept"]
    counts = grouped.agg(units="size", experts_per_concept="sum").reset_index()
    counts["share"] = counts["experts_per_concept"] / counts["units"]
    return counts
