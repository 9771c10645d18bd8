"""Reader of Qt's binary resource files (``.rcc``): a tree of named files in one file.

Layout, all numbers big-endian: the magic ``qres``; u32 version, offsets of tree, data and names
(version 3 adds u32 flags of the whole). A tree node is u32 name offset, u16 flags, then for a
folder u32 count and index of its children, for a file u16 country, u16 language and u32 data
offset; from version 2 on u64 time follows. A name is u16 length, u32 hash and UTF-16; data is u32
length and bytes, which zlib or Zstandard may have compressed.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_FOLDER, _ZLIB, _ZSTD = 2, 1, 4
_MOST = 50_000_000
"""Bytes that one resource may grow to, and more nodes than any honest file has."""


def resources(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file within, in tree order; ValueError when damaged.

    Zstandard content is passed over: pictures are compressed already, and Qt leaves them as
    they are.
    """
    try:
        yield from _resources(blob)
    except (struct.error, zlib.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"damaged Qt resource file: {error}") from error


def _resources(blob: bytes) -> Iterator[tuple[str, bytes]]:
    if blob[:4] != b"qres":
        raise ValueError("no Qt resource file")
    version, tree, data, names = struct.unpack_from(">4I", blob, 4)
    if version not in (1, 2, 3):
        raise ValueError(f"Qt resource file of unknown version {version}")
    size = 14 if version == 1 else 22
    waiting, seen = [(0, "")], set()
    while waiting:
        index, folder = waiting.pop()
        if index in seen:
            raise ValueError("damaged Qt resource file: its tree has a loop")
        seen.add(index)
        node = tree + index * size
        name, flags = struct.unpack_from(">IH", blob, node)
        path = folder if index == 0 else f"{folder}/{_name(blob, names + name)}"
        if flags & _FOLDER:
            count, first = struct.unpack_from(">2I", blob, node + 6)
            if (first + count) * size > len(blob):
                raise ValueError("damaged Qt resource file: a folder outgrows it")
            waiting.extend((child, path) for child in reversed(range(first, first + count)))
        elif not flags & _ZSTD:
            (offset,) = struct.unpack_from(">I", blob, node + 10)
            yield path, _content(blob, data + offset, bool(flags & _ZLIB))


def _name(blob: bytes, start: int) -> str:
    (length,) = struct.unpack_from(">H", blob, start)
    return blob[start + 6 : start + 6 + 2 * length].decode("utf-16-be")


def _content(blob: bytes, start: int, compressed: bool) -> bytes:
    (length,) = struct.unpack_from(">I", blob, start)
    content = blob[start + 4 : start + 4 + length]
    if len(content) < length:
        raise ValueError("damaged Qt resource file: it is truncated")
    if not compressed:
        return content
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(content[4:], _MOST)
    if decompressor.unconsumed_tail:
        raise ValueError("damaged Qt resource file: a resource is implausibly large")
    return content
