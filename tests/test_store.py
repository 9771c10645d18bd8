"""Stored answers: what goes in comes out, and nothing else does."""

import dataclasses
import sqlite3
import stat
import threading
import time
from pathlib import Path

import diskcache
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from explorer import codec, records
from explorer.records import BadInput, Neuron, ReferenceQuery, References, Split, Unavailable
from explorer.store import Store, decode, encode

DTYPES = [np.dtype(name) for name in sorted(codec.DTYPES)]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: nst.arrays(dtype, nst.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
leaves = plain | arrays
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one: object, other: object) -> bool:
    """Equal in type, shape and bits; NaN equals NaN."""
    if isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert one.dtype == other.dtype
        return one.shape == other.shape and one.tobytes() == other.tobytes()
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and all(
            same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one)
        )
    if isinstance(one, tuple):
        assert isinstance(other, tuple)
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)


def split(params: dict[str, object], scores: dict[str, float]) -> Split:
    neuron = Neuron("demo", "blocks.5.3.bn2", 74)
    k = np.arange(5)
    references = References(neuron, ReferenceQuery(), k, k.astype(np.float32), k)
    return Split(
        neuron=neuron,
        method="pure",
        version=1,
        params=params,
        seed=0,
        references=references,
        strength=np.eye(2, 5, dtype=np.float32),
        centroid=np.zeros((2, 0), np.float32),
        space="blocks.5.2.bn2",
        map=np.zeros((5, 2), np.float32),
        scores=scores,
        provenance={"torch": "2", "nested": {"layers": ("a", "b")}},
    )


@given(values)
@settings(max_examples=150, deadline=None)
def test_what_is_encoded_is_decoded(value: object) -> None:
    assert same(decode(encode(value)), value)


@given(
    st.dictionaries(st.text(), values, max_size=3),
    st.dictionaries(st.text(), st.floats(), max_size=3),
)
@settings(max_examples=50, deadline=None)
def test_a_split_survives_with_any_parameters(params, scores) -> None:
    one = split(params, scores)
    assert same(decode(encode(one)), one)


def test_every_record_of_the_vocabulary_can_be_stored() -> None:
    assert {"Split", "Scan", "ImageSet", "NetworkInfo", "Status"} <= set(codec.RECORDS)
    neuron = Neuron("demo", "\udc80 naïve", 3)
    assert decode(encode(neuron)) == neuron


def test_views_scalars_and_lists_are_stored_as_plain_ones() -> None:
    table = np.arange(12, dtype=">i4").reshape(3, 4)
    (view, number, flag, items) = decode(
        encode((table[:, ::2], np.float32(0.5), np.bool_(True), [1, 2]))
    )
    np.testing.assert_array_equal(view, table[:, ::2])
    assert view.dtype == np.dtype("<i4")
    assert (number, flag, items) == (0.5, True, (1, 2))


def test_decoded_arrays_are_read_only() -> None:
    array = decode(encode(np.zeros(3)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        b"bytes",
        {1, 2},
        {1: "key"},
        np.array([object()]),
        np.array(["text"]),
        np.zeros(2, complex),
        np.ma.masked_array([1, 2], [0, 1]),
        ValueError,
        (Path("x"),),
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"can(not)? be stored"):
        encode(value)


def test_a_class_that_borrows_a_record_name_is_refused() -> None:
    neuron = dataclasses.make_dataclass("Neuron", ["workspace"])
    with pytest.raises(TypeError, match="cannot be stored"):
        encode(neuron("demo"))


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_other_bytes_are_unreadable(data: bytes) -> None:
    with pytest.raises(codec.UnreadableError):
        decode(data)


def test_truncated_and_other_schema_are_unreadable(monkeypatch) -> None:
    data = encode(split({}, {}))
    for length in range(0, len(data), 97):
        with pytest.raises(codec.UnreadableError):
            decode(data[:length])
    monkeypatch.setattr(records, "SCHEMA", records.SCHEMA + 1)
    with pytest.raises(codec.UnreadableError, match="schema"):
        decode(data)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "cache", 0.1)
    yield store
    store.close()


def rows(store: Store) -> sqlite3.Connection:
    return sqlite3.connect(store.folder / "cache.db")


def test_put_and_get(store) -> None:
    one = split({"k": 2}, {"silhouette": float("nan")})
    assert store.get("a") is None
    assert "a" not in store
    store.put("a", one)
    assert "a" in store
    assert same(store.get("a"), one)
    store.put_bytes("b", b"x" * 100_000)
    assert store.get_bytes("b") == b"x" * 100_000
    assert store.get_bytes("nothing") is None
    assert store.usage()["answers"] == 2
    assert store.usage()["bytes"] > 100_000


def test_answers_expire(store) -> None:
    store.put("a", Neuron("demo", "x", 1), expire=0.01)
    time.sleep(0.05)
    assert store.get("a") is None
    assert store.prune() == 1


def test_only_text_keys_and_records_or_bytes(store) -> None:
    with pytest.raises(TypeError):
        store.get(("a", "tuple"))
    with pytest.raises(TypeError):
        store.put_bytes("a", "text")
    with pytest.raises(TypeError):
        store.put("a", None)


def test_folders_are_private(tmp_path) -> None:
    Store(tmp_path / "deep" / "cache", 0.1).close()
    for folder in ("deep/cache", "deep/cache/answers"):
        assert stat.S_IMODE((tmp_path / folder).stat().st_mode) == 0o700


class Trap:
    """Unpickling it would leave a mark."""

    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


