"""What is looked at: workspaces, networks, layers, neurons, pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.records.errors import BadInput

PRECISIONS = ("float32", "bf16")
"""In what numbers a network may run when pictures are scanned."""


@dataclass(frozen=True)
class Workspace:
    """A network, its weights, a set of images and an embedder, under one name.

    ``layers`` lists the layers scanned ahead; empty means the explorer's own choice. ``precision``
    is that of scans, one of PRECISIONS; everything else is computed in float32.
    """

    name: str
    network: str
    weights: str
    images: str
    embedder: str
    layers: tuple[str, ...] = ()
    precision: str = PRECISIONS[0]


@dataclass(frozen=True)
class Neuron:
    """One channel of one layer. Its ``address``, ``layer:channel``, is the URL and CLI form."""

    workspace: str
    layer: str
    channel: int

    @property
    def address(self) -> str:
        return f"{self.layer}:{self.channel}"

    @classmethod
    def parse(cls, workspace: str, address: str) -> Neuron:
        """Read ``layer:channel``; raise BadInput when it is not of that form."""
        layer, colon, channel = address.rpartition(":")
        if not colon or not layer or not (channel.isascii() and channel.isdigit()):
            raise BadInput(
                f"'{address}' is not a neuron: write LAYER:CHANNEL, such as blocks.5.3.bn2:74."
            )
        if len(channel) > 9:
            raise BadInput(f"'{address}' is not a neuron: no layer has that many channels.")
        return cls(workspace, layer, int(channel))


@dataclass(frozen=True)
class Layer:
    """A browsable layer: a tensor of the traced network that has channels.

    ``rectified`` layers follow an activation function that is zero below zero (ReLU and its
    kin); their channels are ranked on the rectified value before any ceiling (ReLU6).
    ``ceiling`` is that upper clip, if there is one. ``lowers`` are the layers that a split may
    attribute to, nearest first: earlier, and reached through at least one operation that mixes
    channels. ``lower`` is the default among them: the nearest that is rectified ("" if none).
    """

    name: str
    channels: int
    height: int
    width: int
    rectified: bool
    ceiling: float | None
    lowers: tuple[str, ...]
    lower: str


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the network's input: short side to ``resize``, centre ``crop``
    (both in pixels), divided by 255, minus ``mean``, over ``std`` (per RGB channel)."""

    resize: int
    crop: int
    interpolation: str  # "bilinear" | "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class NetworkInfo:
    """What a person needs to know of a loaded network. ``notice`` is "" or one sentence to show
    (random weights, say). ``digest`` is that of the weights as loaded. ``classes`` are names of
    its outputs, () where unknown. ``default_layer`` is where browsing starts."""

    source: str
    weights: str
    digest: str
    parameters: int
    layers: tuple[Layer, ...]
    default_layer: str
    preprocess: Preprocess
    classes: tuple[str, ...]
    notice: str

    def layer(self, name: str) -> Layer:
        """The layer of that name; BadInput, naming near ones, when there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        import difflib

        near = difflib.get_close_matches(name, [layer.name for layer in self.layers], 3, 0.3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise BadInput(f"There is no layer '{name}' in {self.source}{hint or '.'}")


@dataclass(frozen=True)
class ImageSet:
    """The pictures of a workspace, in order of their relative path (the image id is the index).

    ``digest`` depends on paths and contents, not on where the folder lies. ``labels`` i32[N]
    index ``label_names`` (-1: none). ``sources`` i32[N]: pictures with one number show the same
    photograph, and a gallery takes at most one of them. ``credits`` is shown wherever the
    pictures are.
    """

    name: str
    root: str
    digest: str
    paths: tuple[str, ...]
    labels: np.ndarray
    label_names: tuple[str, ...]
    sources: np.ndarray
    credits: str

    def __len__(self) -> int:
        return len(self.paths)

    def label(self, image: int) -> str:
        """The name of an image's label, "" when it has none."""
        number = int(self.labels[image])
        return self.label_names[number] if number >= 0 else ""
