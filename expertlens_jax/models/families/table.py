"""The table of families in the README, made from what the families state."""

import transformers

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import FAMILIES
from expertlens_jax.models.families.family import Family

QK_NORMS = {
    "head": "q and k normed by head",
    "projection": "q and k normed",
    "rotated": "q and k normed by head after they are turned",
}


def families_table() -> str:
    """Return a Markdown table with a row per family: models, `model_type`, sites, and what it is built of.

    Sites and parts are those of the family's default Hugging Face config, read by its own `translate`.
    """
    rows = [("Family", "`model_type`", "For example", "Sites", "Built of"), ("---",) * 5]
    for family in FAMILIES.values():
        config = family.translate(transformers.AutoConfig.for_model(family.model_type))
        examples = ", ".join(f"`{name}`" for name in family.examples)
        rows.append((family.title, f"`{family.model_type}`", examples, _sites(config), _parts(family, config)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _sites(c: TransformerConfig) -> str:
    """Return the default sites by their part of the block: `attn.{q,k,v,out}`."""
    parts: dict[str, list[str]] = {}
    for site in c.default_sites():
        part, name = site.split(".")
        parts.setdefault(part, []).append(name)
    return " ".join(f"`{part}.{{{','.join(names)}}}`" for part, names in parts.items())


def _parts(family: Family, c: TransformerConfig) -> str:
    """Return what tells this family from others."""
    parts = [] if c.causal else ["encoder"]
    if family.text is not None:
        parts.append("the text tower")
    if c.alibi is not None:
        parts.append("ALiBi")
    elif c.rotary is None:
        parts.append("learned positions")
    else:
        share = c.rotary.dim / c.head_dim
        parts.append("rotary positions" if share == 1 else f"rotary positions on {share:.0%} of each head")
    if c.unrotated_layers:
        parts[-1] += f", none on {len(c.unrotated_layers)} of {c.num_layers} layers"
    norm = {"layer": "layer norm", "rms": "RMS norm"}[c.norm]
    place = {
        "pre": "before each branch",
        "post": "after each addition",
        "output": "on each branch's output",
        "both": "before and after each branch",
    }[c.norm_place]
    parts.append(f"{norm} {place}" + ("" if c.norm_parameters else ", without parameters"))
    if c.qk_norm is not None:
        parts.append(QK_NORMS[c.qk_norm])
    if c.value_norm:
        parts[-1] = parts[-1].replace("q and k", "q, k and v")
    if c.query_scale is not None:
        parts.append("queries grow by their position")
    if c.residual != "sequential":
        parts.append("attention and MLP in parallel")
    if c.num_experts:
        shared = " and a shared one" if c.d_shared else ""
        parts.append(f"{c.experts_per_token} of {c.num_experts} experts a token{shared}")
    if any(c.windows):
        count = sum(window > 0 for window in c.windows)
        parts.append("sliding windows" + ("" if count == c.num_layers else f" on {count} of {c.num_layers} layers"))
    if c.local_head_dim is not None:
        parts.append("narrower heads on those")
    if c.per_layer_width:
        parts.append("inputs by layer")
    if any(c.chunks):
        parts.append(f"chunks of tokens on {sum(chunk > 0 for chunk in c.chunks)} of {c.num_layers} layers")
    if c.attention_softcap is not None or c.logits_softcap is not None:
        parts.append("soft-caps")
    if any(linear.channels is not None for linear in family.linears(c).values()):
        fused = [site for site, linear in family.linears(c).items() if linear.channels is not None]
        parts.append("fused " + ", ".join(site.split(".")[1] for site in fused))
    return "; ".join(parts)
