"""Imagenette: ten ImageNet classes, the one named set that needs the internet."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from explorer.records import Unavailable

_FOLDER = "imagenette2-320"
_SECONDS = 8.0
_CREDITS = (
    "Imagenette (fast.ai), a part of ImageNet: pictures from the web, each under its own "
    "copyright, for research use."
)


def found(data: Path) -> Path | None:
    """The validation pictures, None when they have yet to be downloaded."""
    root = data / "imagenette" / _FOLDER / "val"
    return root if (root / "CREDITS.txt").is_file() else None


def prepare(data: Path, report: Callable[[float, str], None]) -> Path:
    """Download (326 MB) through torchvision into ``data`` and return the validation pictures.

    Raises Unavailable, within seconds when offline. What is half done never counts as found.
    """
    present = found(data)
    if present is not None:
        return present
    report(0.0, "Downloading Imagenette (326 MB)")
    from torchvision.datasets import Imagenette

    url, _ = Imagenette._ARCHIVES["320px"]
    scratch = None
    try:
        _reach(url)
        data.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".imagenette-", dir=data))
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
            fetched = Imagenette(scratch, split="val", size="320px", download=True)
        names = zip(fetched.wnids, fetched.classes, strict=True)
        return _settle(scratch, data, [(wnid, words[0]) for wnid, words in names])
    except (OSError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"Imagenette cannot be downloaded ({str(error).splitlines()[0][:120]}): connect to "
            "the internet, or set the workspace's images to demo or to a folder of yours."
        ) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _reach(url: str) -> None:
    """Fail quickly where a download would hang. The address is torchvision's own."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310
    with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
        pass


def _settle(scratch: Path, data: Path, names: list[tuple[str, str]]) -> Path:
    rows = "".join(f"{wnid},{name}\n" for wnid, name in names)
    (scratch / _FOLDER / "val" / "classes.csv").write_text(f"wnid,name\n{rows}", "utf-8")
    (scratch / _FOLDER / "val" / "CREDITS.txt").write_text(f"{_CREDITS}\n", "utf-8")
    home = data / "imagenette"
    home.mkdir(exist_ok=True)
    shutil.rmtree(home / _FOLDER, ignore_errors=True)
    (scratch / _FOLDER).rename(home / _FOLDER)
    return home / _FOLDER / "val"
