"""The queue: one row per key in SQLite, shared by every web process and the worker.

``state`` runs waiting -> running -> done, failed or cancelled. A *watcher* is a person (``owner``,
one browser session) who looks at something (``scope``) and asked for the key; asking again and
``status`` with the owner say "I am still here". A job is *interactive* while a page waits for it,
and *kept* if anyone asked for it as a batch (a scan, a sweep): kept jobs outlive their tabs. One
that is neither was asked for ahead, by a page that may want it next.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from explorer import job_table as table
from explorer.disk import private_folder
from explorer.records import Status

PATIENCE = 90.0
"""Seconds after which a running job that nobody was seen to watch stops, if nobody else waits
(else ``job_table.UNSEEN``). Browsers let hidden tabs poll only once a minute, and long work should
not start anew each time."""
ATTEMPTS = 3
"""Workers that a job may take down with it before it counts as failed."""
FATAL = (
    f"The worker ended {ATTEMPTS} times during this, most likely for lack of memory: see the log, "
    "give it more memory, and try again."
)


@dataclass(frozen=True)
class Job:
    """A claimed row: what to compute and under which key to store it."""

    key: str
    kind: str
    args: dict[str, Any]
    title: str
    interactive: bool


class Jobs:
    """The queue in ``folder/jobs.sqlite``. Safe across threads and processes; every method is one
    short transaction. Raises Unavailable when the folder cannot be written or its disk is full.
    ``clock`` gives seconds since the epoch."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._database = table.Database(private_folder(folder) / "jobs.sqlite")

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    # What the web asks.

    def submit(
        self,
        key: str,
        kind: str,
        args: Mapping[str, Any],
        title: str,
        *,
        owner: str,
        scope: str,
        interactive: bool,
        ahead: bool = False,
        retry: bool = False,
    ) -> Status:
        """Ask for a key; however many ask, one row, one computation. ``args`` is plain JSON.

        The owner becomes a watcher, and if ``interactive``, leaves what they wanted in other
        scopes: such jobs are cancelled unless someone else watches them or they are kept. What is
        asked for ``ahead`` is interactive when somebody waits for it; until then it is neither
        that nor kept, and withdrawn when the owner leaves the scope.

        Asking again is how a page polls, so it never loops on an ended job. A failure is returned,
        not run again, to an owner who asked in the 10 minutes before (so never to a page that goes
        on asking); it is run again for somebody new. What the owner cancelled in this scope stays
        cancelled to them as long as they go on asking and 10 minutes more, even if it runs for
        others; leaving the scope forgets that, and another person's ask starts it. A job that was
        done moments ago is returned as done. ``retry`` (a button) starts anew in all these cases.
        A job that was withdrawn because nobody looked starts again when somebody looks.
        """
        text = json.dumps(dict(args), sort_keys=True)
        interactive, kept = (False, False) if ahead else (interactive, not interactive)
        with self._database.transaction() as db:
            now = self._clock()
            if interactive:
                table.leave(db, owner, scope, now)
            row, watcher = table.find(db, key), table.watcher(db, key, owner, scope)
            refused = not retry and table.refuses(watcher, now)
            ended = row is not None and row["state"] not in ("waiting", "running")
            if row is None or (ended and (retry or not table.stands(row, watcher, now))):
                table.enqueue(db, (key, kind, text, title, interactive, kept))
            elif not ended and not refused:
                db.execute(
                    "UPDATE jobs SET stop = 0, interactive = interactive OR ?, kept = kept OR ?"
                    " WHERE key = ?",
                    (interactive, kept, key),
                )
            db.execute(
                "INSERT OR REPLACE INTO watchers VALUES (?, ?, ?, ?, ?)",
                (key, owner, scope, now, refused),
            )
            return self._status(db, table.find(db, key), refused)

    def retry(self, key: str, *, owner: str, scope: str) -> Status | None:
        """Ask again, as it was asked before, for what failed or was cancelled; None if that is
        forgotten."""
        with self._database.reading() as db:
            row = table.find(db, key)
        if row is None:
            return None
        return self.submit(
            key,
            row["kind"],
            json.loads(row["args"]),
            row["title"],
            owner=owner,
            scope=scope,
            interactive=bool(row["interactive"] or not row["kept"]),
            retry=True,
        )

    def status(self, key: str, owner: str | None = None) -> Status | None:
        """How a key stands, None if nobody asked for it lately. With ``owner``, it also says that
        they still look, and puts back what was withdrawn because nobody did."""
        if owner is None:
            with self._database.reading() as db:
                row = table.find(db, key)
                return None if row is None else self._status(db, row)
        with self._database.transaction() as db:
            row = table.find(db, key)
            if row is None:
                return None
            refusals = db.execute(
                "UPDATE watchers SET seen = ? WHERE key = ? AND owner = ? RETURNING refused",
                (self._clock(), key, owner),
            ).fetchall()
            wanted = any(not refused for (refused,) in refusals)
            if row["state"] == "cancelled" and wanted:
                names = ("key", "kind", "args", "title", "interactive", "kept")
                table.enqueue(db, tuple(row[name] for name in names))
            return self._status(db, table.find(db, key), bool(refusals) and not wanted)

    def cancel(self, key: str, owner: str) -> None:
        """Withdraw an owner. If nobody else watches, the job ends: at once while it waits, at its
        next report while it runs."""
        with self._database.transaction() as db:
            now = self._clock()
            # Nobody needs to watch a kept job, so its absent watchers are withdrawn with it.
            db.execute(
                "UPDATE watchers SET refused = 1, seen = max(seen, ?) WHERE key = ? AND (owner = ?"
                " OR (SELECT kept FROM jobs WHERE key = watchers.key) AND seen <= ?)",
                (now, key, owner, now - table.UNSEEN),
            )
            if table.end_unwatched(db, key, now):
                db.execute("UPDATE jobs SET kept = 0 WHERE key = ?", (key,))

    def active(self) -> tuple[Status, ...]:
        """What runs, then what waits, in the order of the queue."""
        return self._list(
            "SELECT * FROM jobs WHERE state IN ('running', 'waiting')"
            " ORDER BY state, interactive DESC, rank LIMIT ?",
            1000,
        )

    def recent(self, limit: int = 20) -> tuple[Status, ...]:
        """What ended, latest first."""
        return self._list(
            "SELECT * FROM jobs WHERE state IN ('done', 'failed', 'cancelled')"
            " ORDER BY ended DESC LIMIT ?",
            limit,
        )

    # What the worker does.

    def claim(self, worker: str, interactive_only: bool = False) -> Job | None:
        """Take the next job: interactive before batch, then first come, first served. Interactive
        jobs that nobody looks at any more are cancelled instead."""
        with (
            self._database.reading() as db
        ):  # an idle worker asks often: it must not lock out writers
            if not db.execute("SELECT 1 FROM jobs WHERE state = 'waiting' LIMIT 1").fetchone():
                return None
        with self._database.transaction() as db:
            now = self._clock()
            table.end_unwatched(db, None, now)
            row = db.execute(
                "UPDATE jobs SET state = 'running', worker = ?, beat = ?, attempts = attempts + 1,"
                " base = NULL, stop = 0 WHERE key = (SELECT key FROM jobs WHERE state = 'waiting'"
                " AND interactive >= ? ORDER BY interactive DESC, rank LIMIT 1)"
                " RETURNING key, kind, args, title, interactive",
                (worker, now, interactive_only),
            ).fetchone()
        if row is None:
            return None
        key, kind, args, title, interactive = row
        return Job(key, kind, json.loads(args), title, bool(interactive))

    def beat(self, key: str, fraction: float, message: str) -> bool:
        """Say how far a running job is. True means stop: it was cancelled, or nobody has looked
        at it for a while (15 s while others wait, else 90 s)."""
        with self._database.transaction() as db:
            now = self._clock()
            row = db.execute(
                "UPDATE jobs SET fraction = :fraction, message = :message, beat = :now,"
                " base_time = iif(base IS NULL, :now, base_time), base = coalesce(base, :fraction)"
                " WHERE key = :key AND state = 'running' RETURNING stop, kept",
                {"fraction": fraction, "message": message, "now": now, "key": key},
            ).fetchone()
            if row is None or row["stop"]:
                return True
            if row["kept"]:
                return False
            others = db.execute("SELECT 1 FROM jobs WHERE state = 'waiting' LIMIT 1").fetchone()
            since = now - (table.UNSEEN if others else PATIENCE)
            looked = "SELECT 1 FROM looked WHERE key = ? AND seen > ?"
            return db.execute(looked, (key, since)).fetchone() is None

    def finish(self, key: str) -> None:
        """The answer is stored."""
        self._end(key, "done", "")

    def fail(self, key: str, sentence: str, fault: bool = False) -> None:
        """It cannot be answered; ``sentence`` tells people why and what to do. ``fault``: by a
        fault of ours."""
        self._end(key, "failed", sentence, fault)

    def stopped(self, key: str) -> None:
        """The worker stopped it as ``beat`` asked. Back into the queue if someone asked since."""
        with self._database.transaction() as db:
            now = self._clock()
            db.execute(
                "UPDATE jobs SET ended = :now, message = '', state = iif(NOT stop AND (kept OR"
                " key IN (SELECT key FROM looked WHERE seen > :since)), 'waiting', 'cancelled')"
                " WHERE key = :key AND state = 'running'",
                {"key": key, "now": now, "since": now - table.UNSEEN},
            )
            table.prune(db)

    def requeue_stale(self, seconds: float = 20.0) -> int:
        """Put back what runs but has not beaten for ``seconds``: its worker died. A job that took
        several workers with it fails. Returns how many were put back."""
        with self._database.transaction() as db:
            now = self._clock()
            db.execute(
                "UPDATE jobs SET state = 'failed', ended = ?, message = ?"
                " WHERE attempts >= ? AND state = 'running' AND beat <= ?",
                (now, FATAL, ATTEMPTS, now - seconds),
            )
            return db.execute(
                "UPDATE jobs SET state = iif(stop, 'cancelled', 'waiting'), ended = ?, message = ''"
                " WHERE state = 'running' AND beat <= ?",
                (now, now - seconds),
            ).rowcount

    def release(self, worker: str) -> None:
        """Put back what ``worker`` runs, because it is asked to end; no attempt is counted."""
        with self._database.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = iif(stop, 'cancelled', 'waiting'), ended = ?,"
                " message = '', attempts = attempts - 1 WHERE state = 'running' AND worker = ?",
                (self._clock(), worker),
            )

    def _end(self, key: str, state: str, message: str, fault: bool = False) -> None:
        with self._database.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, message = ?, fault = ?, ended = ?,"
                " fraction = iif(?, 1, fraction) WHERE key = ? AND state = 'running'",
                (state, message, fault, self._clock(), state == "done", key),
            )
            table.prune(db)

    def _list(self, query: str, limit: int) -> tuple[Status, ...]:
        with self._database.reading() as db:
            rows = db.execute(query, (limit,)).fetchall()
            return tuple(self._status(db, row) for row in rows)

    def _status(self, db: sqlite3.Connection, row: Any, refused: bool = False) -> Status:
        """``refused``: the asker cancelled; to them it is cancelled while it runs for others."""
        status = table.status(db, row, self._clock())
        if refused and status.state in ("waiting", "running"):
            return replace(status, state="cancelled", place=0, eta=None)
        return status
