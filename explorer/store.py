"""Stored answers: one diskcache, opened here only, with no pickle in or out."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import diskcache

from explorer.codec import UnreadableError, decode, encode
from explorer.disk import private_folder, storing
from explorer.records import BadInput

__all__ = ["Store", "decode", "encode"]

LOG = logging.getLogger(__name__)

ORPHAN_AGE = 3600
"""Seconds after which a file that no entry names was left by a killed process, not by one at work
(a value's file is written just before its entry)."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]
    """Text keys and bytes values only. diskcache would pickle and unpickle anything else."""

    def put(self, key: object) -> tuple[str, bool]:
        if type(key) is not str:
            raise TypeError("Keys of the store are text.")
        return key, True

    def get(self, key: object, raw: bool) -> str:
        if not raw or type(key) is not str:
            raise UnreadableError("a key that is not text")
        return key

    def store(self, value: object, read: bool, key: object = diskcache.UNKNOWN) -> tuple[Any, ...]:
        if read or type(value) is not bytes:
            raise TypeError("The store holds bytes.")
        columns: tuple[Any, ...] = super().store(value, False, key)
        return columns

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:
        if mode not in (diskcache.core.MODE_RAW, diskcache.core.MODE_BINARY) or read:
            raise UnreadableError("a value that is not bytes")
        data = super().fetch(mode, filename, value, False)
        if type(data) is not bytes:
            raise UnreadableError("a value that is not bytes")
        return data

    def _write(self, full_path: str, value: BytesIO, *mode: Any) -> int:
        try:
            # diskcache would write it line by line, and every 256th byte ends one.
            size: int = super()._write(full_path, iter([value.getbuffer()]), *mode)
        except OSError:
            Path(full_path).unlink(missing_ok=True)  # a full disk needs what was half written
            raise
        return size


class Store:
    """Answers by key, in ``folder/answers``. Safe across threads and processes.

    Values are whole or missing: each is followed by its CRC-32, and one that does not match, is of
    another schema or is no record counts as missing and is logged. Above ``gigabytes`` the least
    recently used go. Raises Unavailable when the disk is full or the folder cannot be written;
    what is stored stays readable then. ``read_only`` refuses to store anything (BadInput).
    """

    def __init__(self, folder: Path, gigabytes: float, read_only: bool = False) -> None:
        self.folder = private_folder(private_folder(folder) / "answers")
        self.read_only = read_only
        self._warned = False
        self._cache = _open(self.folder, int(gigabytes * 2**30))
        # Reading by the least-recently-used policy writes the time of access. This second view
        # reads without writing, for when nothing may or can be written.
        self._reader = _open(self.folder, int(gigabytes * 2**30))
        self._reader.reset("eviction_policy", "none", update=False)

    def get(self, key: str) -> Any:
        """The record stored under ``key``, or None."""
        data = self.get_bytes(key)
        if data is None:
            return None
        try:
            return decode(data)
        except UnreadableError as error:
            LOG.warning("Stored answer %s is ignored: %s.", key, error)
            return None

    def put(self, key: str, record: object, expire: float | None = None) -> None:
        """Store a record for good, or for ``expire`` seconds. TypeError if it is no record."""
        if record is None:
            raise TypeError("None cannot be stored.")
        self.put_bytes(key, encode(record), expire)

    def get_bytes(self, key: str) -> bytes | None:
        """The bytes stored under ``key``, or None."""
        data = self._read(key)
        if data is None:
            return None
        body, check = data[:-4], data[-4:]
        if _checksum(body) != check:
            LOG.warning("Stored answer %s is damaged and ignored.", key)
            return None
        return body

    def put_bytes(self, key: str, data: bytes, expire: float | None = None) -> None:
        """Store bytes (a thumbnail, say) for good, or for ``expire`` seconds."""
        if self.read_only:
            raise BadInput("This explorer is read-only: unset EXPLORER_READ_ONLY to compute more.")
        with storing(self.folder):
            try:
                self._cache.set(key, data + _checksum(data), expire=expire)
            except diskcache.Timeout as error:
                # diskcache hides why it could not begin to write.
                raise error.__context__ or sqlite3.OperationalError("locked") from error

    def __contains__(self, key: str) -> bool:
        with storing(self.folder):
            return key in self._reader

    def prune(self) -> int:
        """Remove expired answers, those above the size limit, and files of killed processes.
        Returns how many entries and files went."""
        with storing(self.folder):
            return int(self._cache.expire() + self._cache.cull()) + self._remove_orphans()

    def usage(self) -> dict[str, int]:
        """``answers`` stored, their ``bytes`` on disk and the ``limit`` in bytes."""
        with storing(self.folder):
            return {
                "answers": len(self._reader),
                "bytes": int(self._reader.volume()),
                "limit": int(self._reader.size_limit),
            }

    def close(self) -> None:
        """Close this thread's connections."""
        self._cache.close()
        self._reader.close()

    def _read(self, key: str) -> bytes | None:
        try:
            if not self.read_only:
                return self._fetch(self._cache, key)
        except (sqlite3.Error, diskcache.Timeout) as error:
            if not self._warned:
                LOG.warning("Times of access are not noted: %s.", error.__context__ or error)
            self._warned = True
        with storing(self.folder):
            return self._fetch(self._reader, key)

    @staticmethod
    def _fetch(cache: diskcache.Cache, key: str) -> bytes | None:
        try:
            data: bytes | None = cache.get(key)
        except UnreadableError as error:
            LOG.warning("Stored answer %s is refused: %s.", key, error)
            return None
        return data

    def _remove_orphans(self) -> int:
        connection = sqlite3.connect(self.folder / diskcache.core.DBNAME, timeout=10)
        try:
            rows = connection.execute("SELECT filename FROM Cache WHERE filename IS NOT NULL")
            known = {self.folder / row[0] for row in rows}
        finally:
            connection.close()
        removed = 0
        for path in self.folder.rglob("*.val"):
            if path not in known and time.time() - os.path.getmtime(path) > ORPHAN_AGE:
                path.unlink(missing_ok=True)
                removed += 1
        return removed


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _open(folder: Path, limit: int) -> diskcache.Cache:
    """The one factory: a cache opened without BytesDisk would silently unpickle."""
    with storing(folder):
        return diskcache.Cache(
            str(folder),
            timeout=10,
            disk=BytesDisk,
            size_limit=limit,
            eviction_policy="least-recently-used",
        )
