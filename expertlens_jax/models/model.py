"""A loaded model: parameters, tokenizer and table of units, and the jitted calls on them."""

import dataclasses
import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.core import Tracer
from jax.sharding import Mesh

from expertlens_jax import parallel
from expertlens_jax.cards import Card, listed
from expertlens_jax.errors import ExpertLensWarning, SelectionError, TokenizationError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.digests import digest_arrays, stated_options
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.gated_maps import GatedRows, GatedSteering
from expertlens_jax.models.interventions import Intervention, PlacedIntervention, place_interventions
from expertlens_jax.models.placed_steering import (
    LaidOut,
    PlacedRows,
    SteeringCollection,
    check_row_steerings,
    place_steering,
    stack_placed,
)
from expertlens_jax.models.provenance import Provenance, provenance_of
from expertlens_jax.models.sae import SAE, check_saes
from expertlens_jax.models.sharding import split_rows
from expertlens_jax.models.sites import (
    SITES,
    block_sites,
    check_activation_site,
    check_sites,
    layer_widths,
    listed_widths,
    own_columns,
)
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.streaming import digest_parameters, program, run, streamed_layers, whole_shapes
from expertlens_jax.models.taps import Pooling, Taps, check_pooling, response_name, response_over
from expertlens_jax.models.tokens import as_rows, check_token_ids
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.units import units_table
from expertlens_jax.models.when import ReadText


