"""The worker: answers, failures, yielding, stopping, and what survives a kill."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from explorer import serve as serving
from explorer.jobs import Jobs
from explorer.lock import take_place, worker_alive
from explorer.records import BadInput, Neuron, OutOfMemory, Unavailable
from explorer.settings import load_settings
from explorer.store import Store
from explorer.worker import DEVICE_LOST, Worker, main

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, 0.1)
    yield store
    store.close()


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path)
    yield jobs
    jobs.close()


def ask(jobs: Jobs, key: str, kind: str = "k", interactive: bool = True, owner: str = "ann"):
    return jobs.submit(
        key, kind, {"n": 3}, f"Job {key}", owner=owner, scope="s", interactive=interactive
    )


def until(condition) -> None:
    """Wait for something that other processes do."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_an_answer_is_stored_and_the_job_done(store, jobs) -> None:
    seen = []

    def answer(kind, args, report):
        report(0.5, "halfway")
        seen.append((kind, args, jobs.status("a").message))
        return Neuron("demo", "x", args["n"])

    worker = Worker(store, jobs, answer)
    assert not worker.run_one()
    ask(jobs, "a")
    assert worker.run_one()
    assert not worker.run_one()
    assert seen == [("k", {"n": 3}, "halfway")]
    assert store.get("a") == Neuron("demo", "x", 3)
    assert jobs.status("a").state == "done"


def test_nothing_is_stored_for_none(store, jobs) -> None:
    ask(jobs, "a")
    Worker(store, jobs, lambda *_: None).run_one()
    assert jobs.status("a").state == "done"
    assert "a" not in store


@pytest.mark.parametrize(
    ("error", "sentence", "fault"),
    [
        (BadInput("There is no\n such layer."), "There is no such layer.", False),
        (OutOfMemory("The device is too small."), "The device is too small.", False),
        (MemoryError(), "too little memory", False),
        (KeyError("x"), r"fault of ours \(KeyError\): see LOG", True),
        (RuntimeError("shapes differ"), "fault of ours", True),
    ],
)
def test_failures_are_told_and_the_worker_goes_on(store, jobs, error, sentence, fault, caplog):
    def answer(kind, args, report):
        if kind == "bad":
            raise error
        return Neuron("demo", "x", 1)

    worker = Worker(store, jobs, answer, "LOG")
    ask(jobs, "a", "bad")
    ask(jobs, "b")
    assert worker.run_one()
    assert worker.run_one()
    status = jobs.status("a")
    assert (status.state, status.fault) == ("failed", fault)
    assert re.search(sentence, status.message)
    assert ("Traceback" in caplog.text) == (fault or isinstance(error, MemoryError))
    assert jobs.status("b").state == "done"


def test_a_full_disk_fails_the_job_alone(store, jobs, monkeypatch) -> None:
    def full(key, record):
        raise Unavailable("The disk is full.")

    monkeypatch.setattr(store, "put", full)
    ask(jobs, "a")
    Worker(store, jobs, lambda *_: Neuron("demo", "x", 1)).run_one()
    assert jobs.status("a").message == "The disk is full."


def test_an_answer_that_is_no_record_is_a_fault(store, jobs) -> None:
    ask(jobs, "a")
    Worker(store, jobs, lambda *_: object()).run_one()
    assert jobs.status("a").fault


def test_a_lost_device_ends_the_process_and_the_job_comes_back(store, jobs) -> None:
    def answer(kind, args, report):
        raise RuntimeError("CUDA error: device-side assert triggered")

    ask(jobs, "a")
    with pytest.raises(SystemExit) as caught:
        Worker(store, jobs, answer).run_one()
    assert caught.value.code == DEVICE_LOST
    assert jobs.status("a").state == "running"
    assert jobs.requeue_stale(0) == 1


