"""Records to bytes and back: safetensors holding a JSON tree and its arrays. Never pickle.

The header says ``{"schema": "1", "record": "Split"}``; the tensor ``json`` (u8) is a JSON text in
which an array stands as ``{"array": NAME}``, a mapping as ``{"map": {...}}`` and a record as
``{"record": CLASS, "fields": {...}}``; the other tensors are the arrays.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from explorer import records

RECORDS: dict[str, type] = {
    name: value
    for name, value in vars(records).items()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}
"""The classes that may be stored: the dataclasses of the vocabulary."""

DTYPES = frozenset(["bool", "u1", "u2", "u4", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
"""Element types that may be stored, little-endian."""

TREE = "json"


class UnreadableError(ValueError):
    """Bytes that are no record, or one of another schema."""


def encode(value: object) -> bytes:
    """Bytes of a record, or of a tuple, mapping, text, number or array of what records hold.

    Numpy scalars become plain numbers and lists become tuples. Raises TypeError on anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_pack(value, arrays), separators=(",", ":"))
    arrays[TREE] = np.frombuffer(text.encode("ascii"), np.uint8)
    header = {"schema": str(records.SCHEMA), "record": type(value).__name__}
    return save(arrays, metadata=header)


def decode(data: bytes) -> Any:
    """The value that ``encode`` was given; its arrays are read-only. Raises UnreadableError."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]
        if header["schema"] != str(records.SCHEMA):
            raise UnreadableError(f"schema {header['schema']}, not {records.SCHEMA}")
        arrays = load(data)
        for array in arrays.values():
            array.flags.writeable = False
        return _unpack(json.loads(arrays.pop(TREE).tobytes()), arrays)
    except UnreadableError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableError(f"no stored record: {error}") from error


def _pack(value: object, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = _plain(value)
        return {"array": name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):  # a subclass (an enum, np.float64) is stored as its base
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, list | tuple):
        return [_pack(item, arrays) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("Only mappings with text keys can be stored.")
        return {"map": {key: _pack(item, arrays) for key, item in value.items()}}
    name = type(value).__name__
    if RECORDS.get(name) is not type(value):
        raise TypeError(f"A {name} cannot be stored: use the records of explorer.records.")
    fields = {
        field.name: _pack(getattr(value, field.name), arrays)
        for field in dataclasses.fields(value)  # type: ignore[arg-type]
    }
    return {"record": name, "fields": fields}


def _plain(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "buif" or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"An array of {array.dtype} cannot be stored.")
    name = "bool" if array.dtype.kind == "b" else array.dtype.str[1:]
    if name not in DTYPES:
        raise TypeError(f"An array of {array.dtype} cannot be stored.")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _unpack(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(node, list):
        return tuple(_unpack(item, arrays) for item in node)
    if not isinstance(node, dict):
        return node
    if "array" in node:
        return arrays[node["array"]]
    if "map" in node:
        return {key: _unpack(item, arrays) for key, item in node["map"].items()}
    kind = RECORDS[node["record"]]
    return kind(**{name: _unpack(item, arrays) for name, item in node["fields"].items()})
