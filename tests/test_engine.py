"""Bulk work on Ray: a real cluster of two actors, one of which is killed, and the same bytes."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from actors_work import squares
from tiny import LAYER, LOWER, draw_pictures, tiny_settings

from explorer import __main__ as command_line
from explorer.answers import layer as layer_answers
from explorer.answers.layer import sweep_part
from explorer.backend import Asker, Backend, SplitQuestion, Study
from explorer.compute import engine, grouped, scan
from explorer.compute.device import threads
from explorer.compute.engine import Cluster
from explorer.lock import ACTOR, HELD, hold
from explorer.records import BadInput, Neuron, Status, Unavailable
from explorer.session import InlineQueue
from explorer.settings import load_settings

ROOT = Path(__file__).parent.parent
PATHS = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
ASKER = Asker("ann", "here")
MARK = "ENGINE_TEST_MARK"
RAY = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "known-to-this-test-alone",
    "RAY_worker_niceness": "0",
}
"""How Ray's processes know one another, and that they need not wait for all others; read when Ray
is loaded."""
os.environ |= RAY
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def die_once() -> None:
    """End this process without a word, if no other has."""
    try:
        os.close(os.open(os.environ[MARK], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def mortal(module: str, name: str, *args: Any) -> Iterator[Any]:
    """What actors do by a function of a module; the first of them dies at its first task."""
    with getattr(import_module(module), name)(*args) as work:

        def work_or_die(task: Any) -> Any:
            die_once()
            return work(task)

        yield work_or_die


def mortal_part(*args: Any) -> None:
    """A part of a sweep that an actor does not survive."""
    sweep_part(*args)
    die_once()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A thread for this process, and so for each actor."""
    before = threads()  # asked for the first time, it sets them
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("engine") / "pictures", each=30)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster of two slots for CPU work, in processes of its own."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-ray.txt")
    ports = [free_port() for _ in range(2)]
    mark = tmp_path_factory.mktemp("mark") / "died"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--num-cpus=2", f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    environment = os.environ | {"PYTHONPATH": PATHS, MARK: str(mark)}
    os.environ[MARK] = str(mark)
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
            break
        time.sleep(0.1)
    yield f"ray://127.0.0.1:{ports[1]}"
    head.send_signal(signal.SIGTERM)
    head.wait(30)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def backend(folder: Path, pictures: Path, where: str) -> Backend:
    settings = replace(tiny_settings(folder, pictures), engine=where)
    return Backend(settings, InlineQueue(settings))


def answer(ask: Any) -> Any:
    for _ in range(10):
        found = ask()
        if not isinstance(found, Status):
            return found
        assert found.state != "failed", found.message
    raise AssertionError("no answer")


