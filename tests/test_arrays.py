"""Scans on disk: exact, resumable after a kill, never half read."""

import errno
import json
import os
import stat

import numpy as np
import pytest

from explorer import scan_files, scan_writer
from explorer.arrays import ScanArrays
from explorer.records import BadInput, Layer, Unavailable

IMAGES = 50
BATCH = 8


def stored(folder) -> ScanArrays:
    """The scans in a folder, under one identity wherever it lies."""
    return ScanArrays(folder / "scan")


def layer(name: str, channels: int = 6, side: int = 7) -> Layer:
    return Layer(name, channels, side, side, True, None, (), "")


LAYERS = [layer("blocks.5.3.bn2"), layer("layer1/0 relu", 3, 300)]


def values(which: Layer, start: int, end: int):
    """What a network would give for images start to end; some are beyond half precision."""
    images = np.arange(start, end)[None] + np.arange(which.channels)[:, None] * 1000.0
    maximum = (np.sin(images) * 1e5).astype(np.float32)
    position = (images.astype(np.int64) * 7919) % (which.height * which.width)
    return maximum, np.cos(images).astype(np.float32), position


def batches(start: int, layers, images: int = IMAGES):
    for first in range(start, images, BATCH):
        last = min(first + BATCH, images)
        unreadable = [(11 - first, "bad.jpg", "truncated")] if first <= 11 < last else []
        yield {one.name: values(one, first, last) for one in layers}, unreadable


def scan(folder, layers=LAYERS, images: int = IMAGES, stop: int | None = None) -> None:
    """Scan to the end, or leave as a killed process would after ``stop`` batches."""
    writer = stored(folder).writer(layers, images)
    try:
        starting = batches(writer.gaps[0][0] if writer.gaps else images, layers, images)
        for number, batch in enumerate(starting):
            if number == stop:
                return
            writer.append(*batch)
        writer.finish()
    finally:
        writer.close()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".npy", ".json")
    }


@pytest.fixture
def often(monkeypatch):
    """Blocks of two batches."""
    monkeypatch.setattr(scan_writer, "BLOCK_IMAGES", 2 * BATCH)


@pytest.fixture
def sharded(monkeypatch, often):
    """Shards of 24 pictures: two whole ones, and one of two pictures."""
    monkeypatch.setattr(scan_writer, "SHARD_IMAGES", 24)


def test_a_scan_is_read_as_it_was_written(tmp_path) -> None:
    scan(tmp_path)
    for one in LAYERS:
        found = stored(tmp_path).read(one.name)
        maximum, mean, position = values(one, 0, IMAGES)
        expected = np.clip(maximum, -65504, 65504).astype(np.float16)
        expected[:, 11] = -np.inf
        mean[:, 11], position[:, 11] = 0, 0
        np.testing.assert_array_equal(found.maximum[:], expected)
        np.testing.assert_array_equal(found.mean[:], mean.astype(np.float16))
        np.testing.assert_array_equal(found.position[:], position)
        assert np.flatnonzero(~found.valid).tolist() == [11]
        assert found.skipped == (("bad.jpg", "truncated"),)


def test_types_order_and_protection(tmp_path) -> None:
    scan(tmp_path)
    small, large = (stored(tmp_path).read(one.name) for one in LAYERS)
    assert (small.maximum.dtype, small.mean.dtype) == (np.float16, np.float16)
    assert (small.position.dtype, large.position.dtype) == (np.uint16, np.uint32)
    with pytest.raises(TypeError, match="read in parts"):
        np.asarray(small.maximum)
    for path in tmp_path.rglob("*"):
        if path.is_dir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_progress(tmp_path, often) -> None:
    found = stored(tmp_path)
    assert found.progress("blocks.5.3.bn2") == 0
    scan(tmp_path, stop=5)
    assert found.progress("blocks.5.3.bn2") == 32 / IMAGES
    assert found.read("blocks.5.3.bn2") is None
    scan(tmp_path)
    assert found.progress("blocks.5.3.bn2") == 1
    assert found.size() > 0


