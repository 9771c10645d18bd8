"""Lists, labels, WordNet, splits and calibration: what explanations are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from explorer.concepts import lists, wordnet
from explorer.concepts.labels import label_concepts, source_of
from explorer.concepts.partition import partition
from explorer.concepts.responses import Curve, calibrate, speaking
from explorer.records import BadInput, ImageSet

NOUNS = """\
00000000 03 n 01 entity 0 000 | all
00000100 03 n 02 animal 0 beast 0 001 @ 00000000 n 0000 | alive
00000200 05 n 01 dog 0 002 @ 00000100 n 0000 %p 00000000 n 0000 | barks
00000300 05 n 01 cat 0 001 @ 00000100 n 0000 | purrs
00000400 06 n 01 car 0 001 @ 00000000 n 0000 | drives
"""
"""A little WordNet: a synset's number is its place in the file. Gaps are filled below."""


def little_wordnet(folder: Path) -> Path:
    """A file of nouns whose synsets lie where their numbers say."""
    path = folder / "wordnet" / "data.noun"
    path.parent.mkdir(parents=True)
    text = ""
    for line in NOUNS.splitlines():
        place = int(line[:8])
        assert len(text) <= place, line
        text = f"{text.ljust(place - 1)}\n{line}" if place else line
    path.write_text(text + "\n")
    return path


def image_set(paths: list[str]) -> ImageSet:
    """Pictures labelled by their nearest folder."""
    names = sorted({Path(path).parent.name for path in paths})
    labels = np.array([names.index(Path(path).parent.name) for path in paths], np.int32)
    sources = np.arange(len(paths), dtype=np.int32)
    return ImageSet("set", "/nowhere", "d", tuple(paths), labels, tuple(names), sources, "")


def test_the_list_that_comes_along_is_long_and_clean() -> None:
    terms = lists.shipped()
    lines = lists.SHIPPED.read_text(encoding="utf-8").splitlines()
    assert len(terms) == len(lines) >= 2000, "no line repeats another or is empty"
    assert list(lines) == sorted(lines, key=str.casefold)
    assert all(line == " ".join(line.split()) and 2 <= len(line) <= 40 for line in lines)
    assert all(letter.isalnum() or letter in " '-" for line in lines for letter in line)


def test_repetitions_and_blank_lines_are_left_out() -> None:
    assert lists.read("Dog\n\n  a  cat \ndog\r\nA CAT\n") == ("Dog", "a cat")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no concept"),
        (" \n\t\n", "holds no concept"),
        ("dog\n<b>cat</b>", "Line 2 .* markup"),
        ("dog\x00", "Line 1 .* control characters"),
        ("dog\u202ecat", "Line 1 .* control characters"),
        ("x" * 200, "longer than 80"),
        ("dog\n---", "Line 2 .* no word"),
        ("\n".join(f"thing {n}" for n in range(20_000)), "20,000 concepts: give 10,000"),
        ("dog\n" * 100_001, "100,001 lines: give 10,000"),
    ],
)
def test_lists_that_cannot_be_used_are_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence) as caught:
        lists.read(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    (tmp_path / "huge").write_bytes(b"a" * (lists.TEXT_BYTES + 1))
    for name in ("binary", "huge", "missing"):
        with pytest.raises(BadInput, match=str(tmp_path / name)):
            lists.read_file(tmp_path / name)


def test_larger_kinds_come_from_wordnet(tmp_path: Path) -> None:
    little_wordnet(tmp_path)
    wnids = ("n00000200", "n00000300", "n00000400")
    images = image_set([f"{wnid}/{n}.jpg" for wnid in wnids for n in range(2)])
    assert source_of(images, tmp_path) == "wordnet"
    found = label_concepts(images, tmp_path, "wordnet")
    assert found.names == (*wnids, "animal"), "entity covers every class and says nothing"
    assert found.member[:, 3].tolist() == [True] * 4 + [False] * 2
    assert found.classes.tolist() == [1, 1, 1, 2]


def test_another_wordnet_is_refused(tmp_path: Path) -> None:
    path = little_wordnet(tmp_path)
    with pytest.raises(BadInput, match=r"must be WordNet 3\.0"):
        wordnet.kinds(path, "n00000150")


def test_larger_kinds_come_from_folders_without_wordnet(tmp_path: Path) -> None:
    paths = [f"{kind}/{n}.jpg" for kind in ("pet/dog", "pet/cat", "thing/car") for n in range(2)]
    images = image_set(paths)
    assert source_of(images, tmp_path) == "folders"
    found = label_concepts(images, tmp_path, "folders")
    assert found.names == ("car", "cat", "dog", "pet")
    assert found.member[:, 3].tolist() == [True] * 4 + [False] * 2


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    kinds = (
        "a/pet/dog",
        "a/pet/cat",
        "b/pet/fox",
        "b/pet/elk",
        "a/car",
        "b/cat/lynx",
        "b/cat/puma",
    )
    found = label_concepts(image_set([f"{kind}/1.jpg" for kind in kinds]), tmp_path, "folders")
    assert set(found.names[7:]) == {"a/pet", "b/pet", "b/cat", "a", "b"}


def beside(folder: Path, text: str) -> ImageSet:
    """Pictures of a dog, a cat, a bat and a car, with a hierarchy beside them."""
    (folder / "hierarchy.csv").write_text(text)
    images = image_set([f"{kind}/{n}.jpg" for kind in ("n1", "cat", "bat", "car") for n in "ab"])
    names = ("bat", "car", "cat", "dog")  # the folder n1 holds the dogs
    return replace(images, root=str(folder), label_names=names)


def test_larger_kinds_come_from_a_file_beside_the_pictures(tmp_path: Path) -> None:
    images = beside(
        tmp_path,
        "name,parent\nn1,pet\ncat,pet\npet,mammal\nbat,mammal\nbat,flyer\nbat,night\n"
        "cat,night\nmammal,thing\ncar,thing\nflyer,one of a kind\nnight,same as night\n",
    )
    source = source_of(images, tmp_path)
    assert source.startswith("hierarchy:")
    found = label_concepts(images, tmp_path, source)
    kinds = dict(zip(found.names[4:], found.member[:, 4:].T.tolist(), strict=True))
    of = {name: [each in classes for each in images.labels.tolist()] for name, classes in
          {"pet": {2, 3}, "mammal": {0, 2, 3}, "night": {0, 2}}.items()}  # fmt: skip
    assert kinds == of, "not those of one class, of all, or of the same classes as a nearer one"
    (tmp_path / "hierarchy.csv").write_text("name,parent\ncat,pet\n")
    with pytest.raises(BadInput, match="has changed since"):
        label_concepts(images, tmp_path, source)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name\ncat\n", "lacks the column 'parent'"),
        ("", "lacks the column"),
        ("name,parent\ncat,\n", "Line 2 of .* needs a name and a parent"),
        ("name,parent\ncta,pet\n", "names 'cta', .* did you mean cat"),
        ("name,parent\nwhale,pet\n", "names 'whale', .* remove its line"),
        ("name,parent\ncat,cat\n", "circle: 'cat' has 'cat'"),
        ("name,parent\ncat,pet\npet,thing\nthing,pet\n", "circle: 'pet' has 'thing' has 'pet'"),
        ("name,parent\ncat,<b>pet</b>\n", "markup"),
        ("name,parent\ncat,p\x07et\n", "control characters"),
        ("name,parent\n" + "cat,pet\n" * 100_000, "more than 100,000 lines"),
        ("name,parent\n" + "cat,a long word for a pet\n" * 100_000, "too large"),
    ],
)
def test_hierarchies_that_cannot_be_used_are_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    images = beside(tmp_path, text)
    with pytest.raises(BadInput, match=sentence):
        label_concepts(images, tmp_path, source_of(images, tmp_path))


