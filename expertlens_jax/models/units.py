"""The table of units: where each column of a response matrix stands in the model, here and in Hugging Face."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.sae import SAE, SITE


def check_sites(config: TransformerConfig, sites: Sequence[str] | None, saes: Sequence[SAE] = ()) -> tuple[str, ...]:
    """The asked-for sites in the order of the units table; None asks for the linear layers' outputs.

    Raises:
      SelectionError: a site that this model doesn't have, or none at all; or `sae` beside others.
    """
    if sites is None:
        return config.default_sites()
    if SITE in sites:
        if not saes:
            raise SelectionError(
                f"the site {SITE} was asked for and the model carries no sparse autoencoder. Give it one: "
                "model.with_sae(el.load_sae(PATH))."
            )
        if set(sites) != {SITE}:
            raise SelectionError(
                f"sites {', '.join(sites)} were asked for; {SITE} is recorded by itself, since only some layers have "
                f"it. Record the others in a call of their own."
            )
        return (SITE,)
    known = config.site_channels()
    unknown = [site for site in sites if site not in known]
    if unknown or not sites:
        raise SelectionError(
            f"sites {', '.join(unknown) or '(none)'} were asked for; this model has {', '.join(known)}."
        )
    return tuple(site for site in known if site in sites)


def units_table(
    family: Family, config: TransformerConfig, sites: Sequence[str] | None = None, saes: Sequence[SAE] = ()
) -> pd.DataFrame:
    """A row per unit, by layer, then site, then channel.

    Columns: `layer` (int), `site`, `channel` (int), and the unit's address in transformers' model:
    `hf_module` and `hf_channel` (int), the module's name and the channel of its output. `mlp.act` is
    addressed as the input of the layer that reads it, its module's name followed by `#input`. A feature of a sparse
    autoencoder has the module whose output is read, and its own number; only layers that are read have any.

    Raises:
      SelectionError: see `check_sites`.
    """
    linears = family.linears(config)
    down = linears["mlp.down"].module
    sites = check_sites(config, sites, saes)
    parts = []
    for sae in saes if sites == (SITE,) else ():
        module = family.block if sae.site == "resid" else linears[sae.site].module
        channels = np.arange(sae.num_features)
        parts.append((sae.layer, SITE, channels, family.hf_module(module.format(layer=sae.layer)), channels))
    for layer in range(config.num_layers) if not parts else ():
        for site in sites:
            num_channels = config.site_channels()[site]
            channels = np.arange(num_channels)
            if site == "resid":
                module, hf_channels = family.block, channels
            elif site == "mlp.act":
                module, hf_channels = f"{down}#input", channels
            else:
                module = linears[site].module
                hf_channels = channels if linears[site].channels is None else linears[site].channels
            name = family.hf_module(module.format(layer=layer))
            parts.append((layer, site, channels, name, hf_channels))
    categories = [SITE] if sites == (SITE,) else list(config.site_channels())
    sizes = [len(channels) for _, _, channels, _, _ in parts]
    layers, names, channels, modules, hf_channels = zip(*parts, strict=True)
    return pd.DataFrame(
        {
            "layer": np.repeat(layers, sizes),
            "site": pd.Categorical(np.repeat(names, sizes), categories=categories),
            "channel": np.concatenate(channels),
            "hf_module": np.repeat(modules, sizes),
            "hf_channel": np.concatenate(hf_channels),
        }
    )


def site_path(site: str) -> tuple[str, ...]:
    """Where a site stands in the `responses` and `steering` collections."""
    if site == SITE:
        return (SITE,)
    return ("layers",) if site == "resid" else ("layers", *site.split("."))
