"""The scan: one forward pass over all pictures, kept as maximum, mean and position per channel."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from explorer.compute.batching import in_batches
from explorer.compute.decoding import Decoder, Unreadable, Views
from explorer.compute.device import choose_device, cpu_cores
from explorer.compute.engine import Cluster
from explorer.lab import Report
from explorer.networks import pooling
from explorer.networks.cores import side_by_side
from explorer.networks.fusing import multiplies_bf16
from explorer.networks.graph import DTYPES, Network
from explorer.networks.zoo import load
from explorer.records import ImageSet, Workspace
from explorer.scan_writer import LARGEST, ScanWriter

BATCHES = {torch.float32: 12, torch.bfloat16: 16}
"""Pictures at once on a core of a CPU: more would outgrow what its cache can help with."""
CUDA_BATCH, CUDA_PART, MOST_READERS = 256, 32, 64
"""Pictures at once on a CUDA device, how many of them a process decodes at a time, and how many
processes do at most: they decode some 200 photographs a second each, and take 30 MB."""
SLOW = "This processor has no bfloat16: choose the precision float32, which is far quicker here"
CORES_PER_DECODER = 8
"""The quickest network takes a core eight times as long as a decoding thread takes a picture."""
TASK_IMAGES, TASKS = 512, 8
"""Pictures that an actor takes at a time, at most, and for how many times, at least."""

Reduced = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Per layer: spatial maximum f16[C,B], mean f16[C,B] and flat position of the maximum [C,B]."""
Piece = tuple[Reduced, tuple[Unreadable, ...]]
"""What was found in a batch, and which of its pictures could not be read."""


def scan(network: Network, images: ImageSet, writer: ScanWriter, report: Report) -> None:
    """Fill what the writer misses; pictures that cannot be read are recorded in it.

    ``report`` is called between batches, and each second in which a picture is waited for.
    """
    report = _with_advice(network, report)

    def idle() -> None:
        _tell(writer, report)

    for start, end in writer.gaps:
        paths, decode = images.paths[start:end], decoder(network, images.root, cpu_cores() - 1)
        with closing(pieces(network, decode, paths, writer.layers, idle)) as found:
            fill(found, writer, report)
    writer.finish()


def fill(found: Iterable[Piece], writer: ScanWriter, report: Report) -> None:
    """Write pieces in the order of their pictures, reporting after each."""
    for reduced, unreadable in found:
        writer.append(reduced, unreadable)
        _tell(writer, report)


def _with_advice(network: Network, report: Report) -> Report:
    """Reports; that float32 is quicker where a processor has no arithmetic of bfloat16 (11 times
    with AVX2)."""
    rounds = network.dtype is torch.bfloat16 and network.device.type == "cpu"
    if not rounds or multiplies_bf16():
        return report
    return lambda fraction, message: report(fraction, f"{message}. {SLOW}")


def _tell(writer: ScanWriter, report: Report) -> None:
    done = writer.images - writer.missing
    report(done / writer.images, f"{done:,} of {writer.images:,} pictures")


def scan_on(
    cluster: Cluster,
    workspace: Workspace,
    images: ImageSet,
    writer: ScanWriter,
    report: Report,
) -> None:
    """As ``scan``, to the same arrays, by the actors of a cluster."""

    def idle() -> None:
        report(1 - writer.missing / writer.images, cluster.size)

    about = (workspace, images.root, writer.layers, cluster.device, cluster.cores)
    batch = CUDA_BATCH if cluster.gpus else BATCHES[DTYPES[workspace.precision]]
    batches = math.ceil(writer.missing / (batch * TASKS * cluster.actors))
    size = min(TASK_IMAGES, batch * batches)  # whole batches, so that they are a local scan's
    for start, end in writer.gaps:
        tasks = [images.paths[at : min(at + size, end)] for at in range(start, end, size)]
        for found in cluster.map(scanner, about, tasks, idle):
            fill(found, writer, report)
    writer.finish()


@contextmanager
def scanner(
    workspace: Workspace, root: str, layers: Sequence[str], device: str, cores: int
) -> Iterator[Callable[[Sequence[str]], list[Piece]]]:
    """What an actor that has so many cores does with paths of pictures."""
    loaded = load(workspace.network, workspace.weights)
    network = Network.build(loaded, choose_device(device), workspace.precision)
    decode = decoder(network, root, cores, kept=True)
    yield lambda paths: list(pieces(network, decode, paths, layers))


def pieces(
    network: Network,
    decode: Decoder,
    paths: Sequence[str],
    layers: Sequence[str],
    idle: Callable[[], None] = lambda: None,
) -> Generator[Piece, None, None]:
    """What layers find in the pictures at ``paths``, batch by batch as they are decoded; ``idle``
    is called each second in which one is waited for.

    While the device works on a batch, the next ones are decoded. On a CPU each core takes batches
    of its own, if the network is traced; on a CUDA device nothing waits for a batch before the next
    is under way.
    """
    cuda = network.device.type == "cuda"
    batches = decode.batches(paths, idle)
    if cuda or not network.traced:
        yield from _overlapping(network, batches, layers, ahead=cuda)
    else:
        cores = torch.get_num_threads()
        yield from side_by_side(lambda views: _piece(network, views, layers), batches, cores)


