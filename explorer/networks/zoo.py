"""Load a network by name, with the weights that were asked for."""

from __future__ import annotations

import difflib
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torchvision
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo
from torch import nn
from torchvision.models import get_model_weights

from explorer.networks import edit_list, identity, surgery, toy
from explorer.networks.hub import fetching
from explorer.networks.weights import digest, fill, head, read, renamed
from explorer.records import BadInput, Preprocess

UNTRAINED = "These weights are random and untrained, so what its neurons show means nothing."
BRANCHED = {"aux_logits": False, "transform_input": True, "init_weights": False}
"""GoogLeNet and Inception as their trained weights expect them, without training branches."""

Make = Callable[..., nn.Module]
"""(weights, classes) -> the network; weights as its library knows them or None."""


@dataclass(frozen=True)
class Loaded:
    """A network ready for use: float32, evaluating. ``digest`` is that of its weights,
    ``classes`` the names of its outputs (() where unknown), ``notice`` "" or one sentence."""

    source: str
    weights: str
    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    digest: str
    notice: str


def load(network: str, weights: str = "default") -> Loaded:
    """Load ``timm:NAME``, ``torchvision:NAME`` or ``toy:SIZE``.

    ``weights`` is ``default`` (the library's download), a torchvision enum name, a path of a
    checkpoint, ``package:NAME``, ``random`` or ``random:SEED``, or ``edits:FILE``. Raises
    BadInput for unknown names and weights that do not fit, Unavailable when a download or package
    cannot be had.
    """
    library, name = identity.library(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' advice to programmers
        if library == "timm":
            model, preprocess = _timm(name, weights)
        elif library == identity.TOY:
            model, preprocess = _toy(int(name), weights), toy.PREPROCESS
        else:
            model, preprocess = _torchvision(name, weights)
    model = model.float().eval()
    outputs = head(model)[1]
    return Loaded(
        source=network,
        weights=weights,
        model=model,
        preprocess=preprocess,
        classes=imagenet_classes() if outputs == 1000 else (),
        digest=digest(model),
        notice=UNTRAINED if identity.is_random(_trained_by(weights)) else "",
    )


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 class names: the first synonym, or more of the description where that is shared."""
    info = ImageNetInfo()
    whole = [info.index_to_description(number) for number in range(1000)]
    first = [text.split(",")[0] for text in whole]
    detailed = [info.index_to_description(number, detailed=True) for number in range(1000)]
    levels = [(texts, Counter(texts)) for texts in (first, whole, detailed)]
    return tuple(
        next(texts[number] for texts, counts in levels if counts[texts[number]] == 1)
        for number in range(1000)
    )


def _timm(name: str, asked: str) -> tuple[nn.Module, Preprocess]:
    family = name.partition(".")[0]
    if not timm.is_model(family):
        raise _unknown("timm", name, timm.list_models())
    if asked == "default" and not timm.models.is_model_pretrained(name):
        raise BadInput(f"timm has no weights for {name}: give a checkpoint's path, or random.")

    def make(trained: Any, classes: int | None) -> nn.Module:
        sized: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        try:
            return timm.create_model(name, pretrained=bool(trained), **sized)
        except RuntimeError as error:
            if "tag" not in str(error):
                raise
            raise _unknown("timm", name, timm.list_pretrained(f"{family}*")) from error

    if asked != "default" and not _own(asked):
        raise BadInput(
            f"timm names weights with the network, such as resnet50.a1_in1k: write default "
            f"instead of '{asked[:80]}', or a checkpoint's path."
        )
    model = _filled(f"timm:{name}", asked, make)
    config = resolve_data_config({}, model=model)
    crop = config["input_size"][-1]
    preprocess = Preprocess(
        resize=math.floor(crop / config["crop_pct"]),
        crop=crop,
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )
    return model, preprocess


def _torchvision(name: str, asked: str) -> tuple[nn.Module, Preprocess]:
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise _unknown("torchvision", name, names)
    known = get_model_weights(name)
    members = {member.name: member for member in known}
    if asked != "default" and asked not in members and not _own(asked):
        raise BadInput(
            f"torchvision:{name} has no weights '{asked[:80]}': choose default, "
            f"{', '.join(members)}, random or a checkpoint's path."
        )
    chosen = known.DEFAULT if asked == "default" else members.get(asked, next(iter(known)))

    def make(trained: Any, classes: int | None) -> nn.Module:
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if trained is None and name in ("googlenet", "inception_v3"):
            options |= BRANCHED
        picked = chosen if trained else None
        return cast(nn.Module, torchvision.models.get_model(name, weights=picked, **options))

    model = _filled(f"torchvision:{name}", asked, make)
    view = chosen.transforms()
    preprocess = Preprocess(
        resize=view.resize_size[0],
        crop=view.crop_size[0],
        interpolation="bilinear" if view.interpolation.value == "bilinear" else "bicubic",
        mean=tuple(view.mean),
        std=tuple(view.std),
    )
    return model, preprocess


def _toy(size: int, asked: str) -> nn.Module:
    if not _own(asked):
        raise BadInput(
            f"toy:{size} has no weights '{asked[:80]}': make some by the command toy and give "
            "their path, or random."
        )

    def make(trained: Any, classes: int | None) -> nn.Module:
        return toy.Toy(size, classes or toy.CONCEPTS)

    return _filled(f"toy:{size}", asked, make)


def _own(asked: str) -> bool:
    """Whether weights are not the library's to find."""
    kinds = (identity.is_random, identity.is_checkpoint, identity.is_edits)
    return any(kind(asked) for kind in kinds) or asked.startswith("package:")


def _trained_by(asked: str) -> str:
    """The weights that an edited network was made from; other weights as they are."""
    if not identity.is_edits(asked):
        return asked
    return edit_list.read(identity.edits_file(asked)).weights


def _filled(network: str, asked: str, make: Make) -> nn.Module:
    """The network with the weights asked for."""
    if not _own(asked):
        with fetching(network):
            return make(True, None)
    if identity.is_random(asked):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(identity.seed(asked))
            return _awake(make(None, None))
    if identity.is_edits(asked):
        return _edited(network, identity.edits_file(asked), make)
    path = identity.checkpoint(asked)
    state = read(path)
    model = make(None, None)
    state = renamed(state, model)
    matrix, outputs = head(model)
    if matrix in state and state[matrix].shape[:1] not in ((outputs,), ()):
        model = make(None, state[matrix].shape[0])
    fill(model, state, path.name)
    return model


def _awake(model: nn.Module) -> nn.Module:
    """An untrained network with its residual branches switched on. Libraries start their last
    batch norms at zero for training, which would leave every layer inside without effect."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            # Every scale of an untrained network is one but for those that start at zero.
            nn.init.ones_(module.weight)
    return model


def _edited(network: str, path: Path, make: Make) -> nn.Module:
    """The network that a list of edits and the weights beside it hold."""
    listed = edit_list.read(path)
    if listed.network != network:
        raise BadInput(
            f"'{path.name}' holds edits of {listed.network[:80]}, not of {network}: name the "
            "network that was edited."
        )
    file = edit_list.weights_of(path, listed)
    model = make(None, None)
    if head(model)[1] != listed.outputs:
        model = make(None, listed.outputs)
    model = surgery.skeleton(model, listed)
    fill(model, read(file), file.name)
    surgery.check_base(model, listed, path.name)
    return model


def _unknown(library: str, name: str, known: list[str]) -> BadInput:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "see its list of models."
    return BadInput(f"{library} has no network '{name}': {hint}")