def test_a_worker_rests_once_after_each_time_of_work(store, jobs, monkeypatch) -> None:
    monkeypatch.setattr("explorer.worker.REST_SECONDS", 0.2)
    stop, did = threading.Event(), []

    def answer(kind, args, report):
        did.append(kind)

    def rest() -> None:
        did.append("rest")
        if did.count("rest") == 1:
            ask(jobs, "b", "second")
        else:
            threading.Timer(0.5, stop.set).start()

    ask(jobs, "a", "first")
    Worker(store, jobs, answer, rest=rest).run_forever(stop)
    assert did == ["first", "rest", "second", "rest"]


def test_cancel_stops_at_the_next_report(store, jobs) -> None:
    def answer(kind, args, report):
        jobs.cancel("a", "ann")
        for step in range(1000):
            time.sleep(0.01)
            report(step / 1000, "")
        return Neuron("demo", "x", 1)

    ask(jobs, "a")
    Worker(store, jobs, answer).run_one()
    assert jobs.status("a").state == "cancelled"
    assert "a" not in store


def test_a_batch_serves_interactive_jobs_between_its_steps(store, jobs) -> None:
    order = []

    def answer(kind, args, report):
        order.append(f"{kind} begins")
        if kind == "scan":
            report(0.1, "one")
            ask(jobs, "a")
            ask(jobs, "bad", "bad")
            ask(jobs, "another scan", "other", interactive=False)
            report(0.2, "two")
            assert jobs.status("a").state == "done"
            assert jobs.status("scan").state == "running"
        elif kind == "k":
            report(0.5, "an interactive job does not yield")
            ask(jobs, "late", owner="bob")
            report(0.6, "")
            order.append("k goes on")
        else:
            raise BadInput("No.")
        order.append(f"{kind} ends")
        return Neuron("demo", kind, 1)

    ask(jobs, "scan", "scan", interactive=False)
    assert Worker(store, jobs, answer).run_one()
    assert order[:4] == ["scan begins", "k begins", "k goes on", "k ends"]
    assert order[-1] == "scan ends"
    assert [jobs.status(key).state for key in ("scan", "a", "late", "bad", "another scan")] == [
        "done",
        "done",
        "done",
        "failed",
        "waiting",
    ]


def test_a_long_silent_step_shows_signs_of_life(store, jobs, monkeypatch) -> None:
    monkeypatch.setattr("explorer.worker.PULSE_SECONDS", 0.02)

    def answer(kind, args, report):
        report(0.3, "a long step")
        jobs._database._connection.execute("UPDATE jobs SET beat = 0")
        until(lambda: jobs._database._connection.execute("SELECT beat FROM jobs").fetchone()[0])
        assert jobs.requeue_stale() == 0

    ask(jobs, "a")
    Worker(store, jobs, answer).run_one()
    assert jobs.status("a").state == "done"


def test_reports_are_written_at_most_four_times_a_second(store, jobs, monkeypatch) -> None:
    beats = []
    monkeypatch.setattr(jobs, "beat", lambda *args: bool(beats.append(args)))
    monkeypatch.setattr("explorer.worker.REPORT_SECONDS", 1000.0)
    monkeypatch.setattr("explorer.worker.PULSE_SECONDS", 1000.0)

    def answer(kind, args, report):
        for step in range(100):
            report(step / 10, "step")

    ask(jobs, "a")
    Worker(store, jobs, answer).run_one()
    assert beats == [("a", 0.0, "step")]


def test_asked_to_end_it_puts_its_jobs_back(store, jobs) -> None:
    stop = threading.Event()

    def answer(kind, args, report):
        if kind == "scan":
            ask(jobs, "a")
            report(0.5, "")
        stop.set()
        report(0.6, "")

    ask(jobs, "scan", "scan", interactive=False)
    Worker(store, jobs, answer).run_forever(stop)
    assert [status.state for status in jobs.active()] == ["waiting", "waiting"]


