"""Scanning from disk, against the bare forward pass of the same folded network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleaved import interleave, spread
from benchmarks.options import NETWORK, WEIGHTS, Bench, Options, silent
from explorer.arrays import ScanArrays
from explorer.compute.decoding import Decoder
from explorer.compute.scan import BATCH, scan, to_input
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import PRECISIONS, ImageSet

LITE0 = ("timm:tf_efficientnet_lite0", "random:0")
SCANNED = {"resnet50": 384, "lite0": 768}
"""How many pictures each scan of a round takes, and each bare pass."""


def measure(options: Options) -> dict[str, Any]:
    """Pictures per second and ratios; the bare pass has its pictures in memory as tensors."""
    figures: dict[str, Any] = {}
    for name, source in (("resnet50", (NETWORK, WEIGHTS)), ("lite0", LITE0)):
        images = Bench(options, *source).images
        loaded = load(*source)
        for precision in PRECISIONS:
            network = Network.build(loaded, "cpu", precision)
            count = min(SCANNED[name] // (4 if options.quick else 1), len(images))
            figures |= _compare(f"{name}_{precision}", network, images, count, options)
    figures["scan_over_bare_forward"] = figures["scan_resnet50_float32_over_bare_forward"]
    return figures


def _compare(
    name: str, network: Network, images: ImageSet, count: int, options: Options
) -> dict[str, float]:
    count -= count % BATCH
    batches = [torch.randn(BATCH, 3, *[network.info.preprocess.crop] * 2) for _ in range(4)]
    every = [layer.name for layer in network.info.layers if layer.rectified]
    four = blocks(network)
    part = cut(images, count)
    variants: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare(network, batches, count),
        "four": lambda: whole(network, part, four, options.folder),
        "all": lambda: whole(network, part, every, options.folder),
        "decode": lambda: decode(network, part),
    }
    seconds = interleave(variants, 2 if options.quick else 5)
    figures = spread(f"scan_{name}_images_per_s", count / seconds["four"])
    figures |= spread(f"scan_{name}_bare_images_per_s", count / seconds["bare"])
    figures |= spread(f"scan_{name}_decode_images_per_s", count / seconds["decode"])
    figures |= spread(f"scan_{name}_over_bare_forward", seconds["bare"] / seconds["four"])
    return figures | spread(
        f"scan_{name}_all_layers_over_bare_forward", seconds["bare"] / seconds["all"]
    )


def blocks(network: Network) -> list[str]:
    """Four layers, one of each of the last four sizes of map."""
    last = {(each.height, each.width): each.name for each in network.info.layers if each.height > 1}
    return list(last.values())[-4:]


def cut(images: ImageSet, count: int) -> ImageSet:
    """The first pictures of a set."""
    few = slice(0, count)
    about = (images.name, images.root, images.digest, images.paths[few], images.labels[few])
    return ImageSet(*about, images.label_names, images.sources[few], images.credits)


def bare(network: Network, batches: Sequence[torch.Tensor], count: int) -> None:
    """A forward pass of ``count`` pictures that are there already."""
    for number in range(count // BATCH):
        network.logits(batches[number % len(batches)])


def whole(network: Network, images: ImageSet, layers: Sequence[str], folder: Path) -> None:
    """A scan from files to files."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        found = [network.info.layer(name) for name in layers]
        with ScanArrays(Path(made) / "scan").writer(found, len(images)) as writer:
            scan(network, images, writer, silent)


def decode(network: Network, images: ImageSet) -> int:
    """Decoding alone, in one thread."""
    decoder = Decoder(images.root, network.info.preprocess, BATCH)
    return sum(len(to_input(each.pixels, network)) for each in decoder.batches(images.paths))