@pytest.mark.parametrize("stop", range(6))
def test_a_killed_scan_resumes_to_the_same_bytes(tmp_path, often, stop) -> None:
    scan(tmp_path / "whole")
    scan(tmp_path / "killed", stop=stop)
    scan(tmp_path / "killed", stop=1)
    with stored(tmp_path / "killed").writer(LAYERS, IMAGES) as writer:
        assert writer.gaps == ((stop // 2 * 2 * BATCH, IMAGES),)
    scan(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_an_exception_keeps_what_was_appended(tmp_path) -> None:
    def fail() -> None:
        with stored(tmp_path).writer(LAYERS, IMAGES) as writer:
            for batch in batches(0, LAYERS):
                writer.append(*batch)
                if writer.missing == IMAGES - 3 * BATCH:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with stored(tmp_path).writer(LAYERS, IMAGES) as writer:
        assert writer.gaps == ((3 * BATCH, IMAGES),)


def test_blocks_are_written_in_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scan_writer, "BLOCK_SECONDS", 0.0)
    scan(tmp_path, stop=2)
    assert stored(tmp_path).progress("blocks.5.3.bn2") == 2 * BATCH / IMAGES


def test_layers_that_are_complete_are_left_alone(tmp_path, often) -> None:
    scan(tmp_path, LAYERS[:1])
    before = contents(tmp_path)
    writer = stored(tmp_path).writer(LAYERS, IMAGES)
    assert (writer.layers, writer.gaps) == ((LAYERS[1].name,), ((0, IMAGES),))
    writer.close()
    scan(tmp_path)
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    writer = stored(tmp_path).writer(LAYERS, IMAGES)
    assert (writer.layers, writer.gaps) == ((), ())
    writer.finish()
    writer.close()


def test_a_layer_that_is_ahead_is_not_written_twice(tmp_path, often) -> None:
    scan(tmp_path / "whole")
    scan(tmp_path / "uneven", LAYERS[:1], stop=5)
    scan(tmp_path / "uneven")
    assert contents(tmp_path / "uneven") == contents(tmp_path / "whole")


def damage_truncate(folder) -> None:
    path = folder / "mean.npy"
    os.truncate(path, path.stat().st_size - 1)


def damage_other_type(folder) -> None:
    np.save(folder / "position.npy", np.zeros((6, IMAGES), np.int64))


def damage_missing(folder) -> None:
    (folder / "maximum.npy").unlink()


def damage_pickle(folder) -> None:
    np.save(folder / "mean.npy", np.array([object()]), allow_pickle=True)


def damage_manifest(folder) -> None:
    (folder / "manifest.json").write_text('{"form": 1, "skipped": 3}')


def damage_count(folder) -> None:
    fields = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(fields | {"done": IMAGES + 1}))


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_other_type,
        damage_missing,
        damage_pickle,
        damage_manifest,
        damage_count,
    ],
)
def test_damaged_scans_are_not_read_and_made_again(tmp_path, damage) -> None:
    scan(tmp_path)
    whole = contents(tmp_path)
    damage(tmp_path / "scan" / "blocks.5.3.bn2" / "00000")
    found = stored(tmp_path)
    assert found.read("blocks.5.3.bn2") is None
    assert found.progress("blocks.5.3.bn2") == 0
    scan(tmp_path)
    assert contents(tmp_path) == whole


def test_another_shape_is_made_again(tmp_path) -> None:
    scan(tmp_path)
    scan(tmp_path, images=IMAGES + 3)
    assert stored(tmp_path).read("blocks.5.3.bn2").maximum.shape == (6, IMAGES + 3)
    scan(tmp_path, [layer("blocks.5.3.bn2", channels=9)])
    assert stored(tmp_path).read("blocks.5.3.bn2").maximum.shape == (9, IMAGES)


def test_one_writer_at_a_time(tmp_path) -> None:
    with (
        stored(tmp_path).writer(LAYERS, IMAGES),
        pytest.raises(Unavailable, match="another process"),
    ):
        stored(tmp_path).writer(LAYERS, IMAGES)
    with stored(tmp_path).writer(LAYERS, IMAGES):
        pass


