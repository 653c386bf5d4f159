"""The outside world's answer: activations of a PyTorch model by forward hooks at the units' addresses."""

import contextlib
import functools
import re
import unittest.mock
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
import transformers


@contextlib.contextmanager
def hooked(
    model: torch.nn.Module, addresses: list[str], see: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Calls `see(address, activations)` at every address; what it returns, unless None, takes their place."""

    def at_output(address: str) -> Callable:
        def hook(module, inputs, output):
            first = output[0] if isinstance(output, tuple) else output
            new = see(address, first)
            if new is not None:
                return (new, *output[1:]) if isinstance(output, tuple) else new

        return hook

    def at_input(address: str) -> Callable:
        def hook(module, inputs):
            new = see(address, inputs[0])
            return None if new is None else (new, *inputs[1:])

        return hook

    with contextlib.ExitStack() as stack:
        for name in sorted({address.partition("@")[0] for address in addresses if "@" in address}):
            mlp = model.get_submodule(name)
            sites = {address.partition("@")[2] for address in addresses if address.startswith(f"{name}@")}
            by_hand = functools.partial(mixture_by_hand, mlp, name, sites, see)
            stack.enter_context(unittest.mock.patch.object(mlp, "forward", by_hand))
        for address in addresses:
            if "@" in address:
                continue
            name, is_input, _ = address.partition("#input")
            module = model.get_submodule(name)
            if is_input:
                handle = module.register_forward_pre_hook(at_input(address))
            else:
                handle = module.register_forward_hook(at_output(address))
            stack.callback(handle.remove)
        yield


def draw_units(units: pd.DataFrame, number: int) -> pd.DataFrame:
    """So many units of each site, drawn; of a site that has fewer, such as a router of one a layer, all."""
    few = units.groupby("site", observed=True)["channel"].transform("size") < number
    return pd.concat([units[~few].groupby("site", observed=True).sample(number, random_state=1), units[few]])


def with_experts(units: pd.DataFrame) -> pd.DataFrame:
    """The table with an address for what no hook can reach: `...mlp@mlp.up`, the site of a mixture computed by hand."""
    within = units["site"].isin(["mlp.router", "mlp.gate", "mlp.up", "mlp.act"]).to_numpy() & ("expert" in units)
    if not within.any():
        return units
    units = units.copy()
    places = zip(units.loc[within, "layer"], units.loc[within, "site"], strict=True)
    down = units.loc[units["site"] == "mlp.down", "hf_module"].iloc[0]
    start, mlp = re.fullmatch(r"(.*layers\.)\d+\.(\w+)", down).groups()  # within a text tower or not
    units.loc[within, "hf_module"] = [f"{start}{layer}.{mlp}@{site}" for layer, site in places]
    units.loc[within, "hf_channel"] = units.loc[within, "channel"]
    return units


def mixture_by_hand(
    mlp: torch.nn.Module,
    name: str,
    sites: set[str],
    see: Callable[[str, torch.Tensor], torch.Tensor | None],
    hidden: torch.Tensor,
) -> torch.Tensor:
    """What a mixture of experts computes, from its PyTorch weights, token by token and expert by expert.

    `see` is shown what each expert computes, NaN at tokens that aren't routed to it.
    """
    x, experts = hidden.reshape(-1, hidden.shape[-1]), mlp.experts
    gpt_oss, llama4 = hasattr(experts, "gate_up_proj_bias"), type(experts).__name__ == "Llama4TextExperts"
    router = mlp.router if hasattr(mlp, "router") else mlp.gate

    def shown(site: str, values: torch.Tensor) -> torch.Tensor:
        new = see(f"{name}@{site}", values.reshape(*hidden.shape[:2], -1)) if site in sites else None
        return values if new is None else new.reshape(values.shape)

    logits = shown("mlp.router", x @ router.weight.T + (router.bias if gpt_oss else 0))
    shares = torch.softmax(logits.float(), dim=-1)
    number = logits.shape[1]
    weights = torch.zeros_like(shares)
    for token, of_token in enumerate(shares):
        chosen = sorted(range(number), key=lambda expert: -of_token[expert])[: router.top_k]
        weights[token, chosen] = of_token[chosen]
    if getattr(router, "norm_topk_prob", True):
        weights = weights / weights.sum(dim=-1, keepdim=True)
    if llama4:  # what experts read is weighted
        weights = torch.where(weights == 0, 0.0, torch.sigmoid(logits))

    def of_experts(site: str, values: list[torch.Tensor]) -> list[torch.Tensor]:
        apart = torch.stack(values, dim=1)
        apart[weights == 0] = torch.nan
        return list(shown(site, apart.flatten(1)).unflatten(1, (number, -1)).unbind(1))

    def inner(place: int) -> list[torch.Tensor]:
        """Each expert's gate (0) or up (1)."""
        if gpt_oss:
            kernels, biases = experts.gate_up_proj[..., place::2], experts.gate_up_proj_bias[..., place::2]
            return [x @ kernel + bias for kernel, bias in zip(kernels, biases, strict=True)]
        if llama4:
            kernels = (kernel.chunk(2, dim=1)[place] for kernel in experts.gate_up_proj)
            return [(x * weights[:, e, None]) @ kernel for e, kernel in enumerate(kernels)]
        return [x @ kernel.chunk(2)[place].T for kernel in experts.gate_up_proj]

    def outer(e: int) -> torch.Tensor:
        if llama4:
            return act[e] @ experts.down_proj[e]
        return act[e] @ experts.down_proj[e] + experts.down_proj_bias[e] if gpt_oss else act[e] @ experts.down_proj[e].T

    def activated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        if gpt_oss:
            gate, up = gate.clamp(max=experts.limit), up.clamp(-experts.limit, experts.limit)
            return (up + 1) * gate * torch.sigmoid(experts.alpha * gate)
        return experts.act_fn(gate) * up

    gate, up = of_experts("mlp.gate", inner(0)), of_experts("mlp.up", inner(1))
    act = of_experts("mlp.act", [activated(*each) for each in zip(gate, up, strict=True)])
    outputs = [outer(e) * (1 if llama4 else weights[:, e, None]) for e in range(number)]
    total = torch.stack(outputs).nan_to_num().sum(0).to(hidden.dtype).reshape(hidden.shape)
    if hasattr(mlp, "shared_expert"):
        share = 1 if llama4 else torch.sigmoid(mlp.shared_expert_gate(x))
        total = total + (share * mlp.shared_expert(x)).reshape(hidden.shape)
    return (total, weights) if gpt_oss or llama4 else total


def run(model: transformers.PreTrainedModel, token_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """Logits, or an encoder's last hidden state, with positions counted from the first real token.

    RoBERTa counts positions itself, from the padding token's id, and so is given that at the padding; BLOOM counts the
    mask; Llama 4 counts slots for its temperature, and so is given no padding before texts.
    """
    token_ids, attention_mask, padding = without_padding_before(model, token_ids, attention_mask)
    inputs = dict(input_ids=torch.tensor(token_ids), attention_mask=torch.tensor(attention_mask).long())
    if model.config.model_type in ("roberta", "xlm-roberta", "camembert"):
        inputs["input_ids"][~torch.tensor(attention_mask).bool()] = model.config.pad_token_id
    elif model.config.model_type != "bloom":
        inputs["position_ids"] = torch.clamp(inputs["attention_mask"].cumsum(1) - 1, min=0)
    with torch.no_grad():
        output = model(**inputs)
    values = (output.logits if "logits" in output else output.last_hidden_state).float().numpy()
    return np.stack([np.roll(row, before, axis=0) for row, before in zip(values, padding, strict=True)])


def without_padding_before(model: transformers.PreTrainedModel, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Token ids, attention mask and others `[batch, tokens]`, of Llama 4 with padding moved behind texts; how much."""
    padding = np.argmax(arrays[1], axis=1) * model.config.model_type.startswith("llama4")
    return *(np.stack([np.roll(*each) for each in zip(array, -padding, strict=True)]) for array in arrays), padding


def output_and_responses(
    model: transformers.PreTrainedModel,
    units: pd.DataFrame,
    token_ids: np.ndarray,
    attention_mask: np.ndarray,
    pool_mask: np.ndarray | None = None,
    pooling: str = "max",
) -> tuple[np.ndarray, np.ndarray]:
    """The output at real tokens, `[tokens, ...]`, and the responses `[batch, units]`, pooled in numpy.

    What the hooks see is laid out as `[batch, tokens, channels]`; OPT's MLP has batch and tokens in one axis.
    """
    seen: dict[str, np.ndarray] = {}

    def keep(address: str, activations: torch.Tensor) -> None:
        # A copy: OLMo and OLMoE clip queries, keys and values where they lie.
        seen[address] = activations.detach().float().numpy().reshape(*token_ids.shape, -1).copy()

    units = with_experts(units)
    pool_mask = attention_mask if pool_mask is None else pool_mask
    token_ids, attention_mask, pool_mask, _ = without_padding_before(model, token_ids, attention_mask, pool_mask)
    with hooked(model, list(units["hf_module"].unique()), keep):
        output = run(model, token_ids, attention_mask)
    columns = np.empty((len(token_ids), len(units)), np.float32)
    for address, rows in units.groupby("hf_module", sort=False):
        activations = seen[address][:, :, rows["hf_channel"].to_numpy()]
        for i, mask in enumerate(pool_mask.astype(bool)):
            values = activations[i, mask]
            columns[i, rows.index] = pool(values, pooling)
    return output[attention_mask.astype(bool)], columns


def pool(values: np.ndarray, pooling: str) -> np.ndarray:
    """From `[tokens, units]` to `[units]`; over tokens that aren't NaN, and 0 where all are."""
    if not np.isnan(values).any():
        return {"max": values.max(0), "mean": values.mean(0), "last": values[-1]}[pooling]
    columns = [column[~np.isnan(column)] for column in values.T]
    return np.array([pool(column[:, None], pooling)[0] if len(column) else 0.0 for column in columns], np.float32)


def pooled_responses(
    model: transformers.PreTrainedModel,
    units: pd.DataFrame,
    token_ids: np.ndarray,
    attention_mask: np.ndarray,
    pool_mask: np.ndarray,
    pooling: str,
) -> np.ndarray:
    """`[batch, units]`, see `output_and_responses`."""
    return output_and_responses(model, units, token_ids, attention_mask, pool_mask, pooling)[1]
