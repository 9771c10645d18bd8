"""The process that owns the device: claims a job, has it answered, stores the answer.

Run as ``python -m explorer worker``. The web starts its own as ``python -m explorer.worker PID``,
which ends with the process PID.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from explorer.jobs import Job, Jobs
from explorer.lab import Report
from explorer.lock import take_place
from explorer.logs import log_to
from explorer.records import BadInput, Cancelled, ExplorerError, Unavailable
from explorer.settings import Settings, load_settings
from explorer.store import Store

LOG = logging.getLogger("explorer.worker")

NICE = 5
IDLE_SECONDS = 0.02
MOMENT_SECONDS = 0.5
REST_SECONDS = 30.0
REPORT_SECONDS = 0.1
PULSE_SECONDS = 1.0
CHECK_SECONDS = 10.0
RETRY_SECONDS = 5.0
DEVICE_LOST = 3
"""Exit code that says that the device is gone for this process, not for the next."""

Answer = Callable[[str, dict[str, Any], Report], Any]
"""(kind, args, report) to the record that answers a job, or None where there is none to store."""


class Worker:
    """Answers jobs one at a time, in the thread that calls it. While a batch job runs, its reports
    serve waiting interactive jobs, so that pages need not wait for a scan or sweep to end.
    ``when_idle`` does a moment's work for what may be asked next and says whether there is more; it
    is called when nothing has been asked for a moment, until there is no more. ``rest`` is called
    whenever nothing has been asked for half a minute."""

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        answer: Answer,
        log: str = "the log",
        when_idle: Callable[[], bool] | None = None,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._store = store
        self._jobs = jobs
        self._answer = answer
        self._log = log
        self._when_idle = when_idle
        self._rest = rest
        self._stop = threading.Event()

    def run_one(self, interactive_only: bool = False) -> bool:
        """Answer the next job; False if there is none."""
        job = self._jobs.claim(self.name, interactive_only)
        if job is None:
            return False
        start = time.monotonic()
        pulse = Pulse(self._jobs, job.key)
        try:
            self._run(job, pulse)
        finally:
            pulse.end()
        LOG.debug("%s (%s) took %.2f s.", job.title, job.key, time.monotonic() - start)
        return True

    def run_forever(self, stop: threading.Event) -> None:
        """Answer jobs until ``stop``; what runs then goes back into the queue."""
        self._stop = stop
        checked = worked = time.monotonic()
        more, rested = self._when_idle is not None, False
        while not stop.is_set():
            try:
                if self.run_one():
                    worked = time.monotonic()
                    more, rested = self._when_idle is not None, False
                    continue
                idle = time.monotonic() - worked
                if self._when_idle and more and idle > MOMENT_SECONDS:
                    more = _try(self._when_idle)
                    continue
                if idle > REST_SECONDS and not rested:
                    rested = True
                    self._rest()
                if time.monotonic() - checked > CHECK_SECONDS:
                    checked = time.monotonic()
                    self._jobs.requeue_stale()
                stop.wait(IDLE_SECONDS)
            except Unavailable as error:
                LOG.error("%s", error)
                stop.wait(RETRY_SECONDS)

    def _run(self, job: Job, pulse: Pulse) -> None:
        try:
            record = self._answer(job.kind, job.args, self._report(job, pulse))
            if record is not None:
                self._store.put(job.key, record)
        except Cancelled:
            self._put_back(job)
        except ExplorerError as error:
            LOG.debug("%s failed: %s", job.key, error)
            self._jobs.fail(job.key, " ".join(str(error).split()))
        except MemoryError:
            LOG.exception("%s ran out of memory", job.key)
            self._jobs.fail(job.key, "There is too little memory for this: ask for less at a time.")
        except Exception as error:
            LOG.exception("%s failed", job.key)
            if device_lost(error):
                raise SystemExit(DEVICE_LOST) from error
            kind = type(error).__name__
            sentence = f"This failed by a fault of ours ({kind}): see {self._log}."
            self._jobs.fail(job.key, sentence, fault=True)
        else:
            self._jobs.finish(job.key)

    def _report(self, job: Job, pulse: Pulse) -> Report:
        def stopping() -> bool:
            return pulse.stop or self._stop.is_set()

        def report(fraction: float, message: str) -> None:
            pulse.tell(fraction, message)
            while not job.interactive and not stopping() and self.run_one(interactive_only=True):
                continue
            if stopping():
                raise Cancelled(f"{job.title} was stopped.")

        return report

    def _put_back(self, job: Job) -> None:
        if self._stop.is_set():
            self._jobs.release(self.name)
        else:
            self._jobs.stopped(job.key)


def _try(get_ready: Callable[[], bool]) -> bool:
    """What fails here will fail again when it is asked for, and say so to somebody."""
    try:
        return get_ready()
    except Exception:
        LOG.debug("What could be made ready could not", exc_info=True)
        return False


class Pulse:
    """The progress of a running job and its sign of life, which long silent steps need too.
    ``stop`` becomes true when the job is to stop."""

    def __init__(self, jobs: Jobs, key: str) -> None:
        self.stop = False
        self._jobs = jobs
        self._key = key
        self._told = (0.0, "")
        self._written = -math.inf
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="pulse", daemon=True)
        self._thread.start()

    def tell(self, fraction: float, message: str) -> None:
        """Take note of the progress; written, and asked whether to stop, at most ten times a
        second."""
        self._told = (min(max(fraction, 0.0), 1.0), message)
        if time.monotonic() - self._written >= REPORT_SECONDS:
            self._beat()

    def end(self) -> None:
        """No more signs of life."""
        self._ended.set()
        self._thread.join()

    def _beat_on(self) -> None:
        while not self._ended.wait(PULSE_SECONDS):
            self._beat()

    def _beat(self) -> None:
        self._written = time.monotonic()
        try:
            self.stop = self._jobs.beat(self._key, *self._told) or self.stop
        except Unavailable as error:  # the job itself may well go on
            LOG.warning("Progress was not noted: %s", error)


def device_lost(error: BaseException) -> bool:
    """Whether a CUDA context is broken, so that nothing works on it until the process ends."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def main(settings: Settings, parent: int = 0) -> None:
    """Be the worker until SIGTERM, SIGINT, or the end of the process ``parent`` (if not 0)."""
    if settings.read_only:
        raise BadInput("This explorer is read-only and needs no worker: unset EXPLORER_READ_ONLY.")
    lock = take_place(settings.cache_dir)
    stop = threading.Event()
    if parent:
        threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()
    log = log_to(settings.cache_dir, "worker", console=not parent)
    os.nice(NICE)
    store = Store(settings.cache_dir, settings.cache_gb)
    jobs = Jobs(settings.cache_dir)
    jobs.requeue_stale(0)  # this process holds the lock, so whatever runs has lost its worker
    try:
        from explorer.answers import Answers

        _end_by_signals(stop)  # before, there is nothing to put back
        LOG.info("The worker is ready; its log is %s.", log)
        answers = Answers(settings, store)
        Worker(store, jobs, answers, str(log), answers.get_ready, answers.rest).run_forever(stop)
    except Exception:
        LOG.exception("The worker ended")
        raise
    finally:
        jobs.close()
        store.close()
        lock.close()
    LOG.info("The worker ended.")


def _end_by_signals(stop: threading.Event) -> None:
    """Have SIGTERM and SIGINT set ``stop``: by a thread, as the one that a signal interrupts may
    hold the lock of ``stop``. A simple queue has none."""
    told: SimpleQueue[int] = SimpleQueue()

    def wait() -> None:
        told.get()
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.put(number))


def _end_with(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        time.sleep(PULSE_SECONDS)
    stop.set()


if __name__ == "__main__":
    try:
        main(load_settings(), int(sys.argv[1]))
    except ExplorerError as error:
        sys.exit(str(error))
