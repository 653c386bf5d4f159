"""Decoding, jitted: the prompts fill a cache of keys and values, then every row grows by a token at a time."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from expertlens_jax.models.interventions import PlacedIntervention
from expertlens_jax.models.placed_steering import LaidOut
from expertlens_jax.models.sampling import Sampling, draw_tokens
from expertlens_jax.models.streaming import program, run, streamed_layers
from expertlens_jax.models.transformer import Transformer


@struct.dataclass
class Request:
    """What is asked of a batch, and stays the same while it is decoded."""

    draws: jax.Array | np.ndarray
    """int32 `[rows]`: the number of each row's draws; with `of_row`, `[draws]`."""
    prompt_ids: jax.Array
    """int32 `[rows, prompt slots]`, padded on the left."""
    mask: jax.Array
    """bool `[rows, slots]`: False at the padding before a prompt, True at it and all that follows."""
    end_ids: jax.Array | np.ndarray
    """int32 `[ends]`: the tokens that end a row, any of them."""
    sampling: Sampling
    interventions: tuple[PlacedIntervention, ...] = ()
    of_row: jax.Array | None = None
    """int32 `[rows]`: which of the draws a row takes; None where each has its own."""


@struct.dataclass
class State:
    """How far a batch has come."""

    cache: Mapping[str, Any] | None
    """Keys and values, `[layers, rows, kv_heads, slots, head_dim]` each."""
    token_ids: jax.Array
    """int32 `[rows, new slots]`: the tokens chosen so far."""
    log_probs: jax.Array
    """float32 `[rows, new slots]`."""
    lengths: jax.Array
    """int32 `[rows]`: tokens chosen so far, none counted after a row's end."""
    done: jax.Array
    """bool `[rows]`."""
    steps: jax.Array
    """int32 scalar: tokens chosen so far by rows that aren't done."""


def start_state(real: jax.Array, new_slots: int) -> State:
    """Return a state where nothing is cached or chosen yet.

    Rows that aren't `real` (bool `[rows]`: fillers) are done.
    """
    new = jnp.zeros((len(real), new_slots))
    lengths = jnp.zeros(len(real), jnp.int32)
    return State(None, new.astype(jnp.int32), new, lengths, done=~real, steps=jnp.int32(0))


@program()
def prefill(
    network: Transformer,
    params: Mapping[str, Any],
    steering: LaidOut | None,
    request: Request,
    state: State,
) -> State:
    """Run the prompts into an empty cache, and choose every row's first token."""
    return _read_and_choose(network, params, steering, request, state, request.prompt_ids, 0)


@program(static=["count"])
def refill(
    network: Transformer,
    params: Mapping[str, Any],
    steering: LaidOut | None,
    request: Request,
    state: State,
    count: int,
) -> State:
    """Do what `step` does, with the cache made anew of the prompts and the `count` tokens chosen so far."""
    token_ids = jnp.concatenate([request.prompt_ids, state.token_ids[:, :count]], axis=1)
    return _read_and_choose(network, params, steering, request, dataclasses.replace(state, cache=None), token_ids, 0)


@program(donate=["state"])
def step(
    network: Transformer,
    params: Mapping[str, Any],
    steering: LaidOut | None,
    request: Request,
    state: State,
) -> State:
    """Run every row's last token and choose the next; rows that are done go along unheeded."""
    last = jax.lax.dynamic_slice_in_dim(state.token_ids, state.steps - 1, 1, axis=1)
    slot = request.prompt_ids.shape[1] + state.steps - 1
    return _read_and_choose(network, params, steering, request, state, last, slot)


@program(donate=["state"])
def decode(
    network: Transformer,
    params: Mapping[str, Any],
    steering: LaidOut | None,
    request: Request,
    state: State,
    max_new_tokens: jax.Array | int,
) -> State:
    """Step until every row is done or has `max_new_tokens`."""
    if streamed_layers(params) is not None:
        while state.steps < max_new_tokens and not state.done.all():
            state = step(network, params, steering, request, state)
        return state
    return jax.lax.while_loop(
        lambda state: (state.steps < max_new_tokens) & ~state.done.all(),
        lambda state: step(network, params, steering, request, state),
        state,
    )


def _read_and_choose(
    network: Transformer,
    params: Mapping[str, Any],
    steering: LaidOut | None,
    request: Request,
    state: State,
    token_ids: jax.Array,
    first_slot: jax.Array | int,
) -> State:
    """Run `token_ids` `[rows, tokens]` into the state's cache, a new one if it has none, and choose what follows."""
    logits, written = run(
        network,
        params,
        token_ids,
        request.mask,
        jnp.ones(token_ids.shape, bool),
        first_slot,
        variables={"steering": steering, "cache": state.cache},
        interventions=request.interventions,
        sown=["new"],
    )
    cache = _remember(state.cache, written["new"], first_slot, request.mask.shape[1])
    return _choose(request, dataclasses.replace(state, cache=cache), logits[:, -1])


def _remember(
    cache: Mapping[str, Any] | None, new: Mapping[str, Any], first_slot: jax.Array | int, slots: int
) -> Mapping[str, Any]:
    """Put keys and values of new tokens into their slots of the cache, an empty one if there is none."""
    if cache is None:
        cache = jax.tree.map(lambda each: jnp.zeros((*each.shape[:3], slots, each.shape[4]), each.dtype), new)
    return jax.tree.map(
        lambda old, each: jax.lax.dynamic_update_slice_in_dim(old, each, first_slot, axis=3), cache, new
    )


def _choose(request: Request, state: State, logits: jax.Array) -> State:
    """Choose every row's next token by its logits `[rows, vocabulary]`."""
    chosen = draw_tokens(request.sampling, request.draws, state.steps, logits, request.of_row)
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=1)

    def put(values: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(values, new, state.steps, axis=1)

    return dataclasses.replace(
        state,
        token_ids=put(state.token_ids, chosen[:, None]),
        log_probs=put(state.log_probs, log_probs),
        lengths=state.lengths + ~state.done,
        done=state.done | jnp.isin(chosen, request.end_ids),
        steps=state.steps + 1,
    )