def test_a_hierarchy_may_be_a_long_chain(tmp_path: Path) -> None:
    rows = "".join(f"k{n},k{n + 1}\n" for n in range(50_000))
    images = beside(tmp_path, f"name,parent\ncat,k0\nbat,k0\n{rows}")
    found = label_concepts(images, tmp_path, source_of(images, tmp_path))
    assert found.names[4:] == ("k0",)


def test_pictures_without_labels_have_no_concepts(tmp_path: Path) -> None:
    images = replace(image_set(["a.jpg", "b.jpg"]), labels=np.full(2, -1, np.int32))
    with pytest.raises(BadInput, match="no labels to explain with"):
        label_concepts(images, tmp_path, "")


def test_splits_follow_contents_not_order() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 1000, dtype=np.uint64)
    sources = np.arange(1000, dtype=np.int32)
    found = partition(hashes, sources)
    sizes = [len(part) for part in found]
    assert sum(sizes) == 1000
    assert sizes == pytest.approx([700, 100, 200], abs=45)
    order = rng.permutation(1000)
    moved = partition(hashes[order], sources)
    assert set(hashes[found.test]) == set(hashes[order][moved.test])
    fewer = partition(hashes[:900], sources[:900])
    assert set(fewer.test) == {each for each in found.test if each < 900}


def test_pictures_of_one_source_are_never_divided() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 900, dtype=np.uint64)
    sources = np.repeat(np.arange(300), 3).astype(np.int32)
    parts = partition(hashes, sources)
    owners = [set(sources[part]) for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 300
    assert [len(part) for part in parts] == pytest.approx([630, 90, 180], abs=70)


def test_a_set_that_is_too_small_is_one_sentence() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 30, dtype=np.uint64)
    with pytest.raises(BadInput, match="too small to split"):
        partition(hashes, np.arange(30, dtype=np.int32))


def test_calibration_finds_the_curve_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    cosine = rng.uniform(-0.2, 0.6, (2000, 40)).astype(np.float32)
    true = Curve(20.0, -0.3, True)
    member = rng.random(cosine.shape) < true(cosine)
    found = calibrate(cosine, member)
    assert found.scale == pytest.approx(20, abs=1)
    rare = member.mean()  # balancing moves the curve by the log odds of a concept
    assert found.offset == pytest.approx(-0.3 + np.log((1 - rare) / rare) / 20, abs=0.01)


def test_calibration_beats_the_papers_grid() -> None:
    rng = np.random.default_rng(1)
    cosine = rng.normal(0.1, 0.1, (300, 20)).astype(np.float32)
    member = rng.random(cosine.shape) < 1 / (1 + np.exp(-30 * (cosine - 0.2)))

    def loss(scale: float, offset: float) -> float:
        chance = np.clip(Curve(scale, offset, True)(cosine), 1e-7, 1 - 1e-7)
        return float(-np.log(chance[member]).mean() - np.log(1 - chance[~member]).mean())

    found = calibrate(cosine, member)
    grid = min(loss(a, b) for a in np.geomspace(0.1, 150, 40) for b in np.linspace(-1, 1, 81))
    assert loss(found.scale, found.offset) <= grid + 1e-4


def test_concepts_that_never_fire_or_never_vary_are_dropped() -> None:
    rng = np.random.default_rng(0)
    responses = rng.random((50, 4)).astype(np.float32)
    responses[:, 1] *= 0.3
    responses[:, 2] = 0.9
    assert speaking(responses).tolist() == [True, False, False, True]
