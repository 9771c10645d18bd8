"""Surgery on networks: exact, undoable, saved and loaded, on every kind of layer."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn

from explorer.compute.inputs import entering, outputs, sums, units
from explorer.compute.rewriting import edited_network
from explorer.networks import dividing, surgery
from explorer.networks.edit_list import from_json, to_json
from explorer.networks.graph import Network
from explorer.networks.identity import identity
from explorer.networks.makers import Makers
from explorer.networks.original import Original
from explorer.networks.weights import digest
from explorer.networks.zoo import load
from explorer.records import BadInput, Edit
from explorer.settings import HOME

NETWORK, WEIGHTS = "timm:test_resnet", "random:3"
CPU = torch.device("cpu")


class Small(nn.Module):
    """One layer of every kind: strided 3x3, grouped, 1x1, depthwise, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 12, (3, 1), padding=(1, 0), dilation=1, groups=4, bias=False)
        self.point = nn.Conv2d(12, 10, 1)
        self.norm = nn.BatchNorm2d(10)
        self.deep = nn.Conv2d(10, 10, 3, padding="same", groups=10)
        self.head = nn.Linear(10, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.conv(x).relu()).relu()
        x = self.deep(self.norm(self.point(x)).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


def edit(model: nn.Module, layer: str, channel: int, concepts: int, seed: int = 0) -> Edit:
    inputs = surgery.weighted(model, layer).weight[0].numel()
    owner = np.random.default_rng(seed).integers(-1, concepts, inputs).astype(np.int32)
    names = tuple(f"concept {number}" for number in range(concepts))
    return Edit(layer, channel, names, "symmetric", 0.5, owner)


def fitted(model: nn.Module, layer: str, channel: int, concepts: int) -> Edit:
    """An edit whose parts are numbers of their own."""
    row = surgery.Rows.of(surgery.weighted(model, layer)).row(channel, layer).numpy()
    drawn = np.random.default_rng(0).normal(size=(concepts, len(row))) * abs(row) * 3
    parts = dividing.exact(drawn, row)
    names = tuple("ABCDEFGH"[:concepts])
    return Edit(layer, channel, names, "fitted", 0.5, dividing.holders(parts), parts)


def difference(first: nn.Module, second: nn.Module, kind: torch.dtype) -> float:
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(kind)
    made = [copied(model).to(kind)(x) for model in (first, second)]
    return float((made[0] - made[1]).abs().max())


def copied(model: nn.Module) -> nn.Module:
    import copy

    return copy.deepcopy(model)


@pytest.mark.parametrize("layer", ["conv", "grouped", "point", "head"])
@pytest.mark.parametrize("concepts", [2, 3, 4])
def test_the_function_stays_for_every_kind_of_layer(
    small: nn.Module, layer: str, concepts: int
) -> None:
    edited = surgery.apply(small, [edit(small, layer, 5, concepts)])
    assert difference(small, edited, torch.float32) < 1e-5
    assert difference(small, edited, torch.float64) < 1e-13
    assert digest(surgery.restore(edited)) == digest(small), "merged weights are the weights"
    before = surgery.weighted(small, layer).weight.shape[0]
    groups = 4 if layer == "grouped" else 1
    assert surgery.widened(edited) == {layer: (before, before + concepts * groups)}


@pytest.mark.parametrize("layer", ["conv", "grouped", "point", "head"])
@pytest.mark.parametrize("concepts", [2, 4])
def test_the_function_stays_for_fitted_parts(small: nn.Module, layer: str, concepts: int) -> None:
    edits = [fitted(small, layer, 5, concepts), edit(small, layer, 5, 2)]
    edited = surgery.apply(small, edits)
    assert difference(small, edited, torch.float32) < 1e-5
    assert digest(surgery.restore(edited)) == digest(small), "merged weights are the weights"


def test_edits_add_up_in_order_and_can_be_undone(small: nn.Module) -> None:
    edits = [
        edit(small, "point", 5, 2),
        edit(small, "conv", 1, 3, 1),
        edit(small, "point", 0, 2, 2),
        edit(small, "point", 10, 3, 3),  # the second part of channel 5, divided again
        edit(small, "grouped", 11, 2, 4),
        edit(small, "grouped", 2, 2, 5),
    ]
    edited = surgery.apply(small, edits)
    assert difference(small, edited, torch.float64) < 1e-13
    assert surgery.widened(edited)["point"] == (10, 17)
    assert digest(surgery.restore(edited)) == digest(small)
    undone = surgery.apply(small, edits[:-1])
    assert surgery.widened(undone)["grouped"] == (12, 20)
    assert digest(surgery.apply(small, [])) == digest(small)


def test_new_rows_lie_where_they_are_said_to_lie(small: nn.Module) -> None:
    one = edit(small, "grouped", 7, 2)
    made, rows = surgery.edit_layer(surgery.weighted(small, "grouped"), [one])
    wanted = dividing.rows(surgery.as_numpy(surgery.Rows.of(small.grouped), 7, ""), one.owner, 2)
    for place, row in zip([rows.places()[7], *rows.places()[12:]], wanted, strict=True):
        assert np.array_equal(made.split.weight[place].flatten().numpy(), row)
    layer = small.grouped
    h = torch.randn(2, 8, 5, 5)
    group = rows.places()[7] // 5
    direct = outputs(layer, h, torch.from_numpy(wanted), None, group)
    assert torch.allclose(made.split(h)[:, rows.places()[12]].flatten(1), direct[:, 1], atol=1e-6)


@pytest.mark.parametrize("layer", ["conv", "grouped", "point", "deep", "head"])
def test_sums_of_inputs_give_the_sums_of_outputs(small: nn.Module, layer: str) -> None:
    module = surgery.weighted(small, layer)
    x = torch.randn(3, 3, 17, 16)
    h = entering(small, layer, x)
    read = sums(module, h)
    weight = module.weight.flatten(1)
    groups = read.shape[1]
    per = len(weight) // groups
    found = torch.cat([read[:, g] @ weight[g * per : (g + 1) * per].T for g in range(groups)], 1)
    made = module(h)
    space = made.flatten(2) if made.dim() > 2 else made[..., None]
    wanted = (
        space.sum(2) - module.bias * space.shape[2] if module.bias is not None else space.sum(2)
    )
    assert torch.allclose(found, wanted, atol=1e-4)
    last = slice((groups - 1) * per, None)
    direct = units(module, h, groups - 1) @ weight[last].T
    direct = direct if module.bias is None else direct + module.bias[last]
    assert torch.allclose(direct.transpose(1, 2), space[:, last], atol=1e-4)


def test_planted_channels_are_taken_apart() -> None:
    """A row that is the sum of two rows with separate inputs comes apart into them."""
    random = np.random.default_rng(0)
    first, second = np.zeros((2, 40), np.float32)
    first[:20], second[20:] = random.normal(size=(2, 20))
    pictures = random.exponential(size=(2, 50, 40)).astype(np.float32) * 0.1
    pictures[0, :, :20] *= 10
    pictures[1, :, 20:] *= 10
    held_out = random.exponential(size=(200, 40))
    recovered = {}
    for rule in dividing.MASKS:
        owner = dividing.divide(first + second, pictures.mean(1), 0.5, rule)
        made = dividing.rows(first + second, owner, 2)
        recovered[rule] = min(
            np.corrcoef(held_out @ row, held_out @ source)[0, 1]
            for row, source in zip(made[:2], (first, second), strict=True)
        )
    assert recovered["symmetric"] > 0.999
    assert max(recovered["published"], recovered["balanced"]) < 0.9, "they misplace inhibition"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edited network as a person downloads it; the JSON file."""
    folder = tmp_path_factory.mktemp("edited")
    loaded = load(NETWORK, WEIGHTS)
    original = Original(loaded, (), CPU)
    edits = [edit(original.model, "layer4.0.conv2", 3, 3), fitted(original.model, "conv1.0", 1, 2)]
    made = edited_network(original, edits)
    path = folder / "edited.json"
    path.write_text(made.edits)
    (folder / "test_resnet-edited.safetensors").write_bytes(made.weights.tobytes())
    return path


def test_saved_edits_load_as_a_network_whose_new_channels_are_browsed(files: Path) -> None:
    loaded = load(NETWORK, f"edits:{files}")
    assert "untrained" in loaded.notice
    network = Network.build(loaded)
    assert network.traced
    layers = {layer.name: layer for layer in network.info.layers}
    assert layers["layer4.0.conv2.split"].channels == 96 + 3
    assert "layer4.0.act1" in layers["layer4.0.conv2.split"].lowers
    assert layers["conv1.0.split"].channels == surgery.widened(loaded.model)["conv1.0"][1]
    plain = Network.build(load(NETWORK, WEIGHTS))
    x = torch.randn(2, 3, 160, 160)
    assert torch.allclose(plain.logits(x), network.logits(x), atol=1e-5)
    assert plain.info.default_layer == network.info.default_layer
    part = network.slice("layer4.0.act1", "layer4.0.conv2.split")
    assert part.module(*network.inputs(x, part)).shape[1] == 99


def test_edits_go_on_from_a_loaded_network(files: Path) -> None:
    loaded = load(NETWORK, f"edits:{files}")
    original = Original(loaded, Network.build(loaded).info.layers, CPU)
    assert original.base == load(NETWORK, WEIGHTS).digest
    assert original.weights == WEIGHTS
    found = original.maker("layer4.0.conv2.split")
    assert (found.path, found.shown) == ("layer4.0.conv2", "layer4.0.conv2.split")
    again = edited_network(original, [edit(original.model, "layer4.0.conv2", 97, 2)])
    listed = from_json(again.edits, "again")
    assert len(listed.edits) == 3
    assert listed.layers["layer4.0.conv2"] == (96, 101)
    assert to_json(listed) == again.edits
    assert listed.edits[1].parts.shape == (2, 27)
    document = json.loads(again.edits)
    document["edits"][1]["parts"][0].pop()
    with pytest.raises(BadInput, match="no list of edits"):
        from_json(json.dumps(document), "again")


def test_plain_pytorch_loads_it_as_the_docs_say(files: Path) -> None:
    text = (HOME / "docs" / "surgery.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example
    space: dict[str, object] = {}
    code = compile(example[1].split("# In use")[0], "docs/surgery.md", "exec")
    exec(code, space)  # noqa: S102 - the example of our own docs
    model = space["load_edited"](timm.create_model("test_resnet"), str(files))  # type: ignore
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), load(NETWORK, f"edits:{files}").model(x))


def test_identity_follows_the_contents(files: Path, tmp_path: Path) -> None:
    first = identity(NETWORK, f"edits:{files}")
    other = tmp_path / "other.json"
    other.write_text(files.read_text() + "\n")
    assert identity(NETWORK, f"edits:{other}") != first


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"network": "timm:resnet18"}, "edits of timm:resnet18"),
        ({"base": "0" * 32}, "hash of the original differs"),
        ({"contents": "blake2b:0"}, "its hash differs"),
        ({"file": "../elsewhere.safetensors"}, "same folder"),
        ({"file": "absent.safetensors"}, "same folder"),
        ({"format": "other"}, "no list of edits"),
        ({"edits": 3}, "no list of edits"),
        ({"layers": {"layer9": [1, 2]}}, "no module 'layer9'"),
        ({"layers": {"conv1.0": [5, 9]}}, "from 5 channels"),
        ({"layers": {"bn1": [5, 9]}}, "bn1 is a BatchNorm"),
    ],
)
def test_lists_of_edits_that_do_not_fit_are_refused(
    files: Path, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    document = json.loads(files.read_text()) | change
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    weights = files.parent / "test_resnet-edited.safetensors"
    (tmp_path / weights.name).write_bytes(weights.read_bytes())
    with pytest.raises(BadInput, match=sentence):
        load(NETWORK, f"edits:{path}")


def test_weights_outside_the_folder_are_refused(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "edited.json"
    path.write_text(files.read_text())
    link = tmp_path / "test_resnet-edited.safetensors"
    link.symlink_to(files.parent / link.name)
    with pytest.raises(BadInput, match="same folder"):
        load(NETWORK, f"edits:{path}")


@pytest.mark.parametrize("name", ["edits:", "edits:none.json", "edits:\x00.json", "edits:a.txt"])
def test_missing_lists_of_edits_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="no list of edits"):
        load(NETWORK, name)


def test_edits_of_another_network_and_broken_weights_are_refused(small: nn.Module) -> None:
    one = edit(small, "point", 2, 2)
    with pytest.raises(BadInput, match="another network"):
        surgery.apply(small, [replace(one, layer="conv")])
    with pytest.raises(BadInput, match="channels 0 to 9"):
        surgery.apply(small, [replace(one, channel=10)])
    with pytest.raises(BadInput, match="another network"):
        surgery.apply(small, [replace(fitted(small, "point", 2, 2), concepts=("A", "B", "C"))])
    small.point.weight[2, 0] = float("nan")
    with pytest.raises(BadInput, match="not finite numbers"):
        surgery.apply(small, [one])


def test_makers_are_found_through_norms_sums_and_gates() -> None:
    model = timm.create_model("test_efficientnet", pretrained=False).eval()
    info = Network.build(load("timm:test_efficientnet", "random:1")).info
    makers = Makers(model, info.layers)
    depthwise = next(n for n, m in model.named_modules() if n.endswith("conv_dw"))
    found = makers.maker(depthwise)
    assert "is depthwise" in found.refusal
    assert found.path in found.refusal
    assert isinstance(model.get_submodule(found.path), nn.Conv2d)
    head = makers.maker("classifier")
    assert (head.kind, head.shown) == ("linear layer", "classifier")
    for layer in info.layers:
        made = makers.maker(layer.name)
        assert made.refusal or made.channels == layer.channels
    with pytest.raises(BadInput, match="no layer 'nowhere'"):
        makers.maker("nowhere")


def test_layers_that_cannot_be_divided_are_named(small: nn.Module) -> None:
    class Wrapped(Small):
        def __init__(self) -> None:
            super().__init__()
            self.grouped = nn.Sequential(OrderedDict(up=nn.ConvTranspose2d(8, 12, 1)))

    with pytest.raises(BadInput, match=r"grouped\.up is a ConvTranspose2d"):
        surgery.weighted(Wrapped(), "grouped.up")
    assert Makers(small, ()).maker("norm").path == "point"
    assert "depthwise" in Makers(small, ()).maker("deep").refusal


def test_the_closed_form_is_the_gradient() -> None:
    from explorer.compute.serving import _relevance

    for name, path in (("tf_efficientnet_lite0", "conv_head"), ("test_resnet", "layer4.0.conv2")):
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False).eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 1.5)
                module.running_mean.normal_(std=0.1)
        tail = Makers(model, ()).tail(path)
        assert tail is not None, name
        x, wanted = torch.randn(2, 3, 96, 96), torch.tensor([3, -1])
        closed, _ = _relevance(model, path, x, wanted, tail)
        sliced, _ = _relevance(model, path, x, wanted, None)
        assert torch.allclose(closed, sliced, atol=1e-6)
        assert closed.abs().max() > 0
    assert Makers(model, ()).tail("conv1.0") is None


def test_the_pictures_kept_of_a_label_are_those_of_the_highest_relevance() -> None:
    from explorer.compute.serving import SHOWN, Tally

    random = np.random.default_rng(0)
    labels, relevance = random.integers(0, 2, 60), random.normal(size=(60, 4)).astype(np.float32)
    tally = Tally(2, 4, 1, 3)
    for start in range(0, 60, 7):
        ids = np.arange(start, min(start + 7, 60))
        sums_ = np.ones((len(ids), 1, 3))
        tally.add(labels[ids], ids, relevance[ids] > 0, sums_, relevance[ids])
    for label in (0, 1):
        own = np.flatnonzero(labels == label)
        wanted = own[np.argsort(-relevance[own], axis=0)[:SHOWN]].T
        assert np.array_equal(tally.best[label], wanted)
        assert np.array_equal(tally.important[label], (relevance[own] > 0).sum(0))
        assert tally.count[label] == tally.means[label, 0, 0] == len(own)
