"""Starts and watches the worker, and serves the pages. Torch-free: the worker is a process."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from explorer.disk import private_folder, storing
from explorer.lock import worker_alive
from explorer.logs import log_to
from explorer.records import BadInput
from explorer.settings import HOME, Settings

__all__ = ["ensure_worker", "serve", "worker_alive"]

LOG = logging.getLogger("explorer.serve")

APP = "explorer.ui.web:app"
LOOK_SECONDS = 0.5
FIRST_DELAY, LAST_DELAY = 1.0, 60.0
"""Seconds before a worker that ended is started again: doubled each time that it ends young."""
GRACE_SECONDS = 10.0
"""What a worker gets to put back its job before it is killed."""

_starting = threading.Lock()
_watches: dict[Path, Watch] = {}


def ensure_worker(settings: Settings) -> None:
    """See to it that a worker runs on the cache folder as long as this process lives: start one
    whenever there is none. Cheap to call again. A read-only explorer needs none."""
    with _starting:
        if settings.cache_dir not in _watches and not settings.read_only:
            _watches[settings.cache_dir] = Watch(settings.cache_dir)
            _watches[settings.cache_dir].start()


@atexit.register
def end_workers() -> None:
    """Stop the workers that this process started; their jobs go back into the queue."""
    with _starting:
        while _watches:
            _watches.popitem()[1].end()


def serve(settings: Settings, host: str = "127.0.0.1", port: int = 8501) -> None:
    """Serve the pages, with a worker, until SIGINT or SIGTERM. Raises BadInput when host and port
    cannot be listened on."""
    import uvicorn

    listener = listen(host, port)
    log_to(settings.cache_dir, "web")
    for logger in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        # Streamlit sets their levels so that every request is logged; it leaves filters alone.
        logging.getLogger(logger).addFilter(lambda record: record.levelno >= logging.WARNING)
    # uvicorn gives signals back once it has closed down. A shell starts what runs in its
    # background with SIGINT ignored, so both are set.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    config = uvicorn.Config(
        APP,
        workers=1,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,  # open pages hold their websockets
    )
    try:
        ensure_worker(settings)
        name = f"[{host}]" if ":" in host else host
        LOG.info("Virtual Neuron Explorer: http://%s:%d", name, listener.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        LOG.info("Stopped; what was computed is kept.")
    finally:
        listener.close()
        end_workers()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, so that nobody can take the port between the check and its use."""
    if not 0 <= port < 2**16:
        raise BadInput(f"{port} is not a port: give --port a number from 1 to 65535.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadInput(f"'{host}' is not an address of this machine: check --host.") from error
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: "is in use: stop what listens there, or choose another with --port.",
            errno.EACCES: "may not be opened: choose one above 1023 with --port.",
        }
        reason = reasons.get(error.errno or 0, "cannot be opened: check --host and --port.")
        raise BadInput(f"Port {port} of {host} {reason}") from error
    return listener


class Watch:
    """A thread that keeps one worker alive, whoever started it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin, with the first worker."""
        self._thread.start()

    def end(self) -> None:
        """Stop watching, and the worker if it was started here. Harmless when repeated."""
        self._stop.set()
        self._thread.join(GRACE_SECONDS + 5)

    def _run(self) -> None:
        delay = FIRST_DELAY
        while not self._stop.is_set():
            if worker_alive(self._folder):  # another process started it
                self._stop.wait(LOOK_SECONDS)
                continue
            start = time.monotonic()
            code = self._run_worker()
            if self._stop.is_set() or worker_alive(self._folder):
                continue
            young = time.monotonic() - start < LAST_DELAY
            delay = min(2 * delay, LAST_DELAY) if young else FIRST_DELAY
            LOG.error(
                "The worker ended (%s); starting another in %.0f s. Its log: %s.",
                code,
                delay,
                self._folder / "logs" / "worker.log",
            )
            self._stop.wait(delay)

    def _run_worker(self) -> str:
        """Start a worker and wait for its end, or for ours; says how it ended."""
        try:
            process = _start(self._folder)
        except OSError as error:
            return str(error)
        while process.poll() is None and not self._stop.wait(LOOK_SECONDS):
            continue
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return f"exit code {process.returncode}"


def _start(folder: Path) -> subprocess.Popen[bytes]:
    """A worker of its own session, so that Ctrl-C reaches it through us alone. What it prints is
    in ``logs/worker.out``, from before it can log."""
    with storing(folder):
        out = (private_folder(folder / "logs") / "worker.out").open("wb")
    with out:
        return subprocess.Popen(
            [sys.executable, "-m", "explorer.worker", str(os.getpid())],
            cwd=HOME,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
