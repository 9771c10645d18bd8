"""Pictures decoded ahead, in this process or by others: the same pixels, and no picture that hangs
or is broken stops the rest."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from explorer.compute import decoding
from explorer.compute.decoding import Decoder, Views
from explorer.images.pictures import view
from explorer.images.reader import Reader
from explorer.records import BadInput, Preprocess

LOOK = Preprocess(24, 16, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BROKEN, NAMES = "broken.png", ("a b.png", "ü-日.png", '"quoted".png', "-.png")


CHILDREN = pytest.mark.skipif(
    not Path("/proc/thread-self/children").exists(),
    reason="Nothing says whose children.",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of noise, some with odd names, and one that is none."""
    drawn = np.random.default_rng(0)
    for name in (*NAMES, *(f"{number}.png" for number in range(20))):
        Image.fromarray(drawn.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / BROKEN).write_bytes(b"no picture")
    return tmp_path


@pytest.fixture
def reader(folder: Path) -> Iterator[Reader]:
    made = Reader(str(folder), LOOK)
    yield made
    made.close()


def taken(reader: Reader, path: str) -> np.ndarray:
    out = np.full((LOOK.crop, LOOK.crop, 3), 7, np.uint8)
    reader.take(path, out)
    return out


def test_another_process_reads_the_same_pixels(folder: Path, reader: Reader) -> None:
    for paths in (NAMES, ("3.png", "1.png", "3.png")):
        reader.begin(paths)
        for path in paths:
            assert np.array_equal(taken(reader, path), view(folder, path, LOOK))


@pytest.mark.parametrize("path", [BROKEN, "missing.png", "../outside.png", "\udce4.png"])
def test_it_refuses_in_the_same_words(folder: Path, reader: Reader, path: str) -> None:
    with pytest.raises(BadInput) as truth:
        view(folder, path, LOOK)
    reader.begin([path, "1.png"])
    with pytest.raises(BadInput) as told:
        taken(reader, path)
    assert str(told.value) == str(truth.value)
    assert np.array_equal(taken(reader, "1.png"), view(folder, "1.png", LOOK))


def test_without_the_process_pictures_are_read_here(folder: Path, reader: Reader) -> None:
    os.kill(reader._process.pid, signal.SIGKILL)
    reader._process.wait()
    for path in ("1.png", "2.png"):
        reader.begin([path])
        assert np.array_equal(taken(reader, path), view(folder, path, LOOK))


def test_who_waits_for_a_reader_that_is_ended_hears_of_it(folder: Path, reader: Reader) -> None:
    os.mkfifo(folder / "never.png")
    reader.begin(["never.png"])
    threading.Timer(0.2, reader.end).start()
    with pytest.raises(EOFError):
        taken(reader, "never.png")


def decoded(folder: Path, paths: list[str], **how: int) -> list[Views]:
    return list(Decoder(str(folder), LOOK, **how).batches(paths))  # type: ignore[arg-type]


@pytest.mark.parametrize("apart", [False, True])
def test_parts_make_up_the_batches(folder: Path, apart: bool) -> None:
    paths = [f"{number}.png" for number in range(20)]
    paths[11] = BROKEN
    truth = decoded(folder, paths, batch=8)
    found = decoded(folder, paths, batch=8, threads=3, part=3, apart=apart)
    assert [len(views.pixels) for views in found] == [8, 8, 4]
    assert [[offset for offset, *_ in views.unreadable] for views in found] == [[], [3], []]
    for one, other in zip(found, truth, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.unreadable == other.unreadable
    assert not found[1].pixels[3].any()


def test_a_picture_that_hangs_in_another_process_is_set_aside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "GLANCE_SECONDS", 0.05)
    monkeypatch.setattr(decoding, "PATIENCE_SECONDS", 5.0)  # a process takes a while to begin
    os.mkfifo(folder / "never.png")
    paths = [f"{number}.png" for number in range(12)]
    paths[5] = "never.png"
    found = decoded(folder, paths, batch=6, threads=2, part=2, apart=True)
    told = [each for views in found for each in views.unreadable]
    assert [(offset, path) for offset, path, _ in told] == [(5, "never.png")]
    assert "was not decoded in" in told[0][2]
    for number, path in enumerate(paths):
        if number != 5:
            pixels = found[number // 6].pixels[number % 6]
            assert np.array_equal(pixels, view(folder, path, LOOK)), path


@CHILDREN
def test_whoever_stops_in_the_middle_leaves_no_process_behind(folder: Path) -> None:
    paths = [f"{number}.png" for number in range(20)]
    batches = Decoder(str(folder), LOOK, 4, threads=2, part=2, apart=True).batches(paths)
    next(batches)
    assert readers()
    batches.close()
    end = time.monotonic() + 20
    while readers() and time.monotonic() < end:
        time.sleep(0.05)
    assert not readers()


@CHILDREN
def test_processes_are_kept_for_the_next_pictures(folder: Path) -> None:
    decoder = Decoder(str(folder), LOOK, 4, threads=2, part=2, apart=True, kept=True)
    for paths in (["1.png"], list(NAMES), ["3.png", "2.png", BROKEN, "1.png", "5.png"]):
        before = set(readers())
        found = list(decoder.batches(paths))
        assert before <= set(readers())
        assert len(readers()) <= 2
        pixels = np.concatenate([views.pixels for views in found])
        for path, each in zip(paths, pixels, strict=True):
            assert path == BROKEN or np.array_equal(each, view(folder, path, LOOK))
    batches = decoder.batches([f"{number}.png" for number in range(20)])
    next(batches)
    batches.close()
    (views,) = decoder.batches(["7.png"])
    assert np.array_equal(views.pixels[0], view(folder, "7.png", LOOK))
    decoder._dismiss(())


def readers() -> list[int]:
    """Processes of this one that read pictures; looked for again where a thread or one of them
    ended meanwhile."""
    while True:
        with suppress(FileNotFoundError, ProcessLookupError):
            return _readers()


def _readers() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"explorer.images.reader" in words:
                found.append(int(child))
    return found


def test_without_processes_threads_decode(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(decoding, "Reader", refused)
    (views,) = decoded(folder, list(NAMES), batch=4, threads=2, part=1, apart=True)
    for pixels, path in zip(views.pixels, NAMES, strict=True):
        assert np.array_equal(pixels, view(folder, path, LOOK))