def decoder(network: Network, root: str, cores: int, kept: bool = False) -> Decoder:
    """What makes batches for a network of pictures under a root, by so many ``cores`` where the
    network is on a CUDA device; ``kept`` as a Decoder has it."""
    about = root, network.info.preprocess
    if network.device.type == "cuda":
        readers = max(1, min(cores, MOST_READERS))
        return Decoder(*about, CUDA_BATCH, readers, CUDA_PART, apart=True, kept=kept)
    threads = max(1, torch.get_num_threads() // CORES_PER_DECODER)
    return Decoder(*about, BATCHES[network.dtype], threads, kept=kept)


def _piece(network: Network, views: Views, layers: Sequence[str]) -> Piece:
    return launch(network, views.pixels, layers)(), views.unreadable


def _overlapping(
    network: Network, batches: Iterable[Views], layers: Sequence[str], ahead: int
) -> Iterator[Piece]:
    """Piece by piece, with so many batches ``ahead`` of what is waited for."""
    under_way: deque[tuple[Callable[[], Reduced], Views]] = deque()
    for views in batches:
        under_way.append((launch(network, views.pixels, layers), views))
        if len(under_way) > ahead:
            collect, oldest = under_way.popleft()
            yield collect(), oldest.unreadable
    for collect, views in under_way:
        yield collect(), views.unreadable


def launch(network: Network, views: np.ndarray, layers: Sequence[str]) -> Callable[[], Reduced]:
    """Set the device to work on views u8[B,S,S,3]; calling what is returned waits for the end."""

    def forward(part: np.ndarray) -> tuple[list[int], list[torch.Tensor]]:
        pooled = network.features(to_input(part, network), layers, _pooled)
        each = [pooled[layer] for layer in layers]
        widths = [maximum.shape[1] for maximum, _, _ in each]
        return widths, [torch.cat([one[what] for one in each], 1) for what in range(3)]

    parts = in_batches(forward, views, len(views))
    widths = parts[0][0]
    whole = [torch.cat([found[what] for _, found in parts]).T for what in range(3)]
    if network.device.type == "cuda":  # which turns them in a hundredth of the time
        whole = [each.contiguous() for each in whole]
    found = (network.info.layer(network.resolve(layer)) for layer in layers)
    places = max(layer.height * layer.width for layer in found)
    host = [each.to("cpu", non_blocking=True) for each in _narrow(whole, places)]
    ended = torch.Event(network.device) if network.device.type == "cuda" else None
    if ended is not None:
        ended.record()

    def collect() -> Reduced:
        if ended is not None:
            ended.synchronize()
        split = [torch.split(each, widths) for each in host]
        found = zip(*([one.numpy() for one in each] for each in split), strict=True)
        return dict(zip(layers, found, strict=True))

    return collect


def to_input(views: np.ndarray, network: Network) -> torch.Tensor:
    """Views u8[B,S,S,3] as the network's normalised input [B,3,S,S], channels last, in the
    network's precision."""
    preprocess, device = network.info.preprocess, network.device
    pixels = torch.from_numpy(np.ascontiguousarray(views)).to(device, non_blocking=True)
    mean, std = _constants(preprocess.mean, preprocess.std, views.shape[2], device)
    made = torch.empty(views.shape, dtype=network.dtype, device=device)
    # On a CPU picture by picture, as one fits the cache: four times as fast as all at once.
    parts = [slice(None)] if device.type != "cpu" else [slice(i, i + 1) for i in range(len(views))]
    for part in parts:
        normalised = torch.div(pixels[part], 255)
        normalised.flatten(2).sub_(mean).div_(std)
        made[part] = normalised
    return made.permute(0, 3, 1, 2)


@cache
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """One row of them, on the device, where making them anew for every batch would wait for it."""
    once = (torch.tensor(each, device=device) for each in (mean, std))
    first, second = (each.repeat(width) for each in once)
    return first, second


def _pooled(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values [B,C,H,W] to maximum, mean and flat position, each [B,C]."""
    if pooling.suits(values):
        found = pooling.pooled(values)
        if not found[1].isnan().any():
            return found
    if values.device.type != "cpu":  # ten times as quick there as PyTorch's pooling
        flat = values.flatten(2)
        maximum, position = flat.max(2)
        return maximum, flat.mean(2), position
    whole = values.shape[2:]
    mean = F.avg_pool2d(values, whole).flatten(1)  # twice as fast as a mean over two axes
    maximum, position = (each.flatten(1) for each in _highest(values, mean))
    return maximum, mean, position


def _highest(values: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maximum and flat position of values [B,C,H,W] on a CPU."""
    whole = values.shape[2:]
    # A window over all is quicker; and in bf16 numbers above zero have the order of their
    # bits, which as integers are compared twice as fast, where these can also count the places.
    few = math.prod(whole) <= torch.iinfo(torch.int16).max
    if values.dtype is torch.bfloat16 and few and not mean.isnan().any():
        bits, position = F.max_pool2d(values.view(torch.int16), whole, return_indices=True)
        if bits.amin() >= 0:
            return bits.view(values.dtype), position
    return F.max_pool2d(values, whole, return_indices=True)


def _narrow(whole: Sequence[torch.Tensor], places: int) -> Iterator[torch.Tensor]:
    """Maximum, mean and position among ``places`` in the types in which they are stored."""
    for values in whole[:2]:
        yield values.clamp(-LARGEST, LARGEST).half()
    yield whole[2].to(torch.uint16 if places <= 2**16 else torch.int32)