@dataclasses.dataclass(frozen=True)
class Model:
    """A tapped language model.

    `model(token_ids, attention_mask)` gives logits; `model.units` tells where its units are. What is computed is
    a pure function of `params`: `model.replace(params=...)` is the same network with others.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> token_ids = model.tokenizer(["A dog ran.", "A cat sat there."])["input_ids"]
    >>> [len(row) for row in token_ids], model(token_ids).shape == (2, 5, model.config.vocab_size)
    ([4, 5], True)
    >>> model.units.columns.tolist()
    ['layer', 'site', 'channel', 'hf_module', 'hf_channel']
    """

    name: str
    """For people; what tells it from other models is `digest`."""
    family: Family
    config: TransformerConfig
    params: Mapping[str, Any]
    tokenizer: Any
    dtype: str = "float32"
    saes: tuple[SAE, ...] = ()
    """Sparse autoencoders by ascending layer, see `with_sae`."""
    end_ids: tuple[int, ...] | None = None
    """The token ids that end a generated text, any of them: see `tokenizer.read_end_ids`. () lets it go on to the most
    tokens asked for; None, the default, goes by the tokenizer's end-of-text token."""

    @property
    def _card(self) -> Card:
        config = self.config
        widths = {name: layer_widths(site, config) for name, site in block_sites(config).items()}
        leaves = jax.tree.leaves(whole_shapes(self.params))
        streamed = streamed_layers(self.params)
        kind = "encoder" if not config.causal else "causal" if config.head else "causal, without a language head"
        heads = f"{config.num_heads} heads"
        if config.num_kv_heads != config.num_heads:
            heads += f", {config.num_kv_heads} of keys and values"
        return Card(
            f"Model {self.name}",
            {
                "family": f"{self.family.title} ({self.family.model_type}), {kind}",
                "layers": f"{config.num_layers} of width {config.d_model} ({heads})",
                "parameters": f"{sum(leaf.size for leaf in leaves):,} in {self.dtype}"
                + ("" if streamed is None else f", layers streamed from {streamed.place}"),
                "vocabulary": f"{config.vocab_size:,} tokens; up to {config.max_tokens:,} in a text",
                "sites": listed([f"{name} {listed_widths(each)}" for name, each in widths.items()], most=20)
                + " units a layer",
                "autoencoders": "; ".join(map(repr, self.saes[:4])) + (" ..." if len(self.saes) > 4 else ""),
            },
        )

    def __repr__(self) -> str:
        return self._card.text()

    def _repr_html_(self) -> str:
        return self._card.html()

    @functools.cached_property
    def units(self) -> pd.DataFrame:
        """A row per unit of the default sites: `layer, site, channel, hf_module, hf_channel`."""
        return units_table(self.family, self.config)

    @property
    def digest(self) -> str:
        """Tells the network from any other, whatever it is called: a digest of its options and weights.

        The first call reads all weights once, on their devices, at about the speed of their memory.
        """
        return self.provenance.model_digest

    @property
    def provenance(self) -> Provenance:
        """What tells this model's numbers from others': name, options, weights and dtype; see `digest` for its cost.

        Raises:
          SelectionError: the parameters have no values yet, since a function of them is being traced.
        """
        if not self._has_values:
            raise SelectionError(
                f"the parameters of {self.name} are being traced, and have no values yet, so they have no digest. Take "
                "the digest before jax.grad or jax.jit."
            )
        return provenance_of(self.name, self._weights_digest, self.config, self.dtype)

    @property
    def _has_values(self) -> bool:
        """Whether parameters are arrays, and not what stands for them while jax traces a function of them."""
        return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(self.params))

    @functools.cached_property
    def _weights_digest(self) -> str:
        return digest_parameters(self.params)

    @functools.cached_property
    def sae_settings(self) -> tuple[Mapping[str, Any], ...]:
        """Of each sparse autoencoder, its settings and a digest of its weights."""
        return tuple(stated_options(sae) | {"weights": digest_arrays(sae)} for sae in self.saes)

    def replace(self, **changes: Any) -> "Model":
        """Return a copy with other parameters, tokenizer or name."""
        return dataclasses.replace(self, **changes)

    def with_sae(self, *saes: SAE) -> "Model":
        """Return a copy whose site `sae` has the features of sparse autoencoders as its units.

            model = el.load_model("gpt2").with_sae(el.load_sae("saes/blocks.8.hook_resid_pre"))
            expertise = el.find_experts(model, concepts, workdir="runs/features", sites=("sae",))

        A feature's response is what its sentence's own tokens make it say, as for any unit. SAEs are mostly trained on
        texts with a BOS token, and a causal model's first token is unlike all others; so give a tokenizer that adds
        none (GPT-2's, Pythia's) one that does:

            from tokenizers.processors import TemplateProcessing
            bos = (model.tokenizer.bos_token, model.tokenizer.bos_token_id)
            model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(f"{bos[0]} $A", special_tokens=[bos])

        The default sites, `units` and outputs stay what they are. On each device the weights are held whole, and
        `[batch, tokens, features]` at once: give `tokens_per_batch` where that is too much.

        Args:
          *saes: one a layer, all with the same number of features; they take the place of those there were.

        Raises:
          UnsupportedSAEError: one that doesn't fit the model, or the others, or was trained on another family's.

        Warns:
          ExpertLensWarning: it was trained on texts with a BOS token, which this tokenizer doesn't add; or on a model
            of another size, or tuned otherwise, by its name.
        """
        fitting = check_saes(saes, self.config, self.name, self.family.network)
        if (
            any(sae.prepend_bos for sae in saes)
            and not self.tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"][0]
        ):
            warnings.warn(
                ExpertLensWarning(
                    f"{fitting[0].name} was trained on texts that begin with a BOS token, which the tokenizer of "
                    f"{self.name} doesn't add. A causal model's first token is unlike all others, and here it is the "
                    "sentence's own: many features will answer to it. Give the model a tokenizer that adds one, as "
                    "Model.with_sae tells."
                ),
                stacklevel=2,
            )
        mesh = parallel.mesh_of(self.params)
        placed = jax.tree.map(jnp.asarray, fitting) if mesh is None else parallel.replicate(fitting, mesh)
        return self.replace(saes=placed)

    def __call__(
        self,
        token_ids: np.ndarray | jax.Array,
        attention_mask: np.ndarray | jax.Array | None = None,
        *,
        steering: Steering | Sequence[Steering | None] | None = None,
        interventions: Sequence[Intervention] | Intervention = (),
    ) -> jax.Array:
        """Run the model.

        Args:
          token_ids: int `[batch, tokens]`; or rows of any lengths, as `tokenizer(texts)["input_ids"]`, which are
            padded on the right.
          attention_mask: `[batch, tokens]`, nonzero at tokens and zero at padding on either side; default all
            tokens.
          steering: from `el.steer` or `el.steer_units`; default none. One with a `when` by words goes by the text that
            the ids are decoded to; `part` isn't known here. Or a list, `[batch]`, with one, or None, for each row.
          interventions: from `el.intervene`, applied in this order, at each site after the steering; default none.

        Returns:
          Logits, float32 `[batch, tokens, vocabulary]`; for encoders the last hidden state
          `[batch, tokens, d_model]` in the model's dtype. What stands at padding means nothing.

        Raises:
          SelectionError: another model's steering, or an intervention that doesn't fit, see `place_interventions`.
          TokenizationError: token ids that aren't integers or outside the vocabulary, or more tokens than the model
            has positions for.
        """
        token_ids, attention_mask = self._check_tokens(token_ids, attention_mask)
        network = Transformer(self.config, dtype=jnp.dtype(self.dtype))
        placed = self._lay_out_steering(steering, token_ids, attention_mask)
        acting = self.place_interventions(interventions, [token_ids.shape])
        return apply(network, self.params, token_ids, attention_mask, placed, acting)

    def respond(
        self,
        token_ids: np.ndarray | jax.Array,
        attention_mask: np.ndarray | jax.Array | None = None,
        pool_mask: np.ndarray | jax.Array | None = None,
        *,
        sites: Sequence[str] | None = None,
        pooling: Pooling = "max",
        steering: Steering | Sequence[Steering | None] | None = None,
        interventions: Sequence[Intervention] | Intervention = (),
    ) -> jax.Array:
        """Return the pooled responses of every unit to every row.

        Args:
          token_ids: int `[batch, tokens]`, or rows of any lengths, as in `__call__`.
          attention_mask: as in `__call__`.
          pool_mask: `[batch, tokens]`, nonzero where a token enters the pool; default the attention mask, without
            which none enters.
          sites: names of sites; default the outputs of linear layers, as in `units`. `sae`, by itself, if the model
            carries sparse autoencoders.
          pooling: "max", "min", "mean" or "last".
          steering: from `el.steer` or `el.steer_units`; default none. Or a list, `[batch]`, with one, or None, for each
            row.
          interventions: as in `__call__`.

        Returns:
          float32 `[batch, units]`, in the order of the units table of these sites.

        Raises:
          SelectionError: unknown sites or pooling, another model's steering, or an intervention that doesn't fit.
          TokenizationError: as in `__call__`.
        """
        check_pooling(pooling)
        token_ids, attention_mask = self._check_tokens(token_ids, attention_mask)
        if pool_mask is None:
            pool_mask = attention_mask
        else:
            pool_mask = as_rows(token_ids, pool_mask)[1] & attention_mask
        sites = check_sites(self.config, sites, self.saes)
        network = Transformer(self.config, Taps(sites, pooling), jnp.dtype(self.dtype))
        return respond(
            network,
            self.params,
            token_ids,
            attention_mask,
            pool_mask,
            self._lay_out_steering(steering, token_ids, attention_mask),
            saes=self.saes_at(sites),
            interventions=self.place_interventions(interventions, [token_ids.shape]),
            columns=own_columns(self.config, sites),
        )

    def capture(
        self,
        token_ids: np.ndarray | jax.Array,
        attention_mask: np.ndarray | jax.Array | None = None,
        *,
        sites: Sequence[str] | str,
        steering: Steering | Sequence[Steering | None] | None = None,
        interventions: Sequence[Intervention] | Intervention = (),
    ) -> dict[str, jax.Array]:
        """Return the activations at every token, where `respond` pools over them: to look at, or for `el.patch_tokens`.

        All of them are held at once; for many sentences, `el.record_responses` holds one number a sentence and unit.

        Args:
          token_ids: int `[batch, tokens]`, or rows of any lengths, as in `__call__`.
          attention_mask: as in `__call__`.
          sites: names of sites that can be steered, or one.
          steering: from `el.steer` or `el.steer_units`; default none. Or a list, `[batch]`, with one, or None, for each
            row.
          interventions: as in `__call__`.

        Returns:
          Of each site `[layers, batch, tokens, channels]` in the model's dtype, steered and intervened on, as the
          network goes on with them. What stands at padding means nothing.

        Raises:
          SelectionError: a site that this model doesn't have, or none, or that holds no activations; or as in
            `__call__`.
          TokenizationError: as in `__call__`.
        """
        token_ids, attention_mask = self._check_tokens(token_ids, attention_mask)
        sites = (sites,) if isinstance(sites, str) else tuple(sites)
        if not sites:
            raise SelectionError("no sites were given; give one or more, such as 'resid'.")
        for site in sites:
            check_activation_site(self.config, site, self.name, "captured", alike=True)
        network = Transformer(self.config, Taps(captured=tuple(dict.fromkeys(sites))), jnp.dtype(self.dtype))
        placed = self._lay_out_steering(steering, token_ids, attention_mask)
        acting = self.place_interventions(interventions, [token_ids.shape])
        captured = capture(network, self.params, token_ids, attention_mask, placed, acting)
        return dict(zip(network.taps.captured, captured, strict=True))

    def saes_at(self, sites: Sequence[str]) -> tuple[SAE, ...]:
        """Return the sparse autoencoders that are needed for these sites: all, if features are among them, or none."""
        return self.saes if any(SITES[site].by_sae for site in sites) else ()

    def place_steering(
        self, steering: Steering | None, text: ReadText | None = None
    ) -> SteeringCollection | GatedSteering | None:
        """Lay a steering out for this model, see `models.placed_steering.place_steering`.

        Args:
          steering: or none.
          text: what it will be given.

        Raises:
          SelectionError: its units don't fit, or this text doesn't tell where it applies.

        Warns:
          ExpertLensWarning: it fits, and is another model's.
        """
        return place_steering(steering, self.config, self.name, self._provenance_beside(steering), text)

    def place_rows(
        self, steering: Steering | Sequence[Steering | None] | None, num_rows: int, text: ReadText | None = None
    ) -> PlacedRows:
        """Lay out the steering of all rows of a call, or of each.

        Args:
          steering: one for all rows, or none; or a list with one, or None, for each.
          num_rows: of the call.
          text: what it will be given.

        Raises:
          SelectionError: their units don't fit, a list has another length, or the text doesn't tell where one applies.

        Warns:
          ExpertLensWarning: one fits, and is another model's.
        """
        by_row = check_row_steerings(steering, num_rows)
        if by_row is None:
            provenance = self._provenance_beside(steering)
            return PlacedRows(place_steering(cast(Any, steering), self.config, self.name, provenance, text))
        different: list[Any] = list({id(each): each for each in by_row}.values())
        place = {id(each): number for number, each in enumerate(different)}
        of_row = np.array([place[id(each)] for each in by_row], int)
        gated = any(getattr(each, "stages", ()) for each in different)
        placed = []
        for number, each in enumerate(different):  # no comprehension, so that warnings are told of the caller's line
            own = None if text is None else text.take(np.flatnonzero(of_row == number))
            provenance = self._provenance_beside(each)
            placed.append(place_steering(each, self.config, self.name, provenance, own, gated=gated))
        if gated:
            return PlacedRows(GatedRows.of_steerings(placed, of_row), of_row)
        return PlacedRows(stack_placed(cast(Any, placed)) or None, of_row)  # None: the program of no steering

    def _provenance_beside(self, steering: Any) -> Provenance | None:
        """Return what a steering's provenance is compared with, where both are known."""
        known = getattr(steering, "provenance", None) is not None and self._has_values
        return self.provenance if known else None

    def _lay_out_steering(
        self,
        steering: Steering | Sequence[Steering | None] | None,
        token_ids: np.ndarray,
        attention_mask: np.ndarray,
    ) -> LaidOut | None:
        """Lay a steering out for one call's token ids."""
        rows = [row[real] for row, real in zip(token_ids, attention_mask, strict=True)]
        placed = self.place_rows(steering, len(rows), ReadText(self.tokenizer, rows))
        return placed.of(np.arange(len(rows)), token_ids.shape[1])

    def place_interventions(
        self,
        interventions: Sequence[Intervention] | Intervention,
        shapes: Sequence[tuple[int, int]],
        mesh: Mesh | None = None,
    ) -> tuple[PlacedIntervention, ...]:
        """Check interventions for activations of these (batch, tokens), and lays them out for this model.

        Args:
          interventions: as given to a call.
          shapes: of its batches.
          mesh: that the model is to run on; default the one that its parameters are on, if any.

        Raises:
          SelectionError: see `models.interventions.place_interventions`.
        """
        mesh = mesh or parallel.mesh_of(self.params)
        return place_interventions(interventions, self.config, self.dtype, self.name, shapes, mesh)

    def _check_tokens(self, token_ids: Any, attention_mask: Any) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask as arrays, refused if the model can't take them."""
        token_ids, attention_mask = as_rows(token_ids, attention_mask)
        rows = [row[real] for row, real in zip(token_ids, attention_mask, strict=True)]
        check_token_ids(rows, vocab_size=self.config.vocab_size, model=self.name, tokenizer=self.tokenizer)
        longest = int(attention_mask.sum(axis=1).max(initial=0))
        if longest > self.config.max_tokens:
            raise TokenizationError(
                f"{longest} tokens were given; {self.name} has positions for {self.config.max_tokens}."
            )
        return token_ids, attention_mask


