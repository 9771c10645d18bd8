"""Image sets and single pictures: what is found, and exactly which pixels a network sees."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.images import pictures, sets
from explorer.records import BadInput, Preprocess, Unavailable

NORM = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PREPROCESS = Preprocess(64, 56, "bilinear", *NORM)
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def put(root: Path, *paths: str) -> Path:
    for seed, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        noise(20, 16, seed).save(root / path)
    return root


def view(root: Path, name: str) -> np.ndarray:
    return pictures.view(root, name, PREPROCESS)


# Sets.


def test_class_folders_give_labels(tmp_path: Path) -> None:
    put(tmp_path, "dog/b.png", "cat/a.jpg", "cat/deep/er/c.webp")
    found = sets.open_set(str(tmp_path), tmp_path)
    assert found.paths == ("cat/a.jpg", "cat/deep/er/c.webp", "dog/b.png")
    assert [found.label(image) for image in range(3)] == ["cat", "cat", "dog"]
    assert found.labels.dtype == np.int32
    assert len(set(found.sources.tolist())) == 3
    assert found.name == tmp_path.name
    assert found.credits == ""


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    found = sets.open_set(str(put(tmp_path, "b.JPG", "a.png")), tmp_path)
    assert found.paths == ("a.png", "b.JPG")
    assert found.labels.tolist() == [-1, -1]
    assert found.label(0) == ""


def test_classes_csv_names_the_folders_beside_it(tmp_path: Path) -> None:
    put(tmp_path, "one/n2/a.png", "one/n1/b.png", "two/n1/c.png", "two/x/d.png")
    (tmp_path / "one" / "classes.csv").write_text("index,wnid,name\n0,n1,tench\n1,n2,crane\n")
    (tmp_path / "two" / "classes.csv").write_text("\ufefffolder,name\nn1,tench\n", "utf-8")
    found = sets.open_set(str(tmp_path), tmp_path)
    labels = {path: found.label(image) for image, path in enumerate(found.paths)}
    assert labels == {
        "one/n1/b.png": "tench",
        "one/n2/a.png": "crane",
        "two/n1/c.png": "tench",
        "two/x/d.png": "two",
    }
    assert found.label_names == ("tench", "crane", "two")


def test_two_classes_of_one_name_stay_apart(tmp_path: Path) -> None:
    put(tmp_path, "n1/a.png", "n2/b.png")
    (tmp_path / "classes.csv").write_text("wnid,name\nn1,crane\nn2,crane\n")
    assert sets.open_set(str(tmp_path), tmp_path).label_names == ("crane (n1)", "crane (n2)")


def test_pictures_csv_lists_labels_sources_and_captions(tmp_path: Path) -> None:
    put(tmp_path, "a-1.png", "a-2.png", "b.png", "masks/a-1.png")
    (tmp_path / "CREDITS.txt").write_text("By someone.\n")
    (tmp_path / "pictures.csv").write_text(
        "path,label,source,caption\na-1.png,bird,a,a toucan\na-2.png,bird,a,\nb.png,,,\n"
    )
    found = sets.open_set(str(tmp_path), tmp_path)
    assert found.paths == ("a-1.png", "a-2.png", "b.png")
    assert [found.label(image) for image in range(3)] == ["bird", "bird", ""]
    assert found.sources[0] == found.sources[1] != found.sources[2]
    assert found.credits == "By someone."
    assert sets.caption(found.root, "a-1.png") == "a toucan"
    assert sets.caption(found.root, "b.png") == ""
    assert sets.caption(str(tmp_path / "masks"), "a-1.png") == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.csv", "wnid\nn1\n"),
        ("classes.csv", "index,name\n0,tench\n"),
        ("pictures.csv", "label\nbird\n"),
        ("pictures.csv", "path\nmissing.png\n"),
        ("pictures.csv", "path\n../outside.png\n"),
    ],
)
def test_a_wrong_list_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path / "set", "n1/a.png")
    put(tmp_path, "outside.png")
    (tmp_path / "set" / name).write_text(text)
    with pytest.raises(BadInput, match=name):
        sets.open_set(str(tmp_path / "set"), tmp_path)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "n1/a.png")
    (tmp_path / "classes.csv").write_bytes(b"wnid,name\n\xff\xfe\x00\n")
    with pytest.raises(BadInput, match=r"classes\.csv"):
        sets.open_set(str(tmp_path), tmp_path)


def test_hidden_files_and_links_out_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "set", "in.png", ".hidden.png", ".trash/a.png", "sub/b.png")
    put(tmp_path / "other", "out.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "other" / "out.png")
    (tmp_path / "set" / "inner.png").symlink_to(tmp_path / "set" / "in.png")
    (tmp_path / "set" / "folder").symlink_to(tmp_path / "other")
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "dangling.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "set" / "notes.txt").write_text("no picture")
    found = sets.open_set(str(tmp_path / "set"), tmp_path)
    assert found.paths == ("in.png", "inner.png", "sub/b.png")


def test_broken_files_are_listed_for_the_scan_to_count(tmp_path: Path) -> None:
    put(tmp_path, "good.png")
    (tmp_path / "empty.jpg").touch()
    assert sets.open_set(str(tmp_path), tmp_path).paths == ("empty.jpg", "good.png")


@pytest.mark.parametrize("images", ["", "  ", "no/such/folder", "nul\0byte", "empty"])
def test_a_useless_folder_is_one_sentence(tmp_path: Path, images: str) -> None:
    (tmp_path / "empty").mkdir()
    place = str(tmp_path / "empty") if images == "empty" else images
    for ask in (sets.open_set, sets.fingerprint):
        with pytest.raises(BadInput) as caught:
            ask(place, tmp_path)
        assert str(caught.value).endswith(".")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "locked/b.png")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(BadInput, match="locked"):
            sets.open_set(str(tmp_path), tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_the_digest_follows_contents_and_paths_alone(tmp_path: Path) -> None:
    first = put(tmp_path / "first", "x/a.png", "y/b.png")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    digest = sets.open_set(str(first), tmp_path).digest
    assert sets.open_set(str(second), tmp_path).digest == digest
    (second / "x" / "a.png").rename(second / "x" / "c.png")
    renamed = sets.open_set(str(second), tmp_path).digest
    noise(20, 16, 9).save(first / "x" / "a.png")
    assert len({digest, renamed, sets.open_set(str(first), tmp_path).digest}) == 3


def test_the_fingerprint_notices_every_change(tmp_path: Path) -> None:
    root = put(tmp_path / "set", "x/a.png")
    seen = [sets.fingerprint(str(root), tmp_path)]
    assert sets.fingerprint(str(root), tmp_path) == seen[0]
    put(root, "x/b.png")
    seen.append(sets.fingerprint(str(root), tmp_path))
    os.utime(root / "x" / "a.png", ns=(1, 1))
    seen.append(sets.fingerprint(str(root), tmp_path))
    (root / "classes.csv").write_text("wnid,name\nx,ex\n")
    seen.append(sets.fingerprint(str(root), tmp_path))
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    seen.append(sets.fingerprint(str(moved), tmp_path))
    assert len(set(seen)) == len(seen)


def test_a_named_set_that_is_absent_has_no_fingerprint(tmp_path: Path) -> None:
    assert sets.fingerprint("demo", tmp_path) == ""
    assert sets.fingerprint("imagenette", tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_indexing_reports_and_can_be_stopped(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    seen: list[tuple[float, str]] = []
    sets.open_set(str(tmp_path), tmp_path, lambda *step: seen.append(step))
    assert seen[-1] == (1.0, "Indexing pictures: 2 of 2")

    def stop(fraction: float, message: str) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sets.open_set(str(tmp_path), tmp_path, stop)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared pictures here")
def test_two_collections_open_as_one_folder() -> None:
    found = sets.folders.survey(SHARED)
    names = sets.folders.folder_names(SHARED, found.sidecars)
    label = sets.folders.folder_label("imagenette/n01440764/x.jpg", names)
    assert label == ("n01440764", "tench")
    assert label == sets.folders.folder_label("imagenet1000/n01440764/y.jpg", names)
    assert not any(file.path.endswith(".csv") for file in found.pictures)


# Imagenette, from a small archive of the same form.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    from torchvision.datasets import Imagenette

    path = tmp_path / "imagenette2-320.tgz"
    content = io.BytesIO()
    noise(40, 30).save(content, "JPEG")
    with tarfile.open(path, "w:gz") as tar:
        for wnid in Imagenette._WNID_TO_CLASS:
            member = tarfile.TarInfo(f"imagenette2-320/val/{wnid}/picture.JPEG")
            member.size = content.tell()
            tar.addfile(member, io.BytesIO(content.getvalue()))
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        monkeypatch.setitem(Imagenette._ARCHIVES, "320px", (url, digest))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_imagenette_is_downloaded_once(tmp_path: Path, archive: Path) -> None:
    data = tmp_path / "data"
    found = sets.open_set("imagenette", data)
    assert found.name == "imagenette"
    assert len(found) == 10
    assert found.label_names[:2] == ("tench", "English springer")
    assert "ImageNet" in found.credits
    archive.unlink()
    assert sets.open_set("imagenette", data).digest == found.digest
    assert sets.fingerprint("imagenette", data) != ""
    assert [path.name for path in data.iterdir()] == ["imagenette"]


def test_imagenette_offline_says_what_to_do(tmp_path: Path, archive: Path) -> None:
    archive.unlink()
    with pytest.raises(Unavailable, match="connect to the internet"):
        sets.open_set("imagenette", tmp_path / "data")
    assert not (tmp_path / "data").exists()


# Pictures: the pixels.


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "resize", "crop"),
    [
        ((500, 375), 256, 224),
        ((375, 500), 256, 224),
        ((333, 257), 256, 224),
        ((256, 341), 256, 224),
        ((61, 47), 235, 224),
        ((300, 300), 224, 224),
        ((91, 200), 65, 60),
        ((200, 92), 63, 60),
        ((50, 90), 40, 64),
        ((90, 41), 40, 57),
    ],
)
def test_a_view_equals_torchvision(
    tmp_path: Path, size: tuple[int, int], resize: int, crop: int, interpolation: str
) -> None:
    from torchvision import transforms

    noise(*size).save(tmp_path / "a.png")
    mode = transforms.InterpolationMode(interpolation)
    expected = transforms.Compose([transforms.Resize(resize, mode), transforms.CenterCrop(crop)])(
        Image.open(tmp_path / "a.png").convert("RGB")
    )
    seen = pictures.view(tmp_path, "a.png", Preprocess(resize, crop, interpolation, *NORM))
    np.testing.assert_array_equal(seen, np.asarray(expected))
    assert seen.dtype == np.uint8
    assert seen.flags.writeable


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared pictures here")
def test_views_of_photographs_equal_torchvision() -> None:
    from torchvision import transforms

    pipeline = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
        ]
    )
    preprocess = Preprocess(256, 224, "bicubic", *NORM)
    root = SHARED / "imagenet1000"
    for path in sorted(root.rglob("*.jpg"))[:400:20]:
        with Image.open(path) as image:
            expected = pipeline(image.convert("RGB"))
        seen = pictures.view(root, path.relative_to(root).as_posix(), preprocess)
        np.testing.assert_array_equal(seen, np.asarray(expected))


def red(mode: str) -> Image.Image:
    return Image.new("RGB", (80, 70), (200, 30, 40)).convert(mode)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("cmyk.jpg", red("CMYK")),
        ("palette.png", red("P")),
        ("palette.gif", red("P")),
        ("plain.bmp", red("RGB")),
        ("plain.webp", red("RGB")),
        ("cmyk.tif", red("CMYK")),
    ],
)
def test_every_colour_mode_keeps_its_colour(tmp_path: Path, name: str, image: Image.Image) -> None:
    image.save(tmp_path / name)
    mean = view(tmp_path, name).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(mean, (200, 30, 40), atol=26)


def test_deep_grey_is_scaled_to_eight_bits(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tif")
    Image.fromarray((ramp * 3).astype(np.int32)).save(tmp_path / "wide.tif")
    expected = np.rint(ramp / 257)[4:60, 4:60]
    for name in ("deep.png", "float.tif", "wide.tif"):
        difference = view(tmp_path, name)[..., 0] - expected
        assert np.abs(difference).max() <= 1, name


def test_a_black_deep_picture_stays_black(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 64), np.float32)).save(tmp_path / "black.tif")
    assert view(tmp_path, "black.tif").max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(tmp_path: Path, mode: str) -> None:
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).convert(mode).save(tmp_path / "clear.png")
    assert view(tmp_path, "clear.png").min() == 255


def test_a_transparent_palette_lies_over_white(tmp_path: Path) -> None:
    Image.new("P", (64, 64), 0).save(tmp_path / "clear.gif", transparency=0)
    Image.new("P", (64, 64), 0).save(tmp_path / "bytes.png", transparency=b"\x00")
    assert view(tmp_path, "clear.gif").min() == view(tmp_path, "bytes.png").min() == 255


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_shows_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    mean = view(tmp_path, path.name).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(mean, (255, 0, 0), atol=8)


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = noise(40, 60)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    np.testing.assert_array_equal(view(tmp_path, "turned.png"), view(tmp_path, "upright.png"))


def truncated(path: Path) -> None:
    noise(200, 200).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:3000])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.touch(),
        lambda path: path.write_bytes(b"\xff\xd8\xff\xe0 nothing"),
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"),
        lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"),
        lambda path: path.mkdir(),
        lambda path: None,
        truncated,
    ],
)
def test_a_broken_picture_is_named(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    (tmp_path / "sub").mkdir()
    spoil(tmp_path / "sub" / "broken.jpg")
    with pytest.raises(BadInput, match=r"'sub/broken\.jpg' cannot be read"):
        view(tmp_path, "sub/broken.jpg")


@pytest.mark.parametrize("size", [(10_100, 10_000), (20_000, 10_100)])
def test_a_huge_picture_is_refused_before_decoding(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(tmp_path / "huge.png")
    with pytest.raises(BadInput, match="100 megapixels"):
        view(tmp_path, "huge.png")


def test_a_thread_of_pixels_is_refused(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1)).save(tmp_path / "thread.png")
    with pytest.raises(BadInput, match="too long and thin"):
        view(tmp_path, "thread.png")


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "link.png", "a\0b.png", ""])
def test_no_path_leaves_the_root(tmp_path: Path, path: str) -> None:
    put(tmp_path, "secret.png")
    root = put(tmp_path / "set", "a.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(BadInput, match="outside its folder"):
        view(root, path)


def test_an_unknown_interpolation_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    with pytest.raises(BadInput, match="nonsense"):
        pictures.view(tmp_path, "a.png", Preprocess(64, 56, "nonsense", *NORM))


def test_images_need_no_torch() -> None:
    import subprocess

    code = (
        "import sys, explorer.images.sets, explorer.images.pictures, explorer.images.thumbnails;"
        "sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