def test_a_disk_that_fills_up_leaves_earlier_blocks(tmp_path, often, monkeypatch) -> None:
    scan(tmp_path / "whole")
    truth = os.pwrite
    calls = []

    def pwrite(descriptor, data, place):
        calls.append(place)
        if len(calls) > 130:
            raise OSError(errno.ENOSPC, "No space left on device")
        return truth(descriptor, data[: max(1, len(data) // 2)], place)  # short writes go on

    monkeypatch.setattr(scan_files.os, "pwrite", pwrite)
    with pytest.raises(Unavailable, match="full"):
        scan(tmp_path / "full", LAYERS[:1])
    monkeypatch.setattr(scan_files.os, "pwrite", truth)
    assert stored(tmp_path / "full").progress("blocks.5.3.bn2") == 2 * BATCH / IMAGES
    scan(tmp_path / "full")
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_a_disk_that_is_too_small_is_told_before_anything_is_computed(tmp_path) -> None:
    with pytest.raises(Unavailable, match=r"needs [\d,]+\.\d MB"):
        stored(tmp_path).writer([layer("huge", 10**6)], 10**9)
    with stored(tmp_path).writer(LAYERS, IMAGES):
        pass


def test_bad_input(tmp_path) -> None:
    with pytest.raises(BadInput, match="no pictures"):
        stored(tmp_path).writer(LAYERS, 0)
    for name in ("", "..", ".hidden", "x" * 300):
        with pytest.raises(BadInput, match="name of a layer"):
            stored(tmp_path).read(name)
    assert stored(tmp_path).read("x/../../../etc") is None


def test_batches_must_agree(tmp_path) -> None:
    with stored(tmp_path).writer(LAYERS, IMAGES) as writer:
        uneven = {LAYERS[0].name: values(LAYERS[0], 0, 3), LAYERS[1].name: values(LAYERS[1], 0, 4)}
        with pytest.raises(ValueError, match="same images"):
            writer.append(uneven)
        with pytest.raises(ValueError, match="no more"):
            writer.append({one.name: values(one, 0, IMAGES + 1) for one in LAYERS})
        with pytest.raises(ValueError, match="0 of 50"):
            writer.finish()


def test_shards_hold_what_one_file_would(tmp_path, sharded, monkeypatch) -> None:
    scan(tmp_path / "shards")
    assert len(list((tmp_path / "shards").rglob("manifest.json"))) == 3 * len(LAYERS)
    monkeypatch.setattr(scan_writer, "SHARD_IMAGES", IMAGES)
    scan(tmp_path / "one")
    for one in LAYERS:
        parts, whole = (stored(tmp_path / name).read(one.name) for name in ("shards", "one"))
        assert parts.skipped == whole.skipped
        np.testing.assert_array_equal(parts.valid, whole.valid)
        for name in ("maximum", "mean", "position"):
            found, truth = getattr(parts, name), getattr(whole, name)[:]
            assert (found.shape, found.dtype, len(found)) == (truth.shape, truth.dtype, len(truth))
            images = np.array([49, 0, 23, 24, 24, 47])
            for key in (1, slice(0, 2), np.array([2, 0]), (1, 7), (slice(None), slice(20, 30))):
                np.testing.assert_array_equal(found[key], truth[key])
            for key in ((2, images), (slice(None), images), (0, slice(24, 24)), (2, images[:0])):
                np.testing.assert_array_equal(found[key], truth[key])
            for key in ((0, IMAGES), (0, np.array([-1])), (images, images), (0, slice(0, 9, 2))):
                with pytest.raises(IndexError):
                    found[key]


@pytest.mark.parametrize("stop", range(1, 7))
def test_a_scan_killed_in_any_shard_resumes_to_the_same_bytes(tmp_path, sharded, stop) -> None:
    scan(tmp_path / "whole")
    scan(tmp_path / "killed", stop=stop)
    scan(tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def foreign(folder) -> None:
    fields = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(fields | {"scan": "other"}))


@pytest.mark.parametrize("damage", [damage_truncate, damage_missing, foreign])
def test_only_the_shard_that_is_damaged_is_made_again(tmp_path, sharded, damage, caplog) -> None:
    scan(tmp_path)
    whole = contents(tmp_path)
    layer = tmp_path / "scan" / "blocks.5.3.bn2"
    damage(layer / "00001")
    before = (layer / "00002" / "mean.npy").stat().st_mtime_ns
    assert stored(tmp_path).read("blocks.5.3.bn2") is None
    assert stored(tmp_path).progress("blocks.5.3.bn2") == 26 / IMAGES
    assert len({record.getMessage() for record in caplog.records}) == 1 - (damage is damage_missing)
    with stored(tmp_path).writer(LAYERS, IMAGES) as writer:
        assert (writer.layers, writer.gaps) == (("blocks.5.3.bn2",), ((24, 48),))
        for first in (24, 32, 40):
            writer.append(*next(batches(first, LAYERS[:1])))
        writer.finish()
    assert contents(tmp_path) == whole
    assert (layer / "00002" / "mean.npy").stat().st_mtime_ns == before
