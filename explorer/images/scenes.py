"""Single-object scenes: a photographic cut-out on a quiet drawn background.

Everything is drawn from a generator seeded by the cut-out's name and the variant's number, so
the same cut-out gives the same scenes again (on another processor, but for rounding).
"""

from __future__ import annotations

import colorsys
import hashlib

import numpy as np
from PIL import Image, ImageFilter

SIDE = 320
"""Pixels of a scene, each way."""
VARIANTS = 3

_FLAT = 0.26
_FEWEST_COLOURS = 70
_SMALLEST = 1500
_SOLID = 200
_HUES = (0.06, 0.09, 0.13, 0.24, 0.33, 0.54, 0.59)
"""Of wood, sand, hay, leaves, grass, water and sky."""


def photographic(stamp: Image.Image) -> bool:
    """Tell a photograph from a drawing: neighbouring pixels of a photograph are rarely equal.

    Among opaque pixels of an RGBA cut-out, the share of horizontal neighbours of exactly one
    colour is below 0.1 for nearly all photographs and above 0.5 for nearly all drawings. Drawings
    shaded by gradients are found by their few colours (of 32 x 32 x 32). Cut-outs of fewer than
    1,500 opaque pixels are refused: enlarged they show nothing.
    """
    pixels = np.asarray(stamp, np.int16)
    solid = pixels[..., 3] > _SOLID
    both = solid[:, 1:] & solid[:, :-1]
    if solid.sum() < _SMALLEST or not both.any():
        return False
    shades = pixels[solid, :3].astype(np.int32) >> 3
    if len(np.unique(shades @ np.array([1024, 32, 1]))) < _FEWEST_COLOURS:
        return False
    step = np.abs(np.diff(pixels[..., :3], axis=1)).max(axis=-1)
    return float((step[both] == 0).mean()) < _FLAT


def scene(stamp: Image.Image, name: str, variant: int) -> tuple[Image.Image, Image.Image]:
    """Place an RGBA cut-out: the scene (RGB) and its mask (L, 255 = object), SIDE x SIDE pixels."""
    digest = hashlib.blake2b(f"{name}#{variant}".encode(), digest_size=8).digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    thing = _sized(_trimmed(stamp), random)
    left, top = _placed(thing, random)
    mask = Image.new("L", (SIDE, SIDE))
    mask.paste(thing.getchannel("A"), (left, top))
    picture = _shaded(_background(random), mask, random)
    picture.paste(thing.convert("RGB"), (left, top), thing.getchannel("A"))
    return picture, mask


def _trimmed(stamp: Image.Image) -> Image.Image:
    box = stamp.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    return stamp.crop(box) if box else stamp


def _sized(stamp: Image.Image, random: np.random.Generator) -> Image.Image:
    """Half to four fifths of the scene; small cut-outs stay smaller, as enlarging blurs them."""
    long = max(stamp.size)
    side = random.uniform(0.52, 0.8) * SIDE
    side = min(side, max(2.6 * long, 0.4 * SIDE))
    width, height = (max(1, round(edge * side / long)) for edge in stamp.size)
    # Premultiplied, so that the hidden colour of clear pixels does not bleed into the outline.
    return stamp.convert("RGBa").resize((width, height), Image.Resampling.LANCZOS).convert("RGBA")


def _placed(thing: Image.Image, random: np.random.Generator) -> tuple[int, int]:
    """Near the centre, within the middle 84%, which the network's centre crop keeps."""
    left, top = (
        round((SIDE - edge) / 2 + random.uniform(-0.5, 0.5) * max(0.0, 0.84 * SIDE - edge))
        for edge in thing.size
    )
    return left, top


def _background(random: np.random.Generator) -> np.ndarray:
    """f32[SIDE,SIDE,3]: a wall above a ground, both pale or dim, clouded and lightly grained."""
    wall, ground = _colour(random), _colour(random)
    horizon = random.uniform(0.45, 0.8)
    softness = float(random.choice([0.015, 0.05, 0.2]))
    rows = np.linspace(0.0, 1.0, SIDE, dtype=np.float32)[:, None, None]
    share = 1.0 / (1.0 + np.exp(-(rows - horizon) / softness))
    picture = wall * (1.0 - share) + ground * share
    picture = picture * (1.0 + _clouds(random, 5, 0.07) + _clouds(random, 40, 0.02))
    grain = 2.0 * random.standard_normal((SIDE, SIDE, 1), np.float32)
    return np.asarray(picture + grain)


def _colour(random: np.random.Generator) -> np.ndarray:
    hue = random.choice(_HUES) + random.uniform(-0.02, 0.02)
    saturation, value = random.uniform(0.03, 0.24), random.uniform(0.42, 0.88)
    return 255.0 * np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32)


def _clouds(random: np.random.Generator, cells: int, strength: float) -> np.ndarray:
    """Smooth noise f32[SIDE,SIDE,1] of standard deviation about ``strength``."""
    coarse = random.normal(0.0, strength, (cells, cells)).astype(np.float32)
    image = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image)[..., None]


def _shaded(picture: np.ndarray, mask: Image.Image, random: np.random.Generator) -> Image.Image:
    """Darken the background softly beside the object, so that it does not float."""
    shift = (int(random.integers(-8, 9)), int(random.integers(4, 12)))
    shadow = Image.new("L", mask.size)
    shadow.paste(mask, shift)
    shadow = shadow.filter(ImageFilter.BoxBlur(9)).filter(ImageFilter.BoxBlur(6))
    factor = 1.0 - 0.4 * np.asarray(shadow, np.float32)[..., None] / 255.0
    return Image.fromarray(np.rint(np.clip(picture * factor, 0, 255)).astype(np.uint8))
