"""The peer's side of a comparison: zennit-crp, run by a Python that has it and nothing of ours.

Reads one JSON object a line and answers with one: {"lower", "upper", "channel", "rule", "pictures"}
gives the seconds that conditional attribution took. "pictures" is a file of float32 [B,3,H,W]; with
"found", another file is written, the relevance [B,D] of the lower channels; with "exact", without
the eps that zennit's canoniser leaves in merged batch norms. The first line says the
network, {"network": a file of its weights, "device": its name}: ResNet50 of torchvision, whose
parts carry the names of ours.
"""

from __future__ import annotations

import json
import sys
import time

import torch
import torchvision
from crp.attribution import CondAttribution
from zennit.composites import EpsilonPlusFlat
from zennit.core import Composite
from zennit.torchvision import ResNetCanonizer


def main() -> None:
    """Answer until the input ends."""
    torch.backends.cudnn.allow_tf32 = False  # single precision on a GPU too, as ours is
    model = torchvision.models.resnet50(weights=None)
    first = asked()
    model.load_state_dict(torch.load(first["network"], weights_only=True))
    attribution = CondAttribution(model.eval().to(first["device"]))
    print(json.dumps({"torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        x = torch.load(question["pictures"], weights_only=True, map_location=first["device"])
        start = time.perf_counter()
        found = relevance(attribution, x, question)
        if found.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        if "found" in question:
            torch.save(found.cpu(), question["found"])
        print(json.dumps({"seconds": seconds}), flush=True)


def asked() -> dict[str, str]:
    line: dict[str, str] = json.loads(sys.stdin.readline())
    return line


class Exact(EpsilonPlusFlat):  # type: ignore[misc]
    """Without the eps that the canoniser leaves in batch norms that it has merged."""

    def register(self, module: torch.nn.Module) -> None:
        super().register(module)
        self.left = {m: m.eps for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)}
        for norm in self.left:
            norm.eps = torch.finfo(torch.float32).tiny  # zero is refused by some versions

    def remove(self) -> None:
        for norm, eps in getattr(self, "left", {}).items():
            norm.eps = eps
        super().remove()


def relevance(
    attribution: CondAttribution, x: torch.Tensor, question: dict[str, str]
) -> torch.Tensor:
    """As PURE's code asks zennit-crp: from the rectified map of a channel down to the pixels, the
    relevance recorded on the way. By LRP as the paper says, or by gradient x activation, which is
    what an empty composite gives, as released."""
    lrp = question["rule"] == "lrp"
    kind = Exact if "exact" in question else EpsilonPlusFlat
    composite = kind(canonizers=[ResNetCanonizer()]) if lrp else Composite()
    found = attribution(
        x.clone().requires_grad_(),
        [{question["upper"]: [question["channel"]]}],
        composite,
        record_layer=[question["lower"]],
        start_layer=question["upper"],
        init_rel=lambda activation: activation.clamp(min=0),
    )
    maps, lower = found.relevances[question["lower"]], found.activations[question["lower"]]
    rows: torch.Tensor = (maps if lrp else maps * lower).sum((2, 3)).detach()
    return rows


if __name__ == "__main__":
    main()
