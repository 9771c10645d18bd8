"""Any network as an embedder of pictures: what its classifier reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from explorer.compute.batching import in_batches
from explorer.compute.pieces import BATCH, tensor, unit
from explorer.embedders import parse, title
from explorer.networks.modules import channels_last
from explorer.networks.zoo import load
from explorer.records import BadInput


class Features:
    """The input of the last linear layer of ``network:SOURCE[@WEIGHTS]``, at unit length."""

    texts_too = False

    def __init__(self, spec: str, device: torch.device) -> None:
        parts = parse(spec)
        self.name = spec
        self.title = title(spec)
        loaded = load(parts.model, parts.weights)
        self._preprocess = loaded.preprocess
        self._device = device
        self._model = channels_last(loaded.model.to(device))
        self._read: Tensor | None = None
        linears = [module for module in self._model.modules() if isinstance(module, nn.Linear)]
        if not linears:
            raise BadInput(f"{self.title}: it has no linear layer to read; choose another network.")
        for module in linears:
            module.register_forward_pre_hook(self._keep)

    def images(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """f32[B,E]: embeddings of pieces of pictures, each u8[H,W,3] of any size."""
        return np.concatenate(in_batches(self._embed, pieces, BATCH))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Raises BadInput: a network's features know no text."""
        raise BadInput(f"{self.title} embeds pictures only: choose conse or an open_clip model.")

    def _embed(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            self._model(tensor(pieces, self._preprocess, self._device))
        read, self._read = self._read, None
        if read is None:
            raise BadInput(f"{self.title}: no linear layer is used; choose another network.")
        if read.dim() > 2:  # tokens or places before the features
            read = read.flatten(1, -2).mean(dim=1)
        return unit(read.float().cpu().numpy())

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Every linear layer passes here; the last to run is the classifier."""
        self._read = inputs[0]
