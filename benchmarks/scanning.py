"""Scanning from disk, against the bare forward pass of the same folded network."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.interleaved import interleave, spread
from benchmarks.options import NETWORK, WEIGHTS, Bench, Options, silent
from explorer.arrays import ScanArrays
from explorer.compute.decoding import Decoder
from explorer.compute.scan import scan, to_input
from explorer.networks.graph import Network
from explorer.networks.zoo import load
from explorer.records import PRECISIONS, ImageSet

NETWORKS = {
    "resnet50": (NETWORK, WEIGHTS),
    "lite0": ("timm:tf_efficientnet_lite0", "random:0"),
}
"""With ``--quick`` the first, in float32."""
BLOCKS = (
    *("layer1", "layer2", "layer3", "layer4"),
    *("blocks.2.1.bn1", "blocks.3.2.bn1", "blocks.4.2.bn1", "blocks.5.3.bn2"),
)
BATCH = 32
"""Pictures of the bare pass at once, and of decoding."""
PEER_PICTURES = 100
SCANNED = {"resnet50": 384, "lite0": 2048}
"""How many pictures each scan of a round takes, and each bare pass."""


def measure(options: Options) -> dict[str, Any]:
    """Pictures per second and ratios; the bare pass has its pictures in memory as tensors."""
    figures: dict[str, Any] = {}
    for name, source in list(NETWORKS.items())[: 1 if options.quick else None]:
        images = Bench(options, *source).images
        loaded = load(*source)
        for precision in PRECISIONS[:1] if options.quick else PRECISIONS:
            network = Network.build(loaded, "cpu", precision)
            count = min(SCANNED[name] // (4 if options.quick else 1), len(images))
            figures |= _compare(f"{name}_{precision}", network, images, count, options)
    figures["scan_over_bare_forward"] = figures["scan_resnet50_float32_over_bare_forward"]
    return figures | (beside_peer(options) if options.peer else {})


def beside_peer(options: Options) -> dict[str, float]:
    """How many times as fast as zennit-crp's scan of the same layers ours is, in turn with it."""
    images, loaded = Bench(options).images, load(*NETWORKS["resnet50"])
    networks = {each: Network.build(loaded, "cpu", each) for each in PRECISIONS}
    part = cut(images, min(SCANNED["resnet50"], len(images)))

    def ours(network: Network) -> Callable[[], None]:
        return lambda: whole(network, part, blocks(network), options.folder)

    variants: dict[str, Callable[[], Any]] = {name: ours(each) for name, each in networks.items()}
    for scan_once in variants.values():
        scan_once()
    variants["peer"] = lambda: peer(options, images)
    seconds = interleave(variants, 1 if options.quick else 3, warm=0)
    speed = {name: len(part) / each for name, each in seconds.items()}
    speed["peer"] = PEER_PICTURES / seconds["peer"]
    figures = spread("scan_resnet50_peer_images_per_s", speed["peer"])
    for precision in PRECISIONS:
        name = f"scan_resnet50_{precision}_over_peer"
        figures |= spread(name, speed[precision] / speed["peer"])
    return figures


def peer(options: Options, images: ImageSet) -> float:
    """The seconds that zennit-crp's scan of the first pictures takes, in a process of its own."""
    paths = [str(Path(images.root) / path) for path in images.paths[:PEER_PICTURES]]
    folder = tempfile.mkdtemp(dir=options.folder)
    asked = {"pictures": paths, "folder": folder}
    command = [options.peer, str(Path(__file__).with_name("peer_scan.py"))]
    run = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return float(json.loads(run.stdout.splitlines()[-1])["seconds"])


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
    rounds = 2 if options.quick else 5
    cpu: dict[str, list[float]] = {key: [] for key in variants}
    counted = {key: counting(run, cpu[key]) for key, run in variants.items()}
    seconds = interleave(counted, rounds)
    spent = {key: np.array(each[-rounds:]) for key, each in cpu.items()}
    figures = spread(f"scan_{name}_images_per_s", count / seconds["four"])
    figures |= spread(f"scan_{name}_bare_images_per_s", count / seconds["bare"])
    figures |= spread(f"scan_{name}_decode_images_per_s", count / seconds["decode"])
    for suffix, each in (("", seconds), ("_cpu", spent)):
        figures |= spread(f"scan_{name}{suffix}_over_bare_forward", each["bare"] / each["four"])
        every_name = f"scan_{name}_all_layers{suffix}_over_bare_forward"
        figures |= spread(every_name, each["bare"] / each["all"])
    return figures


def counting(run: Callable[[], Any], seconds: list[float]) -> Callable[[], None]:
    """The same, noting the processor time it takes: other programs do not disturb that."""

    def counted() -> None:
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)

    return counted


def blocks(network: Network) -> list[str]:
    """Four layers, of ResNet50 the outputs of its blocks."""
    return [name for name in BLOCKS if name in {layer.name for layer in network.info.layers}]


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
