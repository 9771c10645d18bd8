"""Divide channels in the weights of a network, put them together again, save and load.

A layer (convolution or linear) becomes ``nn.Sequential(split, merge)``: ``split`` is the layer with
more rows, ``merge`` a fixed 1x1 layer that adds the rows of each divided channel with +1 ... +1 and
takes n-1 residuals away. The network's function stays as it was; the output of ``split`` holds the
divided channels. Nothing but torch's own classes is needed to load the result.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from explorer.networks import dividing
from explorer.networks.edit_list import EditList
from explorer.networks.weights import digest
from explorer.records import BadInput, Edit

DIVISIBLE = (nn.Conv2d, Conv2dSame, nn.Linear)
Weighted = nn.Conv2d | nn.Linear


@dataclass
class Rows:
    """A layer's rows while edits are made, in the order in which they came to be: ``weight``
    [C+T,...], ``bias`` [C+T] or None, ``merge`` [C,C+T], and ``group`` of each row."""

    weight: Tensor
    bias: Tensor | None
    merge: Tensor
    group: list[int]

    @classmethod
    def of(cls, layer: Weighted) -> Rows:
        total = layer.weight.shape[0]
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        group = [row * groups // total for row in range(total)]
        bias = None if layer.bias is None else layer.bias.detach()
        return cls(layer.weight.detach(), bias, torch.eye(total), group)

    def row(self, channel: int, name: str) -> Tensor:
        """[I]: the weights of a channel, flat; BadInput where there is none or it is no number."""
        if not 0 <= channel < len(self.weight):
            raise BadInput(f"{name} has channels 0 to {len(self.weight) - 1}, not {channel}.")
        row = self.weight[channel].flatten()
        if not bool(torch.isfinite(row).all()):
            raise BadInput(
                f"Channel {channel} of {name} has weights that are not finite numbers: "
                "it cannot be divided; check the checkpoint."
            )
        return row

    def apply(self, edit: Edit) -> None:
        """Divide one row: d_1 takes its place, d_2 ... d_n and the residual come at the end."""
        row = self.row(edit.channel, edit.layer)
        concepts = len(edit.concepts)
        fits = edit.parts.shape in ((0, 0), (concepts, len(row)))
        if edit.owner.shape != row.shape or concepts < 2 or not fits:
            raise BadInput(
                f"The edit of {edit.layer}:{edit.channel} is for a layer with "
                f"{len(edit.owner)} inputs per channel, not {len(row)}: it belongs to another "
                "network."
            )
        made = torch.from_numpy(parts_of(row.cpu().numpy(), edit))
        made = made.to(self.weight).reshape(-1, *self.weight.shape[1:])
        factors = torch.from_numpy(dividing.merge(concepts))
        parent = self.merge[:, edit.channel : edit.channel + 1]
        self.weight = torch.cat([self.weight, made[1:]])
        self.weight[edit.channel] = made[0]
        if self.bias is not None:
            self.bias = torch.cat([self.bias, self.bias[[edit.channel] * concepts]])
        self.merge = torch.cat([self.merge, parent * factors[1:]], 1)
        self.group += [self.group[edit.channel]] * concepts

    def places(self) -> list[int]:
        """Where each row lies in the widened layer: grouped convolutions keep the rows of a group
        together, and each group gets as many new rows (zero where they are another group's)."""
        before = self.merge.shape[0]
        groups, added = self.group[before - 1] + 1, len(self.weight) - before
        per = before // groups
        return [
            self.group[row] * (per + added) + (row % per if row < before else per + row - before)
            for row in range(len(self.weight))
        ]


def parts_of(row: np.ndarray, edit: Edit) -> np.ndarray:
    """f32[n+1,I]: d_1 ... d_n and the residual of a row f32[I], as an edit divides it."""
    if edit.parts.size:
        return dividing.completed(row, edit.parts).astype(np.float32)
    return dividing.rows(row, edit.owner, len(edit.concepts))


def divided(module: nn.Module | None) -> bool:
    """Whether a module is a layer that was divided."""
    return isinstance(module, nn.Sequential) and list(dict(module.named_children())) == [
        "split",
        "merge",
    ]


def edit_layer(layer: Weighted, edits: Iterable[Edit]) -> tuple[nn.Sequential, Rows]:
    """The layer with these edits applied in order."""
    rows = Rows.of(layer)
    for edit in edits:
        rows.apply(edit)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    total = len(rows.merge) + (len(rows.weight) - len(rows.merge)) * groups
    made = _skeleton(layer, len(rows.merge), total)
    places = rows.places()
    split, merge = cast(Any, made.split), cast(Any, made.merge)
    with torch.no_grad():
        split.weight.zero_()[places] = rows.weight
        merge.weight.zero_().flatten(1)[:, places] = rows.merge.to(merge.weight)
        if rows.bias is not None:
            split.bias.zero_()[places] = rows.bias
    return made.eval().requires_grad_(False), rows


def apply(model: nn.Module, edits: Sequence[Edit]) -> nn.Module:
    """A copy of an original network with the edits applied; unchanged parts are shared."""
    edited = _shallow(model)
    for path in dict.fromkeys(edit.layer for edit in edits):
        layer = weighted(model, path)
        made, _ = edit_layer(layer, [edit for edit in edits if edit.layer == path])
        _put(edited, path, made)
    return edited


def restore(model: nn.Module) -> nn.Module:
    """The original network of an edited one: its rows put together again, exactly."""
    original = _shallow(model)
    for path, module in model.named_modules():
        if divided(module):
            _put(original, path, _together(cast(nn.Sequential, module)))
    return original


def skeleton(model: nn.Module, listed: EditList) -> nn.Module:
    """A network of the original architecture with the layers of the list widened, ready to be
    filled with its weights."""
    for path, (before, now) in listed.layers.items():
        layer = weighted(model, path)
        if layer.weight.shape[0] != before or not before < now <= 100 * before:
            raise BadInput(
                f"The list of edits widens {path} from {before} channels, and here it has "
                f"{layer.weight.shape[0]}: it belongs to another network."
            )
        _put(model, path, _skeleton(layer, before, now))
    return model


def check_base(model: nn.Module, listed: EditList, file: str) -> None:
    """Raise BadInput unless the edited network, put together again, is the original bit for bit."""
    if digest(restore(model)) != listed.base:
        raise BadInput(
            f"'{file}' was made from other weights of {listed.network} (the hash of the original "
            "differs): download both files again."
        )


def widened(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The divided layers of an edited network: path -> (channels before, channels now)."""
    return {
        path: (module.merge.weight.shape[0], module.merge.weight.shape[1])
        for path, module in model.named_modules()
        if divided(module)
    }


def weighted(model: nn.Module, path: str) -> Weighted:
    """The convolution or linear layer at a path; BadInput, naming what is there, otherwise."""
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise BadInput(
            f"The network has no module '{path[:80]}': the edit belongs to another network."
        ) from error
    if type(module) not in DIVISIBLE:
        raise BadInput(
            f"{path} is a {type(module).__name__}: only convolutions and linear layers have "
            "channels that can be divided; name one of those."
        )
    return cast(Weighted, module)


def _together(module: nn.Sequential) -> Weighted:
    split, merge = cast(Any, module.split), cast(Any, module.merge)
    factors = merge.weight.detach().double().flatten(1)
    rows = split.weight.detach().double()
    weight = (factors @ rows.flatten(1)).reshape(len(factors), *rows.shape[1:])
    bias = None if split.bias is None else factors @ split.bias.detach().double()
    return _resized(split, len(factors), weight.to(split.weight), bias)


def _skeleton(layer: Weighted, before: int, now: int) -> nn.Sequential:
    weight = layer.weight.new_empty(now, *layer.weight.shape[1:])
    bias = None if layer.bias is None else layer.weight.new_empty(now)
    split = _resized(layer, now, weight, bias)
    kind: dict[str, Any] = {"dtype": layer.weight.dtype, "device": layer.weight.device}
    merge: nn.Module = nn.Linear(now, before, bias=False, **kind)
    if isinstance(layer, nn.Conv2d):
        merge = nn.Conv2d(now, before, 1, bias=False, **kind)
    return nn.Sequential(OrderedDict(split=split, merge=merge))


def _resized(layer: Weighted, channels: int, weight: Tensor, bias: Tensor | None) -> Weighted:
    """The layer with other rows."""
    made: Weighted = _bare(layer)
    made.weight = nn.Parameter(weight, requires_grad=False)
    made.bias = None if bias is None else nn.Parameter(bias.to(weight), requires_grad=False)
    setattr(made, "out_channels" if isinstance(made, nn.Conv2d) else "out_features", channels)
    return made


def _bare(module: Any) -> Any:
    """A copy of a module that can be given other parameters and children."""
    clone = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules"):
        setattr(clone, name, dict(getattr(module, name)))
    return clone


def _shallow(model: nn.Module) -> nn.Module:
    """A copy of the tree of modules that shares every parameter."""
    clone: nn.Module = _bare(model)
    for name, child in model._modules.items():
        clone._modules[name] = None if child is None else _shallow(child)
    return clone


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def as_numpy(rows: Rows, channel: int, name: str) -> np.ndarray:
    """f32[I]: a channel's weights as they are now."""
    return rows.row(channel, name).cpu().numpy().copy()
