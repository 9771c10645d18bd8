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
from explorer.compute.device import cpu_cores
from explorer.compute.scan import CUDA_BATCH, decoder, scan, to_input
from explorer.networks.fusing import multiplies_bf16
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
BATCH = {"cpu": 32, "cuda": CUDA_BATCH}
"""Pictures of the bare pass at once, by the kind of device."""
PEER_PICTURES = {"cpu": 100, "cuda": 500}
SCANNED = {"resnet50": 384, "lite0": 2048}
"""How many pictures each scan of a round takes, and each bare pass, on a CPU."""
CUDA_TIMES = 16
"""How many times as many where a GPU is: the same again, if there are fewer."""


def measure(options: Options) -> dict[str, Any]:
    """Pictures per second and ratios; the bare pass has its pictures in memory as tensors."""
    figures: dict[str, Any] = {}
    precisions = PRECISIONS[:1] if options.quick else _precisions(options)
    if not options.quick and precisions != PRECISIONS:
        figures["scan_bf16_skipped"] = "This processor has no bfloat16: it is far slower."
    for name, source in list(NETWORKS.items())[: 1 if options.quick else None]:
        images = Bench(options, *source).images
        loaded = load(*source)
        for precision in precisions:
            network = Network.build(loaded, options.device, precision)
            count = _count(name, images, options) // (4 if options.quick else 1)
            figures |= _compare(f"{name}_{precision}", network, images, count, options)
    figures["scan_over_bare_forward"] = figures["scan_resnet50_float32_over_bare_forward"]
    return figures | (beside_peer(options) if options.peer else {})


def beside_peer(options: Options) -> dict[str, float]:
    """How many times as fast as zennit-crp's scan of the same layers ours is, in turn with it."""
    images, loaded = Bench(options).images, load(*NETWORKS["resnet50"])
    networks = {each: Network.build(loaded, options.device, each) for each in _precisions(options)}
    part = cut(images, _count("resnet50", images, options))

    def ours(network: Network) -> Callable[[], None]:
        return lambda: whole(network, part, blocks(network), options.folder)

    variants: dict[str, Callable[[], Any]] = {name: ours(each) for name, each in networks.items()}
    for scan_once in variants.values():
        scan_once()
    variants["peer"] = lambda: peer(options, images)
    seconds = interleave(variants, 1 if options.quick else 3, warm=0)
    speed = {name: len(part) / each for name, each in seconds.items()}
    speed["peer"] = PEER_PICTURES[options.device.type] / seconds["peer"]
    figures = spread("scan_resnet50_peer_images_per_s", speed["peer"])
    for precision in networks:
        name = f"scan_resnet50_{precision}_over_peer"
        figures |= spread(name, speed[precision] / speed["peer"])
    return figures


def peer(options: Options, images: ImageSet) -> float:
    """The seconds that zennit-crp's scan of the first pictures takes, in a process of its own."""
    given = cut(images, PEER_PICTURES[options.device.type])
    paths = [str(Path(images.root) / path) for path in given.paths]
    folder = tempfile.mkdtemp(dir=options.folder)
    asked = {"pictures": paths, "folder": folder, "device": str(options.device)}
    command = [options.peer, str(Path(__file__).with_name("peer_scan.py"))]
    run = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return float(json.loads(run.stdout.splitlines()[-1])["seconds"])


def _compare(
    name: str, network: Network, images: ImageSet, count: int, options: Options
) -> dict[str, float]:
    size = BATCH[network.device.type]
    count = max(size, count - count % size)
    batches = [_random(network, size) for _ in range(4)]
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


def _precisions(options: Options) -> tuple[str, ...]:
    """Those that the device computes in."""
    able = options.device.type != "cpu" or multiplies_bf16()
    return PRECISIONS if able else PRECISIONS[:1]


def blocks(network: Network) -> list[str]:
    """Four layers, of ResNet50 the outputs of its blocks."""
    return [name for name in BLOCKS if name in {layer.name for layer in network.info.layers}]


def _count(name: str, images: ImageSet, options: Options) -> int:
    """How many pictures a scan of a network takes."""
    if options.device.type == "cuda":
        return CUDA_TIMES * SCANNED[name]
    return min(SCANNED[name], len(images))


def cut(images: ImageSet, count: int) -> ImageSet:
    """The first pictures of a set, and then again from the first."""
    at = np.arange(count) % len(images)
    paths = tuple(images.paths[i] for i in at)
    about = (images.name, images.root, images.digest, paths, images.labels[at])
    return ImageSet(*about, images.label_names, images.sources[at], images.credits)


def _random(network: Network, size: int) -> torch.Tensor:
    """Pictures of noise, as the network takes them."""
    side = network.info.preprocess.crop
    made = torch.randn(size, 3, side, side).to(network.device, network.dtype)
    return made.contiguous(memory_format=torch.channels_last)


def bare(network: Network, batches: Sequence[torch.Tensor], count: int) -> None:
    """A forward pass of ``count`` pictures that are there already."""
    for number in range(count // len(batches[0])):
        network.logits(batches[number % len(batches)])


def whole(network: Network, images: ImageSet, layers: Sequence[str], folder: Path) -> None:
    """A scan from files to files."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        found = [network.info.layer(name) for name in layers]
        with ScanArrays(Path(made) / "scan").writer(found, len(images)) as writer:
            scan(network, images, writer, silent)


def decode(network: Network, images: ImageSet) -> int:
    """Decoding alone, by as many threads as in a scan."""
    batches = decoder(network, images.root, cpu_cores() - 1).batches(images.paths)
    return sum(len(to_input(each.pixels, network)) for each in batches)
