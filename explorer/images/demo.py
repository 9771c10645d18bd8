"""The demo set: scenes of Tux Paint's photographic stamps, and the photographs of GCompris.

Both come from Debian packages and are never bundled. The folder that is made holds the pictures,
``masks`` of the scenes at the same paths, ``pictures.csv`` (label, source and caption of each),
``CREDITS.txt``, both packages' ``copyright`` files, and ``manifest.json``, written last.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from explorer.images import packages, photographs, stamps
from explorer.records import Unavailable

Report = Callable[[float, str], None]

VERSION = 1
"""Version of the pictures made; a set of another version is made anew."""

PACKAGES = {
    "tuxpaint-stamps-default": "usr/share/tuxpaint/stamps",
    "gcompris-qt-data": "usr/share/gcompris-qt/rcc",
}
_CREDITS = """\
Scenes: Tux Paint stamps, (c) 2002-2022 Bill Kendrick and contributors, GPL-2, placed on drawn \
backgrounds. Photographs: GCompris, by many authors under CC BY, CC BY-SA, CC0, the GPL or in the \
public domain. Every author and licence: the copyright folder beside the pictures.
"""
_STALE = 86_400


def found(data: Path) -> Path | None:
    """The finished demo folder below ``data``, None when there is none of this version."""
    root = data / "demo"
    try:
        manifest = json.loads((root / "manifest.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return root if isinstance(manifest, dict) and manifest.get("version") == VERSION else None


def prepare(data: Path, report: Report, system: Path = Path("/")) -> Path:
    """Return the demo folder, making it first if need be; a break-off leaves nothing half done.

    The two packages are used where ``system`` has them and otherwise downloaded by apt, as any
    user. Raises Unavailable when that cannot be done or ``data`` cannot be written.
    """
    present = found(data)
    if present is not None:
        return present
    scratch = None
    try:
        data.mkdir(parents=True, exist_ok=True)
        _sweep(data)
        scratch = Path(tempfile.mkdtemp(prefix=".demo-", dir=data))
        roots = packages.locate(PACKAGES, system, scratch / "fetched", report)
        _compose(scratch / "demo", roots, report)
        return _settle(scratch, data)
    except OSError as error:
        raise Unavailable(
            f"The demo pictures cannot be stored in {data} ({error.strerror or error}): free "
            "some space (1 GB) or set EXPLORER_CACHE_DIR to a folder that can be written."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _compose(folder: Path, roots: Mapping[str, Path], report: Report) -> None:
    """Draw and copy every picture into ``folder``; the manifest comes last."""
    stamp_root, photograph_root = (roots[name] / path for name, path in PACKAGES.items())
    makers = [*stamps.makers(stamp_root), *photographs.makers(photograph_root)]
    rows: list[stamps.Row] = []
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
        for done, made in enumerate(pool.map(lambda make: make(folder), makers), 1):
            rows.extend(made)
            if done % 16 == 0 or done == len(makers):
                report(0.5 + 0.5 * done / len(makers), f"Drawing scenes: {done} of {len(makers)}")
    if not rows:
        raise Unavailable(
            "The packages of the demo hold no photographs: set the workspace's images to a "
            "folder of yours or to imagenette."
        )
    _write_list(folder / "pictures.csv", rows)
    _write_copyright(folder, roots)
    sources = len({row.source for row in rows})
    manifest = {"version": VERSION, "pictures": len(rows), "sources": sources}
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


def _write_list(path: Path, rows: list[stamps.Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(stamps.Row._fields)
        writer.writerows(sorted(rows))


def _write_copyright(folder: Path, roots: Mapping[str, Path]) -> None:
    (folder / "CREDITS.txt").write_text(_CREDITS, "utf-8")
    (folder / "copyright").mkdir()
    for name, root in roots.items():
        source = root / "usr/share/doc" / name / "copyright"
        if source.is_file():
            shutil.copyfile(source, folder / "copyright" / f"{name}.txt")


def _settle(scratch: Path, data: Path) -> Path:
    """Put the finished folder in place; another process may have done so first."""
    if found(data) is None:
        if (data / "demo").exists():
            (data / "demo").rename(scratch / "old")
        try:
            (scratch / "demo").rename(data / "demo")
        except OSError:
            if found(data) is None:
                raise
    return data / "demo"


def _sweep(data: Path) -> None:
    """Remove what a killed process left behind more than a day ago."""
    for folder in data.glob(".demo-*"):
        if time.time() - folder.stat().st_mtime > _STALE:
            shutil.rmtree(folder, ignore_errors=True)
