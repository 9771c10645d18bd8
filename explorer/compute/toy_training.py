"""Trains the toy network on scenes of the toy world, the same way every time.

The same seed gives the same weights, byte by byte, on the same machine and libraries: one thread,
deterministic kernels, seeded order. Another processor rounds otherwise, and training amplifies it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from explorer.images.toy_world import SIDE, World
from explorer.networks.toy import PREPROCESS, Toy

Report = Callable[[float, str], None]

BATCH = 32
RATE = 0.02
DECAY = 1e-4
STEEP = 4.0
"""How fast a channel of ``one_each`` turns from no to yes about 1."""


@dataclass(frozen=True)
class Lesson:
    """Scenes as pixels u8[N,3,SIDE,SIDE] and which concepts each holds, f32[N,concepts]."""

    pixels: Tensor
    present: Tensor


def lesson(world: World, part: str, count: int, report: Report) -> Lesson:
    """``count`` scenes of a part of the world."""
    pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
    present = np.zeros((count, world.concepts), np.float32)
    for number in range(count):
        scene = world.scene(part, number)
        pixels[number] = scene.picture
        present[number, [world.names.index(name) for name, _ in scene.objects]] = 1
        if number % 256 == 0:
            report(number / count, f"Drawing scenes to {part}: {number:,} of {count:,}")
    moved = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return Lesson(moved, torch.from_numpy(present))


def train(
    size: int, taught: Lesson, epochs: int, seed: int, report: Report, one_each: bool = False
) -> Toy:
    """A toy network of ``size`` channels, trained on the CPU by AdamW on the summed binary
    cross-entropy of all concepts, the rate rising and falling once.

    With ``one_each`` the channels of the narrow layer, as many as concepts, learn their own concept
    too: the maximum of each is to lie above 1 where that is present and below 1 elsewhere.
    """
    count, concepts = taught.present.shape
    batches = count // BATCH
    steps = epochs * batches
    with _repeatable(seed):
        network = Toy(size, concepts).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
        rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
        for step in range(steps):
            if step % batches == 0:
                order = torch.randperm(count)
                report(step / steps, f"Training toy:{size}: {step} of {steps} steps")
            at = order[step % batches * BATCH :][:BATCH]
            maps = network.narrowed(_ready(taught.pixels[at]))
            loss = _wrong(network.read(maps), taught.present[at])
            if one_each:
                loss = loss + _wrong(STEEP * (maps.amax((2, 3)) - 1), taught.present[at])
            optimiser.zero_grad()
            torch.autograd.backward(loss / BATCH)
            optimiser.step()
            rates.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: Toy, asked: Lesson) -> float:
    """The share of scenes of which the network names all concepts and no other (logit above 0)."""
    found = [network(_ready(part)) > 0 for part in torch.split(asked.pixels, BATCH)]
    right = (torch.cat(found) == (asked.present > 0)).all(dim=1)
    return float(right.float().mean())


def save(network: Toy, path: Path) -> None:
    """The weights as a safetensors file."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


def _wrong(logits: Tensor, present: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, present, reduction="sum")


def _ready(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (PREPROCESS.mean, PREPROCESS.std))
    return (pixels.float() / 255 - mean) / std


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """One thread, deterministic kernels and a seed, and everything as it was afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(strict)