@pytest.fixture
def mortals(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors of which the first dies at its work."""
    Path(os.environ[MARK]).unlink(missing_ok=True)
    for module, name in ((scan, "scanner"), (grouped, "attributer")):
        monkeypatch.setattr(module, name, partial(mortal, module.__name__, name))
    monkeypatch.setattr(layer_answers, "sweep_part", mortal_part)
    monkeypatch.setattr(scan, "TASK_IMAGES", max(scan.BATCHES.values()))


def test_ray_finds_what_one_process_finds_though_an_actor_dies(
    address: str, pictures: Path, tmp_path: Path, mortals: None, caplog: pytest.LogCaptureFixture
) -> None:
    folders = {"local": tmp_path / "local", "ray": tmp_path / "ray"}
    asked = SplitQuestion(Neuron("tiny", LAYER, 0), "pure", {"lower": LOWER})
    simple = SplitQuestion(Neuron("tiny", LAYER, 0), "activations")
    swept = {}
    for name, folder in folders.items():
        asks = backend(folder, pictures, address if name == "ray" else "local")
        answer(lambda asks=asks: asks.scan("tiny", [LAYER, LOWER], ASKER))
        if name == "ray":
            assert "actor was lost" in caplog.text
            Path(os.environ[MARK]).unlink()
            caplog.clear()
        swept[name] = answer(lambda asks=asks: asks.studies.sweep(asked, ASKER, (0, 19)))
        if name == "ray":
            assert "actor was lost" in caplog.text
            Path(os.environ[MARK]).unlink()
            caplog.clear()
        answer(lambda asks=asks: asks.studies.sweep(simple, ASKER, (0, 3)))
    assert "actor was lost" in caplog.text
    assert arrays(folders["local"]) == arrays(folders["ray"])
    local, ray = swept["local"], swept["ray"]
    for field in ("channels", "k", "silhouette", "stability"):
        np.testing.assert_array_equal(getattr(local, field), getattr(ray, field))
    alive = np.flatnonzero(local.k > 0)[:3].tolist()
    for method, channel in [(asked, channel) for channel in alive] + [(simple, alive[0])]:
        question = replace(method, neuron=Neuron("tiny", LAYER, channel))
        one, other = (
            answer(partial(backend(where, pictures, "local").split, question, ASKER))
            for where in folders.values()
        )
        np.testing.assert_array_equal(one.strength, other.strength)
        np.testing.assert_array_equal(one.centroid, other.centroid)


def arrays(folder: Path) -> dict[str, bytes]:
    """Every file of the scans."""
    root = folder / "cache" / "scans"
    found = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    assert len(found) > 8
    return found


def test_a_comparison_is_the_same_on_ray(address: str, pictures: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)  # two actors of one thread
    study = Study(LAYER, ("activations", "random"), neurons=6, ks=(2, 3))
    found = [
        answer(lambda asks=asks: asks.studies.evaluation("tiny", study, ASKER))
        for asks in (
            backend(tmp_path / "local", pictures, "local"),
            backend(tmp_path / "ray", pictures, address),
        )
    ]
    local, ray = (asdict(replace(each, seconds={})) for each in found)
    np.testing.assert_equal(ray, local)
    assert left_by_actors() == []


def left_by_actors() -> list[Path]:
    """Folders that no actor holds any more."""
    found = []
    for folder in Path(tempfile.gettempdir()).glob(f"{ACTOR}*"):
        with suppress(Unavailable):  # it went meanwhile, with an actor of another cluster
            if (held := hold(folder / HELD)) is not None:
                held.close()
                found.append(folder)
    return found


def test_answers_come_in_order_and_errors_as_they_are(address: str) -> None:
    calls: list[int] = []

    def stop() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with Cluster(address, "cpu") as cluster:
        assert cluster.actors == 2
        found = cluster.map(squares, (-1,), range(40), lambda: None)
        assert list(found) == [number**2 for number in range(40)]
        with pytest.raises(BadInput, match="choose another"):
            list(cluster.map(squares, (5,), range(40), lambda: None))
        with pytest.raises(Unavailable, match="lost 3 actors"):
            list(cluster.map(squares, (-1,), [1, 100], lambda: None))
        assert list(cluster.map(squares, (-1,), [], lambda: None)) == []


def test_a_cluster_of_this_machine_is_started_and_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", PATHS)
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    try:
        with Cluster("ray", "cpu") as cluster:
            assert list(cluster.map(squares, (-1,), [3, 4], lambda: None)) == [9, 16]
            os.kill(os.getpid(), signal.SIGTERM)
        assert asked == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not ray.is_initialized()


def test_ray_that_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Unavailable, match=r"pip install -r requirements-ray\.txt"):
        Cluster("ray", "cpu")


NODES = [
    {"Alive": True, "Resources": {"CPU": 2.0}},
    {"Alive": True, "Resources": {"CPU": 5.0, "memory": 1e9}},
    {"Alive": False, "Resources": {"CPU": 64.0}},
]


@pytest.mark.parametrize(("count", "actors"), [(1, 7), (2, 3), (4, 1), (16, 1)])
def test_an_actor_has_as_many_cores_as_this_process_has_threads(
    monkeypatch: pytest.MonkeyPatch, count: int, actors: int
) -> None:
    monkeypatch.setattr(engine, "_connected", lambda address: SimpleNamespace(nodes=lambda: NODES))
    torch.set_num_threads(count)
    cluster = Cluster("ray", "auto")
    assert (cluster.actors, cluster.device) == (actors, "cpu")
    assert cluster.size == ("1 actor" if actors == 1 else f"{actors} actors")
    asked = cluster._each()
    assert asked["num_cpus"] == min(count, 5)
    assert asked["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": str(count)}


def test_each_gpu_has_an_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}}] * 2
    monkeypatch.setattr(engine, "_connected", lambda address: SimpleNamespace(nodes=lambda: nodes))
    cluster = Cluster("ray", "auto")
    assert (cluster.actors, cluster.device) == (8, "cuda:0")
    asked = cluster._each()
    assert (asked["num_gpus"], asked["num_cpus"], cluster.cores) == (1, 4, 4), "they share them"
    assert asked["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": "4"}
    assert Cluster("ray", "cpu").device == "cpu"


def test_a_client_that_is_not_served_at_once_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def init(address: str, **quiet: Any) -> None:
        calls.append(address)
        if len(calls) < 3:
            raise ConnectionAbortedError

    ray = SimpleNamespace(init=init, shutdown=lambda: None, nodes=lambda: NODES, __version__="0")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(engine, "_reach", lambda address: None)
    with Cluster("ray://head:1", "cpu") as cluster:
        assert cluster.actors == 7
    assert calls == ["ray://head:1"] * 3
    calls.clear()
    monkeypatch.setattr(engine, "ATTEMPTS", 2)
    with pytest.raises(Unavailable, match="cannot be used"):
        Cluster("ray://head:1", "cpu")


def test_a_cluster_that_does_not_answer_is_one_sentence(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr(engine, "REACH_SECONDS", 0.5)
    monkeypatch.setenv("EXPLORER_CACHE_DIR", str(tmp_path))
    common = ["scan", "--network", "timm:test_resnet", "--weights", "random:0"]
    asked = [*common, "--images", str(pictures), "--engine", f"ray://127.0.0.1:{free_port()}"]
    assert command_line.main(asked) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cannot be used" in said
    assert "client server" in said


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_answers_but_is_no_ray_is_found_out_soon(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    ray = SimpleNamespace(__version__="0", init=lambda **_: pytest.fail("Ray waits for long"))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(engine, "REACH_SECONDS", 0.3)
    held = []

    def serve(listening: socket.socket) -> None:
        held.append(listening.accept()[0])
        if answer is not None:
            held[0].recv(100)
            held[0].sendall(answer)
            held[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        with pytest.raises(Unavailable, match=r"timed out|no client server of Ray"):
            Cluster(f"ray://127.0.0.1:{listening.getsockname()[1]}", "cpu")
        thread.join()
    held[0].close()


def test_engines_that_do_not_exist_are_refused() -> None:
    for wrong in ("dask", "ray:", "ray://host", "ray://a b:1", "RAY"):
        with pytest.raises(BadInput, match="EXPLORER_ENGINE is"):
            load_settings({"EXPLORER_ENGINE": wrong})
    for right in ("local", "ray", "ray://head.example.org:10001", "ray://[::1]:10001"):
        assert load_settings({"EXPLORER_ENGINE": right}).engine == right
