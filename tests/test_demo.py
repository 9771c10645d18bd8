"""The demo set, from a miniature of the two packages that it is made of."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.images import demo, packages, photographs, rcc, scenes, sets, stamps
from explorer.records import Unavailable


def photograph(width: int = 90, height: int = 70, seed: int = 0) -> Image.Image:
    """A noisy, opaque ellipse on clear ground, as a cut-out photograph is."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 4), dtype=np.uint8)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    pixels[..., 3] = np.where(x * x + y * y < 0.9, 255, 0)
    return Image.fromarray(pixels)


def drawing(flat: bool = True) -> Image.Image:
    if flat:
        return Image.new("RGBA", (90, 70), (200, 10, 10, 255))
    ramp = np.zeros((70, 90, 4), np.uint8)
    ramp[...] = np.linspace(0, 255, 90).astype(np.uint8)[None, :, None]
    ramp[..., 3] = 255
    return Image.fromarray(ramp)


def resource_file(files: dict[str, bytes], version: int = 3, squeeze: bool = False) -> bytes:
    """A Qt resource file with all files in one folder, as Qt's compiler lays it out."""
    names, data, nodes = b"", b"", []
    time = b"" if version == 1 else bytes(8)

    def named(name: str) -> int:
        nonlocal names
        offset = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        return offset

    nodes.append(struct.pack(">IHII", 0, 2, 1, 1) + time)
    nodes.append(struct.pack(">IHII", named("pictures"), 2, len(files), 2) + time)
    for name, content in files.items():
        offset = len(data)
        if squeeze:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        data += struct.pack(">I", len(content)) + content
        nodes.append(struct.pack(">IHHHI", named(name), int(squeeze), 0, 0, offset) + time)
    head = 20 if version < 3 else 24
    tree = b"".join(nodes)
    offsets = (head, head + len(tree), head + len(tree) + len(data))
    blob = b"qres" + struct.pack(">4I", version, *offsets) + bytes(head - 20)
    return blob + tree + data + names


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A root folder with both packages: two photographs, two drawings, one resource file."""
    root = tmp_path / "system"
    stamp_root = root / demo.PACKAGES["tuxpaint-stamps-default"]
    drawn = {"animals/birds/toucan": photograph(), "food/fruit/apple": photograph(seed=1)}
    drawn |= {"animals/birds/sketch": drawing(), "food/cartoon/pie": photograph(seed=2)}
    drawn |= {"food/fruit/apple_mirror": photograph(seed=1)}
    for name, image in drawn.items():
        path = stamp_root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    text = "A toucan. It flies!\nde.utf8=Ein Tukan.\n"
    (stamp_root / "animals/birds/toucan.txt").write_text(text, "utf-8")
    resource_root = root / demo.PACKAGES["gcompris-qt-data"]
    resource_root.mkdir(parents=True)
    files = {"kingfisher.webp": webp(400, 350), "README": b"text", "dog.webp": webp(90, 80)}
    (resource_root / "erase.rcc").write_bytes(resource_file(files))
    (resource_root / "lang.rcc").write_bytes(resource_file({"cartoon.webp": webp(50, 50)}))
    for name in demo.PACKAGES:
        path = root / "usr/share/doc" / name / "copyright"
        path.parent.mkdir(parents=True)
        path.write_text(f"Copyright of {name}.\n")
    return root


def webp(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    photograph(width, height).convert("RGB").save(buffer, "WEBP")
    return buffer.getvalue()


def silent(fraction: float, message: str) -> None:
    """Report to no one."""


# The set.


def test_the_demo_holds_scenes_and_photographs(tmp_path: Path, system: Path) -> None:
    data = tmp_path / "data"
    demo.prepare(data, silent, system)
    found = sets.open_set("demo", data)
    assert found.paths == (
        "photographs/erase/pictures/dog.jpg",
        "photographs/erase/pictures/kingfisher.jpg",
        *(f"scenes/animals/birds/toucan-{variant}.jpg" for variant in (1, 2, 3)),
        *(f"scenes/food/fruit/apple-{variant}.jpg" for variant in (1, 2, 3)),
    )
    assert [found.label(image) for image in (0, 1, 2, 5)] == ["mammals", "birds", "birds", "fruit"]
    assert len(set(found.sources.tolist())) == 4
    assert len(set(found.sources[2:5].tolist())) == 1
    assert sets.caption(found.root, found.paths[2]) == "a toucan"
    assert sets.caption(found.root, found.paths[5]) == "apple"
    assert "GPL-2" in found.credits
    assert "GCompris" in found.credits
    for name in demo.PACKAGES:
        assert name in (Path(found.root) / "copyright" / f"{name}.txt").read_text()


def test_every_scene_keeps_its_mask(tmp_path: Path, system: Path) -> None:
    root = demo.prepare(tmp_path / "data", silent, system)
    for path in root.glob("scenes/**/*.jpg"):
        mask = root / "masks" / path.relative_to(root).with_suffix(".png")
        with Image.open(path) as scene, Image.open(mask) as image:
            assert scene.size == image.size == (scenes.SIDE, scenes.SIDE)
            assert 0.02 < np.asarray(image, float).mean() / 255 < 0.7


def test_large_photographs_are_reduced(tmp_path: Path, system: Path) -> None:
    root = demo.prepare(tmp_path / "data", silent, system)
    with Image.open(root / "photographs/erase/pictures/kingfisher.jpg") as image:
        assert image.size == (366, 320)
    with Image.open(root / "photographs/erase/pictures/dog.jpg") as image:
        assert image.size == (90, 80)


def test_the_same_packages_give_the_same_set(tmp_path: Path, system: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        demo.prepare(tmp_path / name, silent, system)
        digests.add(sets.open_set("demo", tmp_path / name).digest)
    assert len(digests) == 1


def test_preparing_again_changes_nothing(tmp_path: Path, system: Path) -> None:
    data = tmp_path / "data"
    root = demo.prepare(data, silent, system)
    before = sets.fingerprint("demo", data)
    assert demo.prepare(data, silent, tmp_path / "nowhere") == root
    assert sets.fingerprint("demo", data) == before
    assert [path.name for path in data.iterdir()] == ["demo"]


def test_a_broken_off_or_old_set_is_made_anew(tmp_path: Path, system: Path) -> None:
    data = tmp_path / "data"
    (data / "demo").mkdir(parents=True)
    (data / "demo" / "half.jpg").write_text("half")
    assert demo.found(data) is None
    (data / "demo" / "manifest.json").write_text('{"version": 0}')
    assert demo.found(data) is None
    root = demo.prepare(data, silent, system)
    assert demo.found(data) == root
    assert not (root / "half.jpg").exists()
    assert [path.name for path in data.iterdir()] == ["demo"]


def test_a_withdrawn_preparation_leaves_nothing(tmp_path: Path, system: Path) -> None:
    class WithdrawnError(Exception):
        pass

    def withdraw(fraction: float, message: str) -> None:
        raise WithdrawnError

    with pytest.raises(WithdrawnError):
        demo.prepare(tmp_path / "data", withdraw, system)
    assert list((tmp_path / "data").iterdir()) == []


def test_what_a_kill_left_behind_is_swept_a_day_later(tmp_path: Path, system: Path) -> None:
    data = tmp_path / "data"
    for name in (".demo-old", ".demo-new"):
        (data / name).mkdir(parents=True)
    os.utime(data / ".demo-old", (1, 1))
    demo.prepare(data, silent, system)
    assert sorted(path.name for path in data.iterdir()) == [".demo-new", "demo"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, system: Path) -> None:
    (tmp_path / "data").write_text("a file, no folder")
    with pytest.raises(Unavailable, match="EXPLORER_CACHE_DIR"):
        demo.prepare(tmp_path / "data", silent, system)


def test_packages_without_photographs_are_one_sentence(tmp_path: Path) -> None:
    for path in demo.PACKAGES.values():
        (tmp_path / "system" / path).mkdir(parents=True)
    with pytest.raises(Unavailable, match="no photographs"):
        demo.prepare(tmp_path / "data", silent, tmp_path / "system")


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("tuxpaint-stamps-default", "animals/birds/toucan.png"),
        ("gcompris-qt-data", "erase.rcc"),
    ],
)
def test_a_damaged_package_is_named(tmp_path: Path, system: Path, package: str, name: str) -> None:
    path = system / demo.PACKAGES[package] / name
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(Unavailable, match=f"{path.name} is damaged"):
        demo.prepare(tmp_path / "data", silent, system)
    assert list((tmp_path / "data").iterdir()) == []


# Fetching, with stand-ins for apt and dpkg.


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apt: str) -> Path:
    """Ask for one package that the system lacks, from the apt that ``apt`` scripts."""
    tools = tmp_path / "tools"
    tool(tools, "apt-get", apt)
    tool(tools, "dpkg-deb", 'mkdir -p "$3/usr/share/thing"')
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    scratch = tmp_path / "scratch"
    wanted = {"thing-data": "usr/share/thing"}
    assert packages.locate(wanted, tmp_path / "none", scratch, silent) == {"thing-data": scratch}
    return scratch


def test_apt_downloads_what_the_system_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = fetch(tmp_path, monkeypatch, 'echo "$@" >> ../calls; touch thing.deb')
    assert (scratch / "calls").read_text().rstrip().endswith("download thing-data")
    assert list((scratch / "packages").iterdir()) == []


def test_empty_package_lists_are_read_anew_without_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = """echo "$@" >> ../calls
case "$*" in
*update*) touch ../updated ;;
*) [ -e ../updated ] && touch thing.deb || { echo 'E: Unable to locate package'; exit 100; } ;;
esac"""
    calls = (fetch(tmp_path, monkeypatch, apt) / "calls").read_text().splitlines()
    assert [call.split()[-1] for call in calls] == ["thing-data", "update", "thing-data"]
    assert all("Dir::State=" in call for call in calls[1:])


def test_apt_offline_is_one_sentence_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match=r"Temporary failure.*sudo apt-get update.*imagenette"):
        fetch(tmp_path, monkeypatch, "echo 'E: Temporary failure resolving'; exit 100")


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match="apt-get is missing"):
        demo.prepare(tmp_path / "data", silent, tmp_path / "none")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_withdrawn_download_ends_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(fraction: float, message: str) -> None:
        if pid.is_file() and pid.read_text().strip():
            raise KeyboardInterrupt

    tools = tmp_path / "tools"
    tool(tools, "apt-get", "echo $$ > ../pid; exec sleep 60")
    tool(tools, "dpkg-deb", "")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    scratch = tmp_path / "scratch"
    pid = scratch / "pid"
    with pytest.raises(KeyboardInterrupt):
        packages.locate({"thing": "usr/thing"}, tmp_path / "none", scratch, stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


# Stamps, scenes and photographs.


def test_photographs_are_told_from_drawings() -> None:
    assert scenes.photographic(photograph())
    assert not scenes.photographic(drawing())
    assert not scenes.photographic(drawing(flat=False))
    assert not scenes.photographic(photograph(30, 30))
    assert not scenes.photographic(Image.new("RGBA", (90, 70)))


def test_variants_differ_and_are_repeatable() -> None:
    made = [np.asarray(scenes.scene(photograph(), "bird", variant)[0]) for variant in (0, 1, 0)]
    assert not np.array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


@pytest.mark.parametrize("size", [(60, 40), (20, 300), (400, 90), (500, 500), (1, 1)])
def test_the_object_stays_in_what_the_network_sees(size: tuple[int, int]) -> None:
    thing = Image.new("RGBA", size, (9, 9, 9, 255))
    for variant in range(8):
        box = scenes.scene(thing, "thing", variant)[1].getbbox()
        assert box is not None
        assert min(box) >= 0.07 * scenes.SIDE
        assert max(box) <= 0.93 * scenes.SIDE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A toucan.", "a toucan"),
        ("An orange, also called bitter. Sour!", "an orange, also called bitter"),
        ("Jupiter", "Jupiter"),
        ("", ""),
    ],
)
def test_captions_are_the_first_sentence(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.txt").write_text(f"{text}\nde.utf8=Anders.\n", "utf-8")
    assert stamps.caption(tmp_path / "a.txt") == expected


def test_names_of_files_become_captions() -> None:
    assert photographs.caption("leaningTowerOfPisa") == "leaning tower of pisa"
    assert photographs.caption("long_nosed_monkey") == "long nosed monkey"
    assert photographs.caption("fish16") == "fish"


# Qt resource files.


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("squeeze", [False, True])
def test_resources_are_read_back(version: int, squeeze: bool) -> None:
    files = {"a.webp": b"first" * 50, "b\N{LATIN SMALL LETTER U WITH DIAERESIS}.txt": b""}
    blob = resource_file(files, version, squeeze)
    expected = {f"/pictures/{name}": content for name, content in files.items()}
    assert dict(rcc.resources(blob)) == expected


def test_damaged_resources_are_a_value_error_and_never_hang() -> None:
    blob = resource_file({"a.webp": bytes(range(256)) * 4}, squeeze=True)
    random = np.random.default_rng(0)
    for trial in range(300):
        damaged = bytearray(blob if trial % 3 else blob[: random.integers(0, len(blob))])
        for _ in range(3):
            if damaged:
                damaged[random.integers(0, min(len(damaged), 120))] = random.integers(0, 256)
        try:
            found = list(rcc.resources(bytes(damaged)))
        except ValueError:
            continue
        assert len(found) <= len(blob)


def test_a_loop_in_the_tree_is_refused() -> None:
    blob = bytearray(resource_file({"a": b"x"}))
    struct.pack_into(">II", blob, 24 + 22 + 6, 1, 0)
    with pytest.raises(ValueError, match="loop"):
        list(rcc.resources(bytes(blob)))


def test_a_resource_that_swells_is_refused() -> None:
    blob = resource_file({"bomb": bytes(60_000_000)}, squeeze=True)
    with pytest.raises(ValueError, match="implausibly large"):
        list(rcc.resources(blob))


# The real packages, where they are installed.


@pytest.mark.skipif(
    not all((Path("/") / path).exists() for path in demo.PACKAGES.values()),
    reason="the demo's packages are not installed",
)
def test_the_real_packages_give_the_set_that_is_described(tmp_path: Path) -> None:
    demo.prepare(tmp_path, silent)
    found = sets.open_set("demo", tmp_path)
    assert 1_050 < len(found) < 1_250
    assert 520 < len(set(found.sources.tolist())) < 600
    assert {"birds", "mammals", "fruit", "monuments"} <= set(found.label_names)
