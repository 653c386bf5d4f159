"""The table of units: where each column of a response matrix stands in the model, here and in Hugging Face."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.sites import SITES, Site, block_sites, check_sites, layer_widths


def units_table(
    family: Family, config: TransformerConfig, sites: Sequence[str] | None = None, saes: Sequence[SAE] = ()
) -> pd.DataFrame:
    """Return a row per unit, by layer, then site, then channel.

    Columns: `layer` (int), `site`, `channel` (int), and the unit's address in transformers' model: `hf_module` and
    `hf_channel` (int), the module's name and the channel of its output. What enters a module has its name followed by
    `#input`, as `mlp.act` and `attn.z` have. A unit that no module's input or output holds (`attn.head`) has the
    module "" and the channel -1. A feature of a sparse autoencoder has the module whose output is read, and its own
    number; only layers that are read have any.

    Of a mixture of experts, the table has a column `expert` (int) as well: whose unit it is (of `mlp.router`, whose
    logit), and -1 of units that are no expert's. At `mlp.gate`, `mlp.up` and `mlp.act`, expert e has the channels from
    e x d_mlp on. No module of transformers has these by itself: their module is "".

    Raises:
      SelectionError: see `check_sites`.
    """
    asked = [SITES[name] for name in check_sites(config, sites, saes)]
    parts = [part for site in asked for part in site_units(site, family, config, saes)]
    parts.sort(key=lambda part: part[0])  # by layer; sites stay in their order
    categories = [site.name for site in asked] if any(site.by_sae for site in asked) else list(block_sites(config))
    layers, names, modules, hf_channels = zip(*parts, strict=True)
    sizes = [len(channels) for channels in hf_channels]
    of_units = (unit_experts(SITES[name], config)[:size] for name, size in zip(names, sizes, strict=True))
    experts = {"expert": np.concatenate(list(of_units))}
    return pd.DataFrame(
        {
            "layer": np.repeat(layers, sizes),
            "site": pd.Categorical(np.repeat(names, sizes), categories=categories),
            "channel": np.concatenate([np.arange(size) for size in sizes]),
            **(experts if config.num_experts and not any(site.by_sae for site in asked) else {}),
            "hf_module": np.repeat(modules, sizes),
            "hf_channel": np.concatenate(hf_channels),
        }
    )


def unit_experts(site: Site, config: TransformerConfig) -> np.ndarray:
    """Return which expert of a mixture each unit of a site in a layer is of, int `[units]`.

    It is -1 of units that are none's.
    """
    channels = np.arange(site.channels(config))
    if site.by_expert and config.num_experts:
        return channels // config.d_mlp
    return channels if site.name == "mlp.router" else np.full(len(channels), -1)


def experts_of(table: pd.DataFrame, config: TransformerConfig) -> np.ndarray:
    """Return which expert of a mixture the unit in each row of `layer, site, channel` is of, int `[rows]`, or -1."""
    experts = np.full(len(table), -1)
    sites, channels = table["site"].to_numpy(), table["channel"].to_numpy()
    for site in table["site"].unique():
        here = sites == site
        experts[here] = unit_experts(SITES[site], config)[channels[here].astype(int)]
    return experts


def check_experts(given: pd.DataFrame, found: pd.DataFrame, model: str) -> None:
    """Check that a table's units are of those experts of a mixture that it says.

    Another mixture has units at the same places, which are other experts' where its experts are wider.

    Args:
      given: rows that someone gave, with or without the column `expert`.
      found: the model's own rows at the same layers, sites and channels, with it if the model is a mixture.
      model: its name.

    Raises:
      SelectionError: they aren't.
    """
    if "expert" not in given:
        return
    own = found["expert"].to_numpy() if "expert" in found else np.full(len(found), -1)
    other = np.flatnonzero(given["expert"].to_numpy() != own)
    if other.size:
        first = int(other[0])
        layer, site, channel = (found[name].iloc[first] for name in ("layer", "site", "channel"))
        whose = f"expert {own[first]}'s" if own[first] >= 0 else "no expert's"
        raise SelectionError(
            f"{other.size} of {len(found)} units are another model's: L{layer} {site} {channel} is of expert "
            f"{given['expert'].iloc[first]} in the table given, and {whose} in {model}. A table's channels are counted "
            "from the site's first on, over all experts. Give rows of model.units."
        )


def site_units(
    site: Site, family: Family, config: TransformerConfig, saes: Sequence[SAE]
) -> list[tuple[int, str, str, np.ndarray]]:
    """Return, of each layer that has the site: layer, site, module, and the module's channels `[units]`."""
    if site.by_sae:
        read = [address(SITES[sae.site], family, config).module.format(layer=sae.layer) for sae in saes]
        features = [np.arange(sae.num_features) for sae in saes]
        return [
            (sae.layer, site.name, family.hf_module(module), numbers)
            for sae, module, numbers in zip(saes, read, features, strict=True)
        ]
    widths = [(layer, width) for layer, width in enumerate(layer_widths(site, config)) if width]
    if site.address is None or (site.by_expert and config.num_experts):
        return [(layer, site.name, "", np.full(width, -1)) for layer, width in widths]
    here = address(site, family, config)
    channels = np.arange(site.channels(config)) if here.channels is None else here.channels
    modules = [(layer, family.hf_module(here.module.format(layer=layer)), width) for layer, width in widths]
    return [(layer, site.name, module, channels[:width]) for layer, module, width in modules]


def address(site: Site, family: Family, config: TransformerConfig) -> Linear:
    """Return the module, named with `{layer}`, whose output or input (`#input`) is a site's, and which of its channels.

    Of a site that each expert of a mixture has by itself, there is no such module.
    """
    assert site.address is not None, f"{site.name} stands in no module of Hugging Face's"
    name, is_input, _ = site.address.partition("#input")
    linear = Linear(family.block) if name == "block" else family.linears(config)[name]
    return Linear(linear.module + is_input) if is_input else linear
