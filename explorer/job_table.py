"""The tables behind the queue: their form, and the steps that its transactions are made of."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from explorer.disk import storing
from explorer.records import Status

UNSEEN = 15.0
"""Seconds after which a watcher who was not seen is gone."""
REMEMBERED = 600.0
"""Seconds for which a failure or a person's cancel stands against being asked again."""
FRESH = 5.0
"""Seconds for which what is done or failed is not run again for anyone: an answer may have been
stored after the asker looked."""
KEPT_DONE, KEPT_ENDED = 50, 500
"""Ended rows kept, of done jobs and of all."""

VERSION = 2
TABLES = """
DROP TABLE IF EXISTS jobs;
DROP TABLE IF EXISTS watchers;
DROP VIEW IF EXISTS looked;
CREATE TABLE jobs (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, args TEXT NOT NULL, title TEXT NOT NULL,
    interactive INTEGER NOT NULL, kept INTEGER NOT NULL, rank INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', fraction REAL NOT NULL DEFAULT 0,
    message TEXT NOT NULL DEFAULT '', fault INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, worker TEXT NOT NULL DEFAULT '',
    beat REAL NOT NULL DEFAULT 0, base REAL, base_time REAL, ended REAL NOT NULL DEFAULT 0
);
CREATE INDEX jobs_queue ON jobs (state, interactive DESC, rank);
CREATE TABLE watchers (
    key TEXT NOT NULL, owner TEXT NOT NULL, scope TEXT NOT NULL, seen REAL NOT NULL,
    refused INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (key, owner, scope)
) WITHOUT ROWID;
CREATE VIEW looked AS SELECT key, max(seen) AS seen FROM watchers WHERE NOT refused GROUP BY key
"""


class Database:
    """The tables in one file, with one connection for every thread of this process."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        self._lock = threading.Lock()
        with storing(self._folder):
            self._connection = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
        with self.transaction() as db:
            # Rows only say what to compute: those of another version are simply asked for again.
            if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                for statement in (*TABLES.split(";"), f"PRAGMA user_version = {VERSION}"):
                    db.execute(statement)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone. Raises Unavailable when the disk fails."""
        with storing(self._folder), self._lock:
            yield self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The same, with the file locked against other writers; all is written or nothing."""
        with self.reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite rolls back by itself on a full disk
                    db.execute("ROLLBACK")
                raise


def find(db: sqlite3.Connection, key: str) -> Any:
    """The row of a key, or None."""
    return db.execute("SELECT * FROM jobs WHERE key = ?", (key,)).fetchone()


def watcher(db: sqlite3.Connection, key: str, owner: str, scope: str) -> Any:
    """Whether and when (``seen``) a watcher ``refused``, and when the owner last ``asked`` for the
    key in any scope. NULL or 0 where never."""
    return db.execute(
        "SELECT coalesce(max(refused AND scope = :scope), 0) AS refused,"
        " max(iif(scope = :scope, seen, 0)) AS seen, max(seen) AS asked"
        " FROM watchers WHERE key = :key AND owner = :owner",
        {"key": key, "owner": owner, "scope": scope},
    ).fetchone()


def enqueue(db: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    """Put (key, kind, args, title, interactive, kept) at the end of the queue, as if never asked
    before."""
    db.execute(
        "INSERT INTO jobs (key, kind, args, title, interactive, kept, rank)"
        " VALUES (?, ?, ?, ?, ?, ?, (SELECT coalesce(max(rank), 0) + 1 FROM jobs))"
        " ON CONFLICT (key) DO UPDATE SET kind = excluded.kind, args = excluded.args,"
        " title = excluded.title, interactive = excluded.interactive, kept = excluded.kept,"
        " rank = excluded.rank, state = 'waiting', fraction = 0, message = '', fault = 0,"
        " stop = 0, attempts = 0, base = NULL",
        values,
    )


def end_unwatched(db: sqlite3.Connection, key: str | None, now: float) -> bool:
    """Cancel one job, or all that wait and are not kept, if no watcher was seen lately; a running
    one is told to stop. Returns whether any was."""
    done = db.execute(
        "UPDATE jobs SET stop = state = 'running', ended = :now, message = '',"
        " state = iif(state = 'running', 'running', 'cancelled')"
        " WHERE (key = :key OR :key IS NULL AND state = 'waiting' AND NOT kept)"
        " AND state IN ('waiting', 'running')"
        " AND key NOT IN (SELECT key FROM looked WHERE seen > :since)",
        {"key": key, "now": now, "since": now - UNSEEN},
    )
    return done.rowcount > 0


def leave(db: sqlite3.Connection, owner: str, scope: str, now: float) -> None:
    """Withdraw an owner from what they asked for in other scopes, unless it is kept. They stay
    known as those who were told of a failure."""
    gone = db.execute(
        "DELETE FROM watchers WHERE owner = ? AND scope <> ?"
        " AND key IN (SELECT key FROM jobs WHERE NOT kept AND state <> 'failed') RETURNING key",
        (owner, scope),
    ).fetchall()
    for (key,) in gone:
        end_unwatched(db, key, now)


def prune(db: sqlite3.Connection) -> None:
    """Forget the oldest ended rows, and watchers without a row."""
    db.execute(
        "DELETE FROM jobs WHERE key IN"
        " (SELECT key FROM jobs WHERE state = 'done' ORDER BY ended DESC LIMIT -1 OFFSET ?)",
        (KEPT_DONE,),
    )
    db.execute(
        "DELETE FROM jobs WHERE key IN (SELECT key FROM jobs"
        " WHERE state IN ('done', 'failed', 'cancelled') ORDER BY ended DESC LIMIT -1 OFFSET ?)",
        (KEPT_ENDED,),
    )
    db.execute("DELETE FROM watchers WHERE key NOT IN (SELECT key FROM jobs)")


def refuses(watcher: Any, now: float) -> bool:
    """Whether this watcher cancelled, and still means it."""
    return bool(watcher["refused"]) and now - watcher["seen"] < REMEMBERED


def stands(row: Any, watcher: Any, now: float) -> bool:
    """Whether an ended row is itself the answer to being asked for again by this watcher."""
    if row["state"] == "cancelled":
        return refuses(watcher, now)
    told = row["state"] == "failed" and now - (watcher["asked"] or 0) < REMEMBERED
    return told or now - float(row["ended"]) < FRESH


def status(db: sqlite3.Connection, row: Any, now: float) -> Status:
    """A row as people see it."""
    place = 0
    if row["state"] == "waiting":
        ahead = db.execute(
            "SELECT count(*) FROM jobs WHERE state = 'waiting'"
            " AND (interactive > ? OR interactive = ? AND rank < ?)",
            (row["interactive"], row["interactive"], row["rank"]),
        )
        place = 1 + ahead.fetchone()[0]
    return Status(
        key=row["key"],
        state=row["state"],
        title=row["title"],
        fraction=row["fraction"],
        message=row["message"],
        place=place,
        eta=_eta(row, now) if row["state"] == "running" else None,
        fault=bool(row["fault"]),
        ahead=not (row["interactive"] or row["kept"]),
    )


def _eta(row: Any, now: float) -> float | None:
    """Seconds left at the pace since the first report (a resumed scan starts half-way)."""
    if row["base"] is None or row["fraction"] - row["base"] < 0.01:
        return None
    pace = (now - row["base_time"]) / (row["fraction"] - row["base"])
    return float(max(0.0, pace * (1 - row["fraction"])))