def test_idle_it_gets_ready_step_by_step_and_answers_between(store, jobs, monkeypatch) -> None:
    monkeypatch.setattr("explorer.worker.MOMENT_SECONDS", 0.0)
    seen, stop = [], threading.Event()

    def get_ready() -> bool:
        seen.append("ready")
        if len(seen) == 2:
            ask(jobs, "a")
        if seen.count("ready") == 6:
            stop.set()
        return len(seen) != 5  # after this nothing is left, until something is answered again

    def answer(kind, args, report):
        seen.append("answer")
        return Neuron("demo", "x", args["n"])

    worker = threading.Thread(
        target=Worker(store, jobs, answer, when_idle=get_ready).run_forever, args=(stop,)
    )
    worker.start()
    until(lambda: len(seen) >= 5)
    assert seen[:5] == ["ready", "ready", "answer", "ready", "ready"]
    ask(jobs, "b")
    until(lambda: len(seen) >= 7)
    assert seen[5:7] == ["answer", "ready"]
    stop.set()
    worker.join(PATIENCE)
    assert not worker.is_alive()


def test_a_queue_that_cannot_be_written_does_not_end_the_worker(store, jobs, monkeypatch) -> None:
    monkeypatch.setattr("explorer.worker.RETRY_SECONDS", 0.0)
    stop = threading.Event()
    failures = iter([Unavailable("The disk is full."), Unavailable("The disk is full.")])

    def claim(*_):
        for failure in failures:
            raise failure
        stop.set()

    monkeypatch.setattr(jobs, "claim", claim)
    Worker(store, jobs, lambda *_: None).run_forever(stop)
    assert stop.is_set()


STAND_IN = """
import sys, time, types
from pathlib import Path
import numpy as np
from explorer.arrays import ScanArrays
from explorer.records import FigureFile, Layer
from explorer import settings, worker

BATCH = 8

class Answers:
    def __init__(self, settings, store):
        self.cache = settings.cache_dir

    def rest(self):
        pass

    def get_ready(self):
        return False

    def __call__(self, kind, args, report):
        layer = Layer("layer", 5, 7, 7, True, None, (), "")
        with ScanArrays(self.cache / "scans" / "digest").writer([layer], args["images"]) as writer:
            for first in range(writer.gaps[0][0], args["images"], BATCH):
                while first >= 3 * BATCH and not (self.cache / "go").exists():
                    time.sleep(0.01)
                    report(first / args["images"], "waits")
                images = np.arange(first, min(first + BATCH, args["images"]))
                values = np.tile(images, (5, 1)).astype(np.float32)
                writer.append({"layer": (values, values, values.astype(int))})
                writer.flush()
                report(first / args["images"], f"{first} pictures")
            writer.finish()
        return FigureFile("answer", "text/plain", np.arange(7, dtype=np.uint8))

sys.modules["explorer.answers"] = types.SimpleNamespace(Answers=Answers)
worker.main(settings.load_settings(), int(sys.argv[1]))
"""


def start_worker(folder: Path, parent: int = 0) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", STAND_IN, str(parent)],
        cwd=ROOT,
        env=os.environ | {"EXPLORER_CACHE_DIR": str(folder)},
        stderr=subprocess.PIPE,
    )


def scan(jobs: Jobs):
    args = {"images": 80}
    return jobs.submit("scan", "scan", args, "Scan", owner="a", scope="s", interactive=False)


def scanned(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "scans").rglob("*.*")}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_another_worker_finishes_what_a_killed_one_began(tmp_path, number) -> None:
    folders = tmp_path / "killed", tmp_path / "whole"
    queues = [Jobs(folder) for folder in folders]
    for queue in queues:
        scan(queue)
    first = start_worker(folders[0])
    until(lambda: queues[0].status("scan").message == "waits")
    os.kill(first.pid, number)
    first.communicate(timeout=PATIENCE)
    assert first.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    killed = number == signal.SIGKILL
    assert queues[0].status("scan").state == ("running" if killed else "waiting")
    for folder in folders:
        (folder / "go").touch()
    workers = [start_worker(folder) for folder in folders]
    for queue in queues:
        until(lambda queue=queue: queue.status("scan").state == "done")
    for worker in workers:
        worker.terminate()
        worker.communicate(timeout=PATIENCE)
    answers = []
    for folder in folders:
        store = Store(folder, 0.1)
        answers.append(store.get("scan").data.tobytes())
        store.close()
    assert answers[0] == answers[1] == bytes(range(7))
    assert scanned(folders[0]) == scanned(folders[1])
    assert (folders[0] / "logs" / "worker.log").stat().st_size > 0
    for queue in queues:
        queue.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_heard_whatever_it_interrupts(number: int) -> None:
    code = (
        "import os, sys, threading, time; from explorer import worker\n"
        "stop = threading.Event(); worker._end_by_signals(stop)\n"
        "with stop._cond:  # as while it is waited for\n"
        "    os.kill(os.getpid(), int(sys.argv[1])); time.sleep(0.1)\n"
        "sys.exit(0 if stop.wait(20) else 1)"
    )
    command = [sys.executable, "-c", code, str(int(number))]
    assert subprocess.run(command, cwd=ROOT, timeout=PATIENCE, check=False).returncode == 0


