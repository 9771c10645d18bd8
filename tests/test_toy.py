"""The toy world and what is judged by it: scenes, training, neurons whose concepts are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import command, surround

from explorer.__main__ import main
from explorer.compute import toy_training
from explorer.embedders import title
from explorer.images import concept_boxes, glyphs, pictures, toy_world
from explorer.images.toy_world import World
from explorer.networks import toy
from explorer.networks.zoo import load
from explorer.records import BadInput, Preprocess
from explorer.scores.truth import division, drives, present

SMALL = ("--concepts", "4", "--channels", "3", "--pictures", "24", "--training", "64")
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def silent(fraction: float, message: str) -> None:
    """Report to no one."""


# Scenes.


def test_scenes_come_out_the_same_and_parts_of_a_world_differ() -> None:
    world = World(6, seed=3)
    one, again = world.scene("show", 8), World(6, seed=3).scene("show", 8)
    assert np.array_equal(one.picture, again.picture)
    assert one.objects == again.objects
    for other in (world.scene("train", 8), World(6, seed=4).scene("show", 8)):
        assert not np.array_equal(one.picture, other.picture)


def test_boxes_hold_all_ink_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy_world, "GRAIN", 0.0)
    monkeypatch.setattr(toy_world, "_ink", lambda random: np.full(3, 255.0))
    monkeypatch.setattr(toy_world, "_ground", lambda random: np.zeros((64, 64, 3)))
    world = World(toy_world.MOST)
    for number in range(2 * toy_world.MOST):
        scene = world.scene("show", number)
        ink = scene.picture.any(axis=2)
        for _, (left, top, right, bottom) in scene.objects:
            rows, columns = np.nonzero(ink[top:bottom, left:right])
            assert (rows.min(), columns.min()) == (0, 0)
            assert (rows.max() + 1, columns.max() + 1) == (bottom - top, right - left)
            ink[top:bottom, left:right] = False
        assert not ink.any()


def test_forms_go_round_and_a_second_one_is_another() -> None:
    world = World(5)
    scenes = [world.scene("show", number) for number in range(60)]
    names = [[name for name, _ in scene.objects] for scene in scenes]
    assert [each[0] for each in names] == list(world.names) * 12
    several = [each for each in names if len(each) == 2]
    assert 10 < len(several) < 30
    assert all(one != two for one, two in several)


def test_every_form_looks_like_no_other() -> None:
    drawn = {name: np.asarray(glyphs.mask(name, 24, 0.0), float) / 255 for name in glyphs.FORMS}
    for one, first in drawn.items():
        assert 0.1 < first.mean() < 0.7, one
        for two, second in drawn.items():
            overlap = (first * second).sum() / np.maximum(first, second).sum()
            assert one == two or overlap < 0.85, (one, two)


@pytest.mark.parametrize("concepts", [0, 3, 37, 1000])
def test_a_world_of_too_few_or_many_concepts_is_refused(concepts: int) -> None:
    with pytest.raises(BadInput, match="4 to 36 concepts"):
        World(concepts)


# What is where.


def test_the_concept_at_a_place_is_that_of_the_nearest_box(tmp_path: Path) -> None:
    Image.new("RGB", (128, 64)).save(tmp_path / "wide.png")
    lines = ["picture,concept,left,top,right,bottom", "wide.png,moon,40,8,56,24",
             "wide.png,star,72,40,88,56"]  # fmt: skip
    (tmp_path / "concepts.csv").write_text("\n".join(lines))
    contents = concept_boxes.read(tmp_path)
    assert contents.names == ("moon", "star")

    def at(x: float, y: float) -> int:
        place = contents, tmp_path, "wide.png", toy.PREPROCESS
        return concept_boxes.concept_at(*place, (x, y), 8.0)

    # The network sees the middle half of the picture: x is 32 less there.
    assert at(16, 16) == at(5, 16) == 0
    assert at(48, 48) == at(62, 60) == 1
    assert at(32, 8) == 0
    assert at(4, 60) == -1
    assert concept_boxes.concept_at(contents, tmp_path, "no.png", toy.PREPROCESS, (1, 1), 8) == -1


def test_boxes_follow_what_the_network_sees() -> None:
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[30:60, 45:75] = 255
    preprocess = Preprocess(60, 56, "bilinear", (0.5,) * 3, (0.5,) * 3)
    seen = pictures.fit(Image.fromarray(picture), preprocess)
    box = pictures.placed(np.array([[45.0, 30, 75, 60]]), (120, 90), preprocess)[0]
    rows, columns = np.nonzero(seen[..., 0] > 127)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(box - found).max() <= 1


@pytest.mark.parametrize(
    "text",
    [
        "picture,concept\na.png,moon",
        "picture,concept,left,top,right,bottom\na.png,moon,5,5,4,9",
        "picture,concept,left,top,right,bottom\na.png,moon,5,x,9,9",
        "picture,concept,left,top,right,bottom\na.png,,5,5,9,9",
    ],
)
def test_a_malformed_list_of_concepts_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"concepts\.csv"):
        concept_boxes.read(tmp_path)
    (tmp_path / "concepts.csv").write_text(text)
    with pytest.raises(BadInput, match=r"concepts\.csv.*(lacks the column|line 2)"):
        concept_boxes.read(tmp_path)


# The network.


def test_training_repeats_to_the_last_bit_and_learns() -> None:
    world = World(4)
    taught = toy_training.lesson(world, "train", 96, silent)
    threads = torch.get_num_threads()
    one, again, other = (
        toy_training.train(3, taught, epochs, seed, silent)
        for epochs, seed in ((4, 0), (4, 0), (4, 1))
    )
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.head.weight, other.head.weight)
    assert 0 <= toy_training.accuracy(one, taught) <= 1


def test_channels_can_be_taught_their_own_concepts() -> None:
    random = torch.Generator().manual_seed(0)
    number = torch.arange(96) % 3
    pixels = torch.randint(0, 60, (96, 3, 64, 64), generator=random, dtype=torch.uint8)
    pixels[torch.arange(96), number, 20:40, 20:40] += 190  # a red, green or blue square
    taught = toy_training.Lesson(pixels, torch.eye(3)[number])
    network = toy_training.train(3, taught, 40, 0, silent, one_each=True)
    with torch.no_grad():
        strongest = network.narrowed(toy_training._ready(pixels)).amax((2, 3))
    assert torch.equal(strongest > 1, taught.present > 0)


def test_the_zoo_loads_a_toy_network_with_its_number_of_concepts(tmp_path: Path) -> None:
    network = toy.Toy(5, 7).eval()
    toy_training.save(network, tmp_path / "toy.safetensors")
    loaded = load("toy:5", str(tmp_path / "toy.safetensors"))
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.model(x), network(x))
    assert load("toy:5", "random").model(x).shape == (2, toy.CONCEPTS)
    assert title("network:toy:5@random") == "Features of toy:5"
    for name, weights, why in (
        ("toy:5", "default", "make some by the command toy"),
        ("toy:1", "random", "2 to 256 channels"),
        ("toy:six", "random", "is not a network"),
        ("toy:6", str(tmp_path / "toy.safetensors"), "does not fit"),
    ):
        with pytest.raises(BadInput, match=why):
            load(name, weights)


# Truth.


def test_concepts_count_from_their_share_of_all_references() -> None:
    seen = np.array([0, 0, 0, 0, 2, 2, 2, 1, -1, -1])
    shares = drives(seen, 4)
    assert shares == pytest.approx([0.4, 0.1, 0.3, 0.0])
    assert present(shares, 0.2).tolist() == [0, 2]
    assert present(shares, 0.1).tolist() == [0, 1, 2]
    assert division(seen, np.array([0, 2])).tolist() == [0, 0, 0, 0, 2, 2, 2, -1, -1, -1]


def planted(folder: Path) -> Path:
    """Pictures of one coloured square each, and a network whose narrow channels are known: red or
    blue, green, and any of the three. Returns the folder."""
    pictures_folder = folder / "pictures"
    pictures_folder.mkdir()
    rows = []
    for number in range(90):
        random = np.random.default_rng(number)
        name = list(COLOURS)[number % 3]
        left, top = (int(each) for each in random.integers(8, 40, 2))
        picture = np.zeros((64, 64, 3), np.uint8)
        strength = random.uniform(0.9, 1.0)
        picture[top : top + 16, left : left + 16] = strength * np.array(COLOURS[name])
        Image.fromarray(picture).save(pictures_folder / f"{number:03}.png")
        rows.append((f"{number:03}.png", name, left, top, left + 16, top + 16))
    with (pictures_folder / "concepts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([concept_boxes.COLUMNS, *rows])
    network = toy.Toy(3, 4)
    with torch.no_grad():
        for block in (network.edges, network.parts, network.forms, network.narrow):
            weight = block.get_submodule("conv").weight
            assert isinstance(weight, torch.Tensor)
            weight.zero_()
            middle = weight.shape[-1] // 2
            for channel in range(3):
                weight[channel, channel, middle, middle] = 1
        network.narrow.get_submodule("conv").weight[:, :3, 0, 0] = torch.tensor(
            [[1.0, 0, 1], [0, 1, 0], [1, 1, 1]]
        )
    save_file(network.state_dict(), folder / "planted.safetensors")
    (folder / "explorer.toml").write_text(
        f'[[workspace]]\nname = "planted"\nnetwork = "toy:3"\nembedder = "network:toy:4@random"\n'
        f'weights = "{folder}/planted.safetensors"\nimages = "{pictures_folder}"\n'
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    surround(monkeypatch, tmp_path / "explorer.toml", tmp_path / "cache")
    return tmp_path


def test_known_channels_are_judged_right(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(environment)
    methods = ("--methods", "pure", "pure:lower=edges", "concept_vectors", "random")
    found = command(capsys, "truth", "narrow", "--references", "45", *methods)
    assert [each["concepts"] for each in found["channels"]] == [2, 1, 3]
    assert found["channels"][0]["shares"].keys() == {"red", "blue"}
    assert found["channels"][1]["shares"] == {"green": 30 / 30}
    assert found["by_concepts"] == {"1": 1, "2": 1, "3": 1}
    assert found["polysemantic"] == pytest.approx(2 / 3)
    ari = {(row["method"], row["k"]): row["ari"] for row in found["rows"]}
    assert ari["pure", "known"] == ari["pure:lower=edges", "known"] == 1.0
    assert abs(ari["random", "known"]) < 0.2
    assert ("random", "auto") not in ari
    assert ("concept_vectors", "known") not in ari
    of_pure = [row for row in found["auto"] if row["method"] == "pure"]
    assert [row["concepts"] for row in of_pure] == [1, 2, 3]
    again = command(capsys, "truth", "narrow", "--references", "45", *methods)
    assert again["rows"] == found["rows"]


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("narrow", "--methods", "pure:k=2"), "leave k out"),
        (("narrow", "--share", "0.01"), "share of 0.125 to 0.5"),
        (("narrow", "--neurons", "0"), "one neuron or more"),
        (("narrow", "--references", "0"), "1 to 1000 references"),
        (("head",), "choose a layer with a map"),
        (("nowhere",), "There is no layer"),
    ],
)
def test_truth_refuses_what_it_cannot_judge(
    argv: tuple[str, ...], why: str, environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(environment)
    assert main(["truth", *argv]) == 2
    assert why in capsys.readouterr().err


def test_truth_needs_pictures_whose_contents_are_known(
    environment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(environment)
    (environment / "pictures" / "concepts.csv").unlink()
    assert main(["truth", "narrow"]) == 2
    assert "put concepts.csv" in capsys.readouterr().err


# The command.


def test_a_world_is_made_by_one_command_and_again_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        command(capsys, "toy", "-o", str(tmp_path / name), *SMALL, "--epochs", "1")
        for name in ("one", "two")
    ]
    assert found[0]["concepts"] == ["disc", "star", "frame", "plus"]
    assert [each["channels"] for each in found[0]["networks"]] == [3, 4]
    one, two = (
        {path.relative_to(tmp_path / name): path.read_bytes()
         for path in sorted((tmp_path / name).rglob("*")) if path.is_file()}
        for name in ("one", "two")
    )  # fmt: skip
    del one[Path("explorer.toml")], two[Path("explorer.toml")]
    assert one == two
    assert len(one) == 24 + 2 + 3
    assert not list(tmp_path.glob(".toy-*"))
    monkeypatch.setenv("EXPLORER_CONFIG", found[0]["config"])
    monkeypatch.setenv("EXPLORER_CACHE_DIR", str(tmp_path / "cache"))
    layers = command(capsys, "layers", "--workspace", "toy-control")["layers"]
    assert {each["name"]: each["channels"] for each in layers}["narrow"] == 4


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--concepts", "2"), "4 to 36 concepts, not 2"),
        (("--channels", "1"), "2 to 256 channels, not 1"),
        (("--pictures", "3"), "needs 24 pictures"),
        (("--training", "3"), "64 scenes to train on"),
        (("--epochs", "0"), "an epoch"),
        (("--seed", "-1"), "from 0 on"),
    ],
)
def test_worlds_that_cannot_be_made_are_refused_and_leave_nothing(
    argv: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["toy", "-o", str(tmp_path / "world"), *SMALL, *argv]) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_empty_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt", tmp_path / "mine.txt" / "below"):
        assert main(["toy", "-o", str(folder), *SMALL]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]
