"""What every benchmark is told, and the workspace it measures in."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter

from explorer.answers.room import Room
from explorer.compute.device import choose_device
from explorer.compute.device_lab import DeviceLab
from explorer.images import sets
from explorer.keys import Identity, Question
from explorer.networks.identity import identity
from explorer.records import Workspace
from explorer.settings import load_settings
from explorer.store import Store

NETWORK, WEIGHTS = "torchvision:resnet50", "random:0"
"""What most benchmarks measure. Of its figures only relevance of many neurons to a picture depends
on what the weights are: channels that are closed there are left out."""
DRAWN = {True: 200, False: 400}
"""Pictures, with ``--quick`` and without."""


@dataclass(frozen=True)
class Options:
    """``quick``: fewer rounds and neurons; ``whole``: all neurons of a layer, which takes hours;
    ``pictures``: a folder of them; ``peer``: a Python that has zennit-crp, or "" to leave its
    columns out; ``folder``: for whatever is written."""

    quick: bool
    whole: bool
    pictures: Path
    peer: str
    folder: Path

    @property
    def device(self) -> torch.device:
        """Where networks run: as everywhere, what EXPLORER_DEVICE says."""
        return choose_device(_where())


class Bench:
    """A workspace over the pictures with a store of its own."""

    def __init__(self, options: Options, network: str = NETWORK, weights: str = WEIGHTS) -> None:
        cache = Path(tempfile.mkdtemp(dir=options.folder))
        settings = load_settings({"EXPLORER_CACHE_DIR": str(cache), "EXPLORER_DEVICE": _where()})
        self.workspace = Workspace("bench", network, weights, str(options.pictures), "conse")
        self.images = sets.open_set(str(options.pictures), settings.data_dir)
        self.identity = Identity(identity(network, weights), self.images.digest)
        self.room = Room(settings, Store(settings.cache_dir, 20.0))

    def lab(self) -> DeviceLab:
        """A Lab that remembers nothing of what earlier ones read or computed."""
        folder = Path(tempfile.mkdtemp(dir=self.room.settings.cache_dir))
        about = self.workspace, self.identity, self.images
        return DeviceLab(*about, self.room.shelf, Store(folder, 20.0), folder)

    def question(self, kind: str, subject: str = "") -> Question:
        return Question(kind, self.workspace, subject)


def _where() -> str:
    return os.environ.get("EXPLORER_DEVICE", "auto")


def silent(fraction: float, message: str) -> None:
    """Progress goes nowhere."""


def draw(folder: Path, count: int) -> Path:
    """``count`` pictures of 500 x 375 pixels, as detailed as photographs: about 100 kB each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 256, (15, 20, 3), np.uint8))
        picture = coarse.resize((500, 375), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(picture)
        for _ in range(12):
            left, top = (int(at) for at in random.integers(0, 350, 2))
            right, bottom = (int(side) for side in random.integers(20, 150, 2))
            colour = tuple(int(value) for value in random.integers(0, 256, 3))
            pen.ellipse((left, top, left + right, top + bottom), fill=colour)
        noise = random.normal(0, 18, (375, 500, 3))
        noisy = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
        soft = Image.fromarray(noisy).filter(ImageFilter.GaussianBlur(0.6))
        soft.save(folder / f"{number:04}.jpg", quality=92)
    return folder