def test_one_worker_per_folder_and_it_ends_with_its_parent(tmp_path) -> None:
    assert not worker_alive(tmp_path)
    place = take_place(tmp_path)
    assert worker_alive(tmp_path)
    second = start_worker(tmp_path)
    _, told = second.communicate(timeout=PATIENCE)
    assert b"A worker already runs" in told
    place.close()
    assert not worker_alive(tmp_path)
    orphan = start_worker(tmp_path, parent=-1)  # which is not its parent any more
    orphan.communicate(timeout=PATIENCE)
    assert orphan.returncode == 0


def test_a_read_only_explorer_has_no_worker(tmp_path) -> None:
    settings = load_settings({"EXPLORER_CACHE_DIR": str(tmp_path), "EXPLORER_READ_ONLY": "1"})
    with pytest.raises(BadInput, match="read-only"):
        main(settings)
    serving.ensure_worker(settings)
    assert not worker_alive(tmp_path)


IDLE_WORKER = """
import sys, time
from pathlib import Path
from explorer.lock import take_place
place = take_place(Path(sys.argv[1]))
time.sleep(60)
"""


def test_a_worker_that_dies_is_replaced(tmp_path, monkeypatch, caplog) -> None:
    started = []

    def start(folder: Path):
        command = [sys.executable, "-c", IDLE_WORKER, str(folder)]
        started.append(subprocess.Popen(command, cwd=ROOT))
        return started[-1]

    monkeypatch.setattr(serving, "_start", start)
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(serving, "FIRST_DELAY", 0.01)
    settings = load_settings({"EXPLORER_CACHE_DIR": str(tmp_path)})
    serving.ensure_worker(settings)
    serving.ensure_worker(settings)
    until(lambda: worker_alive(tmp_path))
    assert len(started) == 1
    started[0].kill()
    until(lambda: len(started) == 2)
    until(lambda: worker_alive(tmp_path))
    assert "starting another" in caplog.text
    serving.end_workers()
    assert not worker_alive(tmp_path)
    assert started[1].returncode == -signal.SIGTERM
    assert len(started) == 2


def test_a_port_in_use_or_wrong_is_told() -> None:
    with serving.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"Port {port} .* in use.*--port"):
            serving.listen("127.0.0.1", port)
    for host, number in (("127.0.0.1", 70000), ("no.such.host.invalid", 8501), ("a" * 80, 1)):
        with pytest.raises(BadInput, match=r"--port|--host"):
            serving.listen(host, number)


SERVE = """
import sys
from explorer import serve, settings

async def app(scope, receive, send):
    if scope["type"] == "http":
        loaded = "torch" in sys.modules
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(loaded).encode()})

sys.modules["pages_stand_in"] = sys.modules["__main__"]
serve.APP = "pages_stand_in:app"
serve.Watch._run = lambda self: self._stop.wait()
serve.serve(settings.load_settings(), port=int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pages_are_served_until_asked_to_stop(tmp_path, number) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)],
        cwd=ROOT,
        env=os.environ | {"EXPLORER_CACHE_DIR": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    address = f"http://127.0.0.1:{port}"
    first = server.stderr.readline().decode()
    assert address in first
    with urllib.request.urlopen(address, timeout=PATIENCE) as response:
        assert response.read() == b"False"
    os.kill(server.pid, number)
    _, told = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
    assert told.decode().strip() == "Stopped; what was computed is kept."
