"""CLIP models by open_clip, with weights from the hub or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from explorer.compute.batching import in_batches
from explorer.compute.pieces import BATCH, picture, unit
from explorer.embedders import Spec, parse, title
from explorer.networks import identity
from explorer.networks.hub import fetching
from explorer.records import BadInput, OutOfMemory, Unavailable

_LOOK = ("mean", "std", "interpolation", "resize_mode")
_MISFIT = (
    RuntimeError,
    UnpicklingError,
    SafetensorError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    StopIteration,
    EOFError,
)
"""What open_clip raises on files that are damaged, hold code, or are of another model."""


class Clip:
    """``open_clip:MODEL/PRETRAINED`` or ``open_clip:MODEL/PATH``: pictures and texts projected
    into one space, at unit length."""

    texts_too = True

    def __init__(self, spec: str, device: torch.device) -> None:
        parts = parse(spec)
        self.name = spec
        self.title = title(spec)
        self._device = device
        self._model, self._preprocess, self._tokenizer = _opened(parts)
        self._model.to(device).eval()

    def images(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """f32[B,E]: embeddings of pieces of pictures, each u8[H,W,3] of any size."""
        return np.concatenate(in_batches(self._pictures, pieces, BATCH))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """f32[T,E]: embeddings of texts. Raises BadInput for an empty text."""
        if not all(text.strip() for text in texts):
            raise BadInput("There is no text to embed: write a few words, such as 'a dog'.")
        return np.concatenate(in_batches(self._words, list(texts), BATCH))

    def _pictures(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        views = torch.stack([self._preprocess(picture(piece)) for piece in pieces])
        with torch.inference_mode():
            return unit(self._model.encode_image(views.to(self._device)).float().cpu().numpy())

    def _words(self, texts: Sequence[str]) -> np.ndarray:
        tokens = self._tokenizer(list(texts))
        with torch.inference_mode():
            return unit(self._model.encode_text(tokens.to(self._device)).float().cpu().numpy())


def _opened(parts: Spec) -> tuple[Any, Any, Any]:
    """The model with its weights, its preprocessing and its tokenizer. The file of the weights is
    read as plain tensors: no code in it is run."""
    import open_clip

    settings = _known(parts, open_clip)
    tag = {} if parts.local else open_clip.get_pretrained_cfg(parts.model, parts.weights)
    file = str(identity.checkpoint(parts.weights)) if parts.local else _download(parts, tag)
    try:
        with _hub(parts, settings):
            tokenizer = open_clip.get_tokenizer(parts.model)
            model: Any = open_clip.create_model(
                parts.model,
                pretrained=file,
                force_quick_gelu=bool(tag.get("quick_gelu")),
                force_preprocess_cfg={name: tag[name] for name in _LOOK if name in tag},
                weights_only=True,
            )
    except ImportError as error:
        raise Unavailable(
            f"{parts.model} needs the package {error.name or 'transformers'}: install it, or "
            "choose another model."
        ) from error
    except _MISFIT as error:
        if OutOfMemory.told_by(error):
            raise
        raise BadInput(
            f"'{parts.weights}' does not hold the weights of {parts.model}: it is damaged, of "
            "another model, or holds Python code; give the checkpoint of that model."
        ) from error
    look = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    return model, open_clip.transform.image_transform_v2(look, is_train=False), tokenizer


def _known(parts: Spec, open_clip: Any) -> dict[str, Any]:
    """The model's configuration; BadInput for a model or tag that open_clip does not know."""
    found: dict[str, Any] | None = open_clip.get_model_config(parts.model)
    if found is None:
        raise BadInput(
            f"open_clip has no model '{parts.model}': choose one of open_clip.list_models(), "
            "such as ViT-B-32."
        )
    tags = open_clip.list_pretrained_tags_by_model(parts.model)
    if not parts.local and parts.weights not in tags:
        raise BadInput(
            f"open_clip has no weights '{parts.weights}' for {parts.model}: choose one of "
            f"{', '.join(tags[:6]) or 'none'}, or give the path of a checkpoint."
        )
    return found


def _download(parts: Spec, tag: dict[str, Any]) -> str:
    from open_clip import download_pretrained

    try:
        with fetching(parts.model):
            return str(download_pretrained(tag))
    except Unavailable as error:
        raise Unavailable(
            f"The weights {parts.weights} of {parts.model} cannot be downloaded from here: connect "
            f"to the internet, or give a checkpoint as open_clip:{parts.model}/PATH."
        ) from error


def _hub(parts: Spec, settings: dict[str, Any]) -> AbstractContextManager[None]:
    """Short waits for models whose text side lives on the hub; most carry their own."""
    text = settings.get("text_cfg", {})
    needed = any(name.startswith("hf_") for name in text) or "siglip" in parts.model.lower()
    return fetching(f"{parts.model}'s text encoder") if needed else nullcontext()
