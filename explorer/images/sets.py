"""Image sets by name: ``demo``, ``imagenette`` or the path of a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np

from explorer.images import demo, folders, imagenette
from explorer.records import BadInput, ImageSet

Report = Callable[[float, str], None]

INDEX = 1
"""Version of the rules that make an ImageSet from a folder; part of every fingerprint."""

_FETCHED: dict[str, tuple[Callable[[Path], Path | None], Callable[[Path, Report], Path]]] = {
    "demo": (demo.found, demo.prepare),
    "imagenette": (imagenette.found, imagenette.prepare),
}
"""Sets known by name: how each is found, and how it is fetched."""


def fingerprint(images: str, data: Path) -> str:
    """A short text that changes when the pictures of a set do, from directory entries alone.

    "" says that a set known by name has yet to be fetched, which ``open_set`` does; nothing may
    be stored under it. Raises BadInput for a folder that is missing, unreadable or empty.
    """
    root = _present(images, data)
    if root is None:
        return ""
    found = folders.survey(root)
    text = hashlib.blake2b(f"{INDEX}\0{images}\0{found.root}".encode(), digest_size=16)
    for file in (*found.pictures, *found.sidecars):
        text.update(f"\0{file.path}\0{file.size}\0{file.modified}".encode(errors="surrogateescape"))
    return text.hexdigest()


def open_set(images: str, data: Path, report: Report | None = None) -> ImageSet:
    """Index a set, fetching it into ``data`` first when it is one known by name.

    Every file is read once for the digest, so keep the answer under the ``fingerprint``. Files
    that are no valid pictures are listed too: a scan skips and counts them. Raises BadInput for
    a folder that cannot be used and Unavailable when a set cannot be fetched.
    """
    report = report or _silent
    root = _present(images, data) or _FETCHED[images][1](data, report)
    found = folders.survey(root)
    labels, label_names, sources = _describe(found)
    return ImageSet(
        name=images if images in _FETCHED else found.root.name,
        root=str(found.root),
        digest=_digest(found, report),
        paths=tuple(file.path for file in found.pictures),
        labels=labels,
        label_names=label_names,
        sources=sources,
        credits=folders.credits(found.root),
    )


def contents(images: ImageSet, report: Report | None = None) -> np.ndarray:
    """u64[N]: a hash of each picture's file; every file is read once."""
    report = report or _silent
    root, total = Path(images.root), len(images)
    found = np.zeros(total, np.uint64)
    with ThreadPoolExecutor(4) as pool:
        for at, content in enumerate(pool.map(lambda path: _content(root / path), images.paths)):
            found[at] = int.from_bytes(content[:8], "little")
            if at % 256 == 0:
                report(at / total, f"Reading pictures: {at:,} of {total:,}")
    return found


def caption(root: str, path: str) -> str:
    """What ``pictures.csv`` says that a picture shows, "" when it says nothing."""
    listing = Path(root) / "pictures.csv"
    if not listing.is_file():
        return ""
    return _captions(root, listing.stat().st_mtime_ns).get(path, "")


@lru_cache(maxsize=8)
def _captions(root: str, modified: int) -> dict[str, str]:
    return {path: row.caption for path, row in folders.listing(Path(root)).items()}


def _silent(fraction: float, message: str) -> None:
    """Report to no one."""


def _present(images: str, data: Path) -> Path | None:
    """The folder of a set, None when it has yet to be fetched."""
    if images in _FETCHED:
        return _FETCHED[images][0](data)
    if not images.strip() or "\0" in images:
        raise BadInput("The workspace names no images: write demo, imagenette or a folder's path.")
    return Path(images).expanduser()


def _describe(found: folders.Survey) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Labels i32[N], their names and sources i32[N]."""
    listing = folders.listing(found.root)
    names = folders.folder_names(found.root, found.sidecars)
    keyed: list[tuple[str, str]] = []
    sources: list[str] = []
    for file in found.pictures:
        row = listing.get(file.path)
        given = row.label if row else ""
        keyed.append((given, given) if given else folders.folder_label(file.path, names))
        sources.append(row.source if row and row.source else f"\0{file.path}")
    keys = sorted({key for key, _ in keyed if key})
    number = {key: index for index, key in enumerate(keys)} | {"": -1}
    labels = np.array([number[key] for key, _ in keyed], np.int32)
    _, source = np.unique(np.array(sources, dtype=object), return_inverse=True)
    return labels, _unique_names(keys, dict(keyed)), source.astype(np.int32)


def _unique_names(keys: Sequence[str], name: dict[str, str]) -> tuple[str, ...]:
    """The name of each key; two keys of one name (ImageNet's two cranes) keep the key beside it."""
    count: dict[str, int] = {}
    for key in keys:
        count[name[key]] = count.get(name[key], 0) + 1
    return tuple(name[key] if count[name[key]] == 1 else f"{name[key]} ({key})" for key in keys)


def _digest(found: folders.Survey, report: Report) -> str:
    """Of relative paths and contents of all pictures and sidecars, wherever the folder lies."""
    files = sorted((*found.pictures, *found.sidecars), key=lambda file: file.path)
    whole = hashlib.blake2b(digest_size=16)
    with ThreadPoolExecutor(4) as pool:
        contents = pool.map(lambda file: _content(found.root / file.path), files)
        for done, (file, content) in enumerate(zip(files, contents, strict=True), 1):
            whole.update(file.path.encode(errors="surrogateescape") + b"\0" + content)
            if done % 64 == 0 or done == len(files):
                report(done / len(files), f"Indexing pictures: {done} of {len(files)}")
    return whole.hexdigest()


def _content(path: Path) -> bytes:
    """A file's hash; a file that cannot be read has one fixed mark, and the scan skips it."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return b"unreadable".ljust(16)