@pytest.mark.parametrize("size", [0, 100_000])
def test_planted_pickles_are_refused(store, tmp_path, size, caplog) -> None:
    (tmp_path / "other").mkdir()
    with diskcache.Cache(store.folder) as naive:  # opened as the library would, with pickle
        naive.set("planted", (Trap(), "x" * size))
        naive.set(("tuple", "key"), b"value")
    Trap.sprung = False
    assert store.get("planted") is None
    assert store.get_bytes("planted") is None
    assert not Trap.sprung
    assert "refused" in caplog.text
    with pytest.raises(codec.UnreadableError):
        list(store._cache)
    store.put("planted", Neuron("demo", "x", 1))
    assert store.get("planted") == Neuron("demo", "x", 1)


def test_planted_text_and_numbers_are_refused(store) -> None:
    with diskcache.Cache(store.folder) as naive:
        naive.set("text", "hello")
        naive.set("number", 3)
    assert store.get("text") is None
    assert store.get("number") is None


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_damaged_answer_is_missing(store, size, caplog) -> None:
    store.put("a", decode(encode((np.zeros(size, np.uint8),))))
    with rows(store) as connection:
        ((name, value),) = connection.execute("SELECT filename, value FROM Cache")
        if name:
            path = store.folder / name
            path.write_bytes(path.read_bytes()[:-1] + b"!")
        else:
            connection.execute("UPDATE Cache SET value = ?", (value[:-9],))
    connection.close()
    assert store.get("a") is None
    assert "damaged" in caplog.text


def test_an_answer_of_another_schema_is_missing(store, monkeypatch, caplog) -> None:
    store.put("a", Neuron("demo", "x", 1))
    monkeypatch.setattr(records, "SCHEMA", records.SCHEMA + 1)
    assert store.get("a") is None
    assert "schema" in caplog.text


def test_an_answer_whose_file_is_gone_is_missing(store) -> None:
    store.put_bytes("a", b"x" * 100_000)
    for path in store.folder.rglob("*.val"):
        path.unlink()
    assert store.get_bytes("a") is None


def test_the_least_recently_used_go_first(tmp_path) -> None:
    store = Store(tmp_path, 0.004)
    for number in range(40):
        store.put_bytes(str(number), bytes(200_000))
        assert store.get_bytes("0") is not None
    assert store.usage()["bytes"] < 1.3 * store.usage()["limit"]
    assert store.get_bytes("1") is None
    assert store.get_bytes("39") is not None
    store.close()


def put_many(store: Store) -> None:
    for number in range(1000):
        store.put_bytes(str(number), b"x" * 20_000)


def test_a_full_disk_is_told_and_answers_stay_readable(store) -> None:
    store.put_bytes("a", b"x" * 100)
    store.put_bytes("big", b"x" * 100_000)
    pages = store._cache._sql("PRAGMA page_count").fetchone()[0]
    store._cache._sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(Unavailable, match="full: free some space"):
        put_many(store)
    assert store.get_bytes("a") == b"x" * 100
    assert store.get_bytes("big") == b"x" * 100_000


def test_a_file_that_does_not_fit_leaves_nothing_behind(store, monkeypatch) -> None:
    def full(self, full_path, *rest):
        Path(full_path).parent.mkdir(parents=True, exist_ok=True)
        Path(full_path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(diskcache.Disk, "_write", full)
    with pytest.raises(Unavailable, match="full"):
        store.put_bytes("a", b"x" * 100_000)
    assert store.get_bytes("a") is None
    assert not list(store.folder.rglob("*.val"))


def test_reading_goes_on_when_the_time_of_access_cannot_be_written(store, caplog) -> None:
    store.put_bytes("a", b"value")
    store._cache._sql("PRAGMA query_only = 1")
    assert store.get_bytes("a") == b"value"
    assert "imes of access" in caplog.text
    with pytest.raises(Unavailable, match="cannot be written"):
        store.put_bytes("b", b"value")


def test_a_folder_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="EXPLORER_CACHE_DIR"):
        Store(tmp_path / "file", 0.1)


def test_a_damaged_database_is_told(tmp_path) -> None:
    Store(tmp_path, 0.1).close()
    for path in (tmp_path / "answers").glob("cache.db*"):
        path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(Unavailable, match="damaged"):
        Store(tmp_path, 0.1)


def test_read_only_reads_but_refuses_to_store(tmp_path) -> None:
    store = Store(tmp_path, 0.1)
    store.put_bytes("a", b"value")
    store.close()
    reader = Store(tmp_path, 0.1, read_only=True)
    assert reader.get_bytes("a") == b"value"
    with pytest.raises(BadInput, match="read-only"):
        reader.put_bytes("b", b"value")
    reader.close()


def test_prune_removes_files_of_killed_processes(store, monkeypatch) -> None:
    store.put_bytes("a", b"x" * 100_000)
    orphan = store.folder / "ab" / "cd" / "ef.val"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"x")
    assert store.prune() == 0
    monkeypatch.setattr("explorer.store.ORPHAN_AGE", -1)
    assert store.prune() == 1
    assert not orphan.exists()
    assert store.get_bytes("a") is not None


def test_threads_share_one_store(store) -> None:
    failures = []

    def work(number: int) -> None:
        for step in range(20):
            store.put(f"{number}:{step}", Neuron("demo", "x", step))
            if store.get(f"{number}:{step}") != Neuron("demo", "x", step):
                failures.append((number, step))
        store.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.usage()["answers"] >= 120