@program()
def apply(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    steering: LaidOut | None,
    interventions: tuple[PlacedIntervention, ...] = (),
) -> jax.Array:
    """Run one jitted pass for its output: logits `[batch, tokens, vocabulary]`, or the last hidden state."""
    output, _ = run(
        network,
        params,
        token_ids,
        attention_mask,
        attention_mask,
        variables={"steering": steering},
        interventions=interventions,
    )
    return output


@program()
def capture(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    steering: LaidOut | None,
    interventions: tuple[PlacedIntervention, ...] = (),
) -> list[jax.Array]:
    """Run one jitted pass for the activations at the captured sites, `[layers, batch, tokens, channels]` each."""
    _, sown = run(
        network,
        params,
        token_ids,
        attention_mask,
        attention_mask,
        variables={"steering": steering},
        interventions=interventions,
        sown=["activations"],
    )
    return [at_path(sown["activations"], site)["activation"] for site in network.taps.captured]


@program(static=["num_layers"])
def respond(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    pool_mask: jax.Array,
    steering: LaidOut | None,
    first_layer: jax.Array | int = 0,
    num_layers: int | None = None,
    saes: tuple[SAE, ...] = (),
    interventions: tuple[PlacedIntervention, ...] = (),
    columns: jax.Array | None = None,
) -> jax.Array:
    """Run one jitted pass for the responses of the network's taps, float32 `[batch, units]`.

    Logits aren't returned, so XLA never computes them. With `num_layers`, only the units of so many layers from the
    first on are returned; of the site `sae`, layers are counted among those that have it. `columns` are these layers'
    `sites.own_columns`.
    """
    _, sown = run(
        network,
        params,
        token_ids,
        attention_mask,
        pool_mask,
        variables={"steering": steering},
        saes=saes,
        interventions=interventions,
        sown=["responses"],
    )
    if num_layers is not None:
        sown = jax.tree.map(lambda by_layer: jax.lax.dynamic_slice_in_dim(by_layer, first_layer, num_layers), sown)
    responses = collect_responses(sown["responses"], network.taps.sites)
    return split_rows(take_columns(responses, columns), network.mesh)


