"""One run of the command line: its workspace, its backend, and waiting for answers."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from explorer.backend import Asker, Backend
from explorer.jobs import Jobs
from explorer.records import BadInput, Status, Workspace
from explorer.settings import Settings, load_settings
from explorer.store import Store

POLL_SECONDS = 0.03
CUSTOM = "custom"

T = TypeVar("T")


class Fault(Exception):
    """The worker failed by a fault of ours, not by anything the person gave."""


class InlineQueue(Jobs):
    """Runs each question here and now instead of queueing it; what it raises is the answer."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.cache_dir)
        self._settings = settings
        self._store = Store(settings.cache_dir, settings.cache_gb, settings.read_only)
        self._answers: Callable[..., Any] | None = None

    def submit(self, key: str, kind: str, args: Mapping[str, Any], title: str, **_: Any) -> Status:
        """Compute and store the answer; raises whatever made it impossible."""
        if self._answers is None:
            from explorer.answers import Answers

            self._answers = Answers(self._settings, self._store)
        record = self._answers(kind, args, lambda fraction, message: _show(title, message))
        if record is not None:
            self._store.put(key, record)
        _show(title, "done")
        return Status(key, "done", title, 1.0)


class Session:
    """What a command needs: ``wait`` turns a question into its answer."""

    def __init__(self, args: argparse.Namespace) -> None:
        settings, self.ws = _settings(args)
        engine = getattr(args, "engine", "")
        inline = args.inline or engine or not _worker_alive(settings)
        self.backend = Backend(settings, InlineQueue(settings) if inline else None)
        self.asker = Asker(f"command-{os.getpid()}", f"command-{os.getpid()}")

    def wait(self, ask: Callable[[], T | Status]) -> T:
        """Ask until answered, with progress on stderr. A failed job raises its sentence."""
        while True:
            answer = ask()
            if not isinstance(answer, Status):
                return answer
            if answer.state == "failed":
                raise (Fault if answer.fault else BadInput)(answer.message)
            if answer.state == "cancelled":
                raise BadInput("The computation was cancelled: run the command again.")
            if answer.state != "done":
                _show(answer.title, f"{answer.fraction:.0%} {answer.message}")
                time.sleep(POLL_SECONDS)


def _settings(args: argparse.Namespace) -> tuple[Settings, str]:
    """Settings with the workspace that the options name or compose, and its name."""
    engine = getattr(args, "engine", "")
    settings = load_settings(os.environ | ({"EXPLORER_ENGINE": engine} if engine else {}))
    base = settings.workspace(args.workspace) if args.workspace else settings.workspaces[0]
    given = {
        name: getattr(args, name)
        for name in ("network", "weights", "images", "embedder", "precision")
        if getattr(args, name)
    }
    if not given:
        return settings, base.name
    if "network" in given and "weights" not in given:
        given["weights"] = "default"
    custom = replace(base, name=CUSTOM, layers=(), **given)
    others: tuple[Workspace, ...] = tuple(w for w in settings.workspaces if w.name != CUSTOM)
    return replace(settings, workspaces=(*others, custom)), CUSTOM


def _worker_alive(settings: Settings) -> bool:
    from explorer.serve import worker_alive

    return worker_alive(settings.cache_dir)


class _Progress:
    """Progress on stderr: rewritten in place on a terminal, else one line per finished step."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, title: str, message: str) -> None:
        line = f"{title}: {message}"
        if line == self._last:
            return
        self._last = line
        if sys.stderr.isatty():
            print(f"\r\033[K{line[:110]}", end="", file=sys.stderr, flush=True)
        elif message == "done":
            print(line, file=sys.stderr, flush=True)


_show = _Progress()
