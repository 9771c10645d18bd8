"""One picture as the network sees it."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from explorer.records import BadInput, Preprocess

MAX_PIXELS = 100_000_000
"""Larger pictures are refused, before decoding and after resizing: memory is shared."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_INTERPOLATION = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow raises on files that are truncated or no pictures."""

Image.MAX_IMAGE_PIXELS = MAX_PIXELS


def view(root: str | Path, path: str, preprocess: Preprocess) -> np.ndarray:
    """The pixels the network sees before mean and std: u8[crop, crop, 3], RGB.

    ``path`` is relative to ``root``. Raises BadInput, naming ``path``, for a picture that is
    missing, outside the root, empty, truncated, of an unknown format or over 100 megapixels.
    """
    return fit(read(locate(root, path), path), preprocess)


def locate(root: str | Path, path: str) -> Path:
    """The file of a relative path; BadInput when that, links followed, lies outside the root."""
    base = os.path.realpath(root)
    target = os.path.realpath(os.path.join(base, path)) if "\0" not in path else ""
    if os.path.isabs(path) or not target.startswith(os.path.join(base, "")):
        raise BadInput(f"The picture '{path}' lies outside its folder: give a path within it.")
    return Path(target)


def read(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode the first frame upright, as RGB, transparency over white; BadInput naming it."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(
            f"The picture '{name}' has more than {MAX_PIXELS // 1_000_000} megapixels: "
            "make it smaller."
        ) from error
    except BROKEN as error:
        raise BadInput(
            f"The picture '{name}' cannot be read: it is missing, truncated or not a JPEG, PNG, "
            "WebP, BMP, GIF or TIFF file."
        ) from error


def fit(image: Image.Image, preprocess: Preprocess) -> np.ndarray:
    """Short side to ``resize``, centre ``crop``: u8[crop, crop, 3].

    The same pixels as torchvision's Resize and CenterCrop on a Pillow image, whose rounding is
    followed: the long side is cut to whole pixels, an odd margin goes by round-half-even, and a
    picture smaller than the crop is centred on black.
    """
    size = _resized(image.size, preprocess)
    if size[0] * size[1] > MAX_PIXELS:
        width, height = image.size
        raise BadInput(f"A picture of {width} x {height} pixels is too long and thin: crop it.")
    if size != image.size:
        image = image.resize(size, _interpolation(preprocess.interpolation))
    crop = preprocess.crop
    left, top = (_margin(side, crop) for side in image.size)
    return np.array(image.crop((left, top, left + crop, top + crop)))


def placed(boxes: np.ndarray, size: tuple[int, int], preprocess: Preprocess) -> np.ndarray:
    """f64[n,4]: boxes (left, top, right, bottom) of a picture of ``size`` as they lie in what
    ``fit`` makes of it; they may reach outside."""
    seen = _resized(size, preprocess)
    margins = [_margin(side, preprocess.crop) for side in seen]
    scale = np.array(seen) / np.array(size)
    return np.asarray(boxes * np.tile(scale, 2) - np.tile(margins, 2))


def _resized(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int]:
    short, long = sorted(size)
    long = int(preprocess.resize * long / short)
    return (preprocess.resize, long) if size[0] <= size[1] else (long, preprocess.resize)


def _interpolation(name: str) -> Image.Resampling:
    if name not in _INTERPOLATION:
        raise BadInput(f"'{name}' is no interpolation: choose {', '.join(_INTERPOLATION)}.")
    return _INTERPOLATION[name]


def _margin(side: int, crop: int) -> int:
    return round((side - crop) / 2.0) if side >= crop else -((crop - side) // 2)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _grey(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Eight bits of a deep grey picture: 16-bit values over 257, others over their range."""
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16"):
        values = values / 257.0
    else:
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        values = (values - low) * (255.0 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(values).astype(np.uint8))
