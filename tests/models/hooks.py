"""The outside world's answer: activations of a PyTorch model by forward hooks at the units' addresses."""

import contextlib
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
        for address in addresses:
            name, is_input, _ = address.partition("#input")
            module = model.get_submodule(name)
            if is_input:
                handle = module.register_forward_pre_hook(at_input(address))
            else:
                handle = module.register_forward_hook(at_output(address))
            stack.callback(handle.remove)
        yield


def run(model: transformers.PreTrainedModel, token_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """Logits, or an encoder's last hidden state, with positions counted from the first real token.

    RoBERTa counts positions itself, from the padding token's id, and so is given that at the padding.
    """
    inputs = dict(input_ids=torch.tensor(token_ids), attention_mask=torch.tensor(attention_mask).long())
    if model.config.model_type == "roberta":
        inputs["input_ids"][~torch.tensor(attention_mask).bool()] = model.config.pad_token_id
    else:
        inputs["position_ids"] = torch.clamp(inputs["attention_mask"].cumsum(1) - 1, min=0)
    with torch.no_grad():
        output = model(**inputs)
    return (output.logits if "logits" in output else output.last_hidden_state).float().numpy()


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
        seen[address] = activations.detach().float().numpy().reshape(*token_ids.shape, -1)

    with hooked(model, list(units["hf_module"].unique()), keep):
        output = run(model, token_ids, attention_mask)
    pool_mask = attention_mask if pool_mask is None else pool_mask
    columns = np.empty((len(token_ids), len(units)), np.float32)
    for address, rows in units.groupby("hf_module", sort=False):
        activations = seen[address][:, :, rows["hf_channel"].to_numpy()]
        for i, mask in enumerate(pool_mask.astype(bool)):
            values = activations[i, mask]
            columns[i, rows.index] = {"max": values.max(0), "mean": values.mean(0), "last": values[-1]}[pooling]
    return output[attention_mask.astype(bool)], columns


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
