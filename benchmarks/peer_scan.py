"""The peer's scan of four blocks of ResNet50, in batches of 50; run by a Python with zennit-crp.

{"pictures": paths, "folder": name, "device": name} comes on stdin; the seconds, by the clock and of
the processor, go to stdout.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

import torch
import torchvision
from crp.attribution import CondAttribution
from crp.concepts import ChannelConcept
from crp.visualization import FeatureVisualization
from PIL import Image
from torchvision import transforms
from zennit.composites import EpsilonPlusFlat
from zennit.torchvision import ResNetCanonizer

LAYERS = ("layer1", "layer2", "layer3", "layer4")
BATCH = 50


class Pictures(torch.utils.data.Dataset[Any]):
    """Pictures as its documentation prepares them, with a class each, which it asks for."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths
        self.prepare = transforms.Compose(
            [
                transforms.Resize(256),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as picture:
            return self.prepare(picture.convert("RGB")), index % 1000


def main() -> None:
    """Scan once what stdin names."""
    asked = json.loads(sys.stdin.readline())
    torch.backends.cudnn.allow_tf32 = False  # single precision on a GPU too, as ours is
    model = torchvision.models.resnet50(weights=None).eval().to(asked["device"])
    layers = {name: ChannelConcept() for name in LAYERS}
    pictures = Pictures(asked["pictures"])
    scan = FeatureVisualization(CondAttribution(model), pictures, layers, path=asked["folder"])
    composite = EpsilonPlusFlat(canonizers=[ResNetCanonizer()])
    with torch.no_grad():
        model(torch.zeros(BATCH, 3, 224, 224, device=asked["device"]))  # libraries are loaded
    start, before = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        scan.run(composite, 0, len(pictures), BATCH)
    found = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - before}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
