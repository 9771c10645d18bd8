"""Bulk work on many devices: Ray actors do pieces of it, and their answers come back in order.

Ray is optional, imported here alone and only when asked for. Its processes trust one another, as
they exchange pickles; nothing that a person gave the explorer is unpickled.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from explorer.compute.device import threads
from explorer.records import ExplorerError, Unavailable

LOG = logging.getLogger(__name__)

LOCAL = "local"
SCHEME = "ray"
QUEUED = 2
"""Tasks given to each actor at a time, so that none waits for the next."""
AHEAD = 4
"""Answers, for each actor, that may wait for an earlier one."""
ATTEMPTS = 3
GLANCE_SECONDS = 1.0
REACH_SECONDS = 5.0
LEAVE_SECONDS = 5.0
SETTINGS = b"\x04"
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
"""How HTTP/2, which Ray's client server speaks, begins on either side: with a frame of settings."""
QUIET = {"log_to_driver": False, "logging_level": logging.ERROR}

Task = TypeVar("Task")
Answer = TypeVar("Answer")
Maker: TypeAlias = AbstractContextManager[Callable[[Task], Answer]]
"""What an actor does with a task, for as long as it lives."""


class Cluster:
    """A connection to Ray, for as long as the context lasts: ``ray`` starts one on this machine,
    ``ray://HOST:PORT`` asks the one whose client server listens there. One actor for each GPU, or,
    where there is none or ``device`` is "cpu", for as many cores as this process has threads:
    rounding depends on their number, and an actor is to find what this process would. Actors with
    a GPU share the cores of its machine, which decode for it. There are ``actors``, each with so
    many ``cores``.
    """

    def __init__(self, address: str, device: str) -> None:
        self._ray = _connected(address)
        found = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = [0 if device == "cpu" else int(each.get("GPU", 0)) for each in found]
        cores = [int(each.get("CPU", 0)) for each in found]
        self.gpus = sum(gpus) > 0
        if self.gpus:
            pairs = zip(cores, gpus, strict=True)
            self.cores = self._threads = max(1, min(c // g for c, g in pairs if g))
        else:
            self._threads = threads()
            self.cores = max(1, min(self._threads, max(cores, default=1)))
        self.actors = max(1, sum(gpus) or sum(each // self.cores for each in cores))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ray.shutdown()

    @property
    def size(self) -> str:
        """How many actors, in words."""
        return "1 actor" if self.actors == 1 else f"{self.actors} actors"

    @property
    def device(self) -> str:
        """The device that each actor has for itself."""
        return "cuda:0" if self.gpus else "cpu"

    def map(
        self,
        make: Callable[..., Maker[Task, Answer]],
        args: tuple[Any, ...],
        tasks: Sequence[Task],
        idle: Callable[[], None],
    ) -> Iterator[Answer]:
        """The answers to tasks, in their order, by the function that the context ``make(*args)``
        gives on each actor; ``make`` is a function of a module. ``idle`` is called each second of
        waiting.

        A lost actor is replaced and its tasks done again; Unavailable when a task has taken three
        with it. What a task raises is raised here.
        """
        crew = _Crew(self._ray, min(self.actors, len(tasks)), self._each(), make, args)
        waiting = enumerate(tasks)
        ready: dict[int, Any] = {}
        given = 0
        try:
            more = bool(tasks)
            while more or crew.busy or ready:
                while more and crew.free and len(ready) < AHEAD * self.actors:
                    task = next(waiting, None)
                    more = task is not None
                    if task is not None:
                        crew.give(*task)
                if crew.busy and given not in ready:
                    ready.update(crew.collect(idle))
                while given in ready:
                    yield ready.pop(given)
                    given += 1
        finally:
            crew.end()

    def _each(self) -> dict[str, Any]:
        """What an actor is given."""
        variables = {"OMP_NUM_THREADS": str(self._threads)}
        given = {"num_cpus": self.cores, "runtime_env": {"env_vars": variables}}
        return given | {"num_gpus": 1} if self.gpus else given


class _Crew:
    """The actors of one kind of work, and what each is at."""

    def __init__(
        self,
        ray: Any,
        size: int,
        each: Mapping[str, Any],
        make: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self._ray = ray
        self._kind = ray.remote(_Actor).options(**each)
        self._about = (make, ray.put(args))
        self._tasks: dict[Any, tuple[int, Any, Any]] = {}  # reference -> number, task, actor
        self._attempts: dict[int, int] = {}
        self._places = deque(self._hire(size) * QUEUED)

    @property
    def free(self) -> bool:
        """Whether an actor can take a task."""
        return bool(self._places)

    @property
    def busy(self) -> bool:
        """Whether an answer will come."""
        return bool(self._tasks)

    def give(self, number: int, task: Any) -> None:
        """Let an actor with a free place do a task."""
        actor = self._places.popleft()
        self._attempts[number] = self._attempts.get(number, 0) + 1
        self._tasks[actor.do.remote(task)] = number, task, actor

    def collect(self, idle: Callable[[], None]) -> dict[int, Any]:
        """Wait a moment; the answers that came, by number."""
        ended, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=GLANCE_SECONDS)
        found: dict[int, Any] = {}
        for reference in ended:
            number, task, actor = self._tasks.pop(reference)
            try:
                found[number] = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, ExplorerError):
                    raise error.cause from None
                raise
            except self._ray.exceptions.RayError as error:
                LOG.warning("A Ray actor was lost: %s", str(error).splitlines()[0])
                self._replace(actor, (number, task))
            else:
                self._attempts.pop(number)
                self._places.append(actor)
        if not ended:
            idle()
        return found

    def end(self) -> None:
        """Dismiss all actors, whatever they are at. Those that are at nothing tidy up before."""
        at_work = {actor for _, _, actor in self._tasks.values()}
        idle = {*self._places} - at_work
        if left := [actor.leave.remote() for actor in idle]:
            self._ray.wait(left, num_returns=len(left), timeout=LEAVE_SECONDS)
        for actor in idle | at_work:
            self._ray.kill(actor)

    def _hire(self, count: int) -> list[Any]:
        return [self._kind.remote(*self._about) for _ in range(count)]

    def _replace(self, lost: Any, task: tuple[int, Any]) -> None:
        """Give the tasks of a lost actor to a new one."""
        self._ray.kill(lost)
        others = [ref for ref, (_, _, actor) in self._tasks.items() if actor == lost]
        again = [task, *(self._tasks.pop(reference)[:2] for reference in others)]
        if self._attempts[task[0]] >= ATTEMPTS:
            raise Unavailable(
                f"Ray lost {ATTEMPTS} actors at the same piece of work: see its logs; often a "
                "machine has too little memory for one actor on each device."
            )
        for number, _ in again[1:]:  # these had not begun
            self._attempts[number] -= 1
        (hired,) = self._hire(1)
        kept = (actor for actor in self._places if actor != lost)
        self._places = deque([*[hired] * QUEUED, *kept])
        for number, each in again:
            self.give(number, each)


class _Actor:
    """Lives in a process of its own, with one device."""

    def __init__(self, make: Callable[..., Maker[Any, Any]], args: tuple[Any, ...]) -> None:
        self._make = partial(make, *args)
        self._life = ExitStack()
        self._work: Callable[[Any], Any] | None = None

    def do(self, task: Any) -> Any:
        """The answer to a task. What cannot even be begun is told of the first task."""
        self._work = self._work or self._life.enter_context(self._make())
        return self._work(task)

    def leave(self) -> None:
        """Tidy up: no task will come."""
        self._life.close()


def _connected(address: str) -> Any:
    """The module ray, connected; Unavailable, in one sentence, where that cannot be."""
    try:
        import ray
    except ImportError as error:
        raise Unavailable(
            "The engine 'ray' needs Ray: run pip install -r requirements-ray.txt, or use the "
            "engine 'local'."
        ) from error
    try:
        if address == SCHEME:
            with _own_signals():
                ray.init(address="local", include_dashboard=False, **QUIET)
        else:
            _reach(address)
            _join(ray, address)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise Unavailable(
            f"The Ray cluster '{address}' cannot be used ({said}): check that it runs Ray "
            f"{ray.__version__}, that this is the address of its client server, and its token."
        ) from error
    return ray


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and aborts: whoever runs this process knows how it ends."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)


def _join(ray: Any, address: str) -> None:
    """Become a client. Ray starts a process for each, and gives up where that takes long once."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(address=address, **QUIET)
            return
        except ConnectionAbortedError:
            if attempt == ATTEMPTS:
                raise
            LOG.warning("Ray could not serve this client: asking again.")
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError soon where nothing answers, or something else; Ray itself tries for long."""
    host, _, port = address.removeprefix(f"{SCHEME}://").rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        connection.sendall(GREETING)
        if connection.recv(9)[3:4] != SETTINGS:
            raise OSError("what answers there is no client server of Ray")