@program()
def respond_together(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    pool_mask: jax.Array,
) -> tuple[jax.Array, ...]:
    """Run one jitted pass for the responses of the network's taps, and for each of those beside them.

    `pool_mask` may be `[batch, tokens, pools]`: the taps' sites are pooled over each.

    Returns:
      What `respond` returns with the first pool, of each site and pooling of `network.taps.beside` the same, in their
      order, and what `respond` returns with each further pool: float32 `[batch, units]`.
    """
    _, sown = run(network, params, token_ids, attention_mask, pool_mask, sown=["responses"])
    taps = network.taps
    further = range(pool_mask.shape[-1] - 1 if pool_mask.ndim == 3 else 0)
    wanted = [
        (taps.sites, "response"),
        *(((site,), response_name(each)) for site, each in taps.beside),
        *((taps.sites, response_over(number)) for number in further),
    ]
    together = [
        take_columns(collect_responses(sown["responses"], sites, what), own_columns(network.config, sites))
        for sites, what in wanted
    ]
    return tuple(split_rows(each, network.mesh) for each in together)


def take_columns(values: jax.Array, columns: np.ndarray | jax.Array | None) -> jax.Array:
    """Return these columns of `[batch, columns]`, or all of them for None."""
    return values if columns is None else jnp.take(values, columns, axis=1)


def collect_responses(sown: Mapping[str, Any], sites: Sequence[str], what: str = "response") -> jax.Array:
    """Lay the sown responses of `sites` out as `[batch, units]`, by layer, then site, then channel."""
    parts = [at_path(sown, site)[what] for site in sites]  # [layers, batch, channels] each
    by_layer = jnp.concatenate(parts, axis=-1)
    return by_layer.transpose(1, 0, 2).reshape(by_layer.shape[1], -1)


def at_path(collection: Mapping[str, Any], site: str) -> Mapping[str, Any]:
    """Return what a collection holds of a site."""
    return functools.reduce(lambda node, name: node[name], SITES[site].path, collection)
