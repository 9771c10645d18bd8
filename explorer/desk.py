"""Where a question meets the store and the queue, and what must be known before it can be asked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from explorer import browse, questions
from explorer.arrays import ScanArrays
from explorer.images import sets
from explorer.jobs import Jobs
from explorer.keys import BATCH, Identity, Question, job_args, key
from explorer.networks.identity import identity as network_identity
from explorer.records import (
    PRECISIONS,
    BadInput,
    ImageSet,
    Layer,
    NetworkInfo,
    Neuron,
    Scan,
    Status,
    Workspace,
)
from explorer.settings import Settings
from explorer.store import Store

RECHECK_SECONDS = 20.0
"""How long a look at a picture folder, a checkpoint or a finished scan is believed."""

MOST_OPENED = 16

T = TypeVar("T")
W = TypeVar("W", NetworkInfo, ImageSet)


@dataclass(frozen=True)
class Asker:
    """Who asks (a random id of a browser session or command) and what about: jobs that the same
    owner wanted under another scope are withdrawn. Who asks ``ahead`` does not wait for it."""

    owner: str
    scope: str
    ahead: bool = False


@dataclass(frozen=True)
class Opened:
    """A workspace whose network and pictures are known."""

    workspace: Workspace
    network: NetworkInfo
    images: ImageSet
    identity: Identity


@dataclass(frozen=True)
class OpenedLayer(Opened):
    """A workspace and one of its layers, scanned."""

    layer: Layer
    scan: Scan


class Desk:
    """Finds stored answers and files jobs for the others. Whatever is still missing comes back
    as the Status of the job that makes it."""

    def __init__(self, settings: Settings, queue: Jobs | None = None) -> None:
        self.settings = settings
        self.store = Store(settings.cache_dir, settings.cache_gb, settings.read_only)
        self.queue = queue or Jobs(settings.cache_dir)
        self._looks: dict[str, tuple[float, str]] = {}
        self._scans: dict[tuple[str, str], tuple[float, Scan]] = {}
        self._opened: dict[str, NetworkInfo | ImageSet] = {}

    def ask(
        self, question: Question, identity: Identity, asker: Asker, kind: type[T], look: bool = True
    ) -> T | Status:
        """The stored answer (where ``look``), else the Status of its one job."""
        found = self.store.get(key(question, identity)) if look else None
        return found if isinstance(found, kind) else self.submit(question, identity, asker)

    def known(
        self, question: Question, identity: Identity, asker: Asker, kind: type[T]
    ) -> T | Status | None:
        """The stored answer, or the Status of a job filed before; None starts nothing."""
        name = key(question, identity)
        found = self.store.get(name)
        if isinstance(found, kind):
            return found
        status = self.queue.status(name, asker.owner)
        return None if status is None or status.state in ("done", "cancelled") else status

    def submit(self, question: Question, identity: Identity, asker: Asker) -> Status:
        """File the question's job, or find it filed."""
        if self.settings.read_only:
            raise BadInput(
                "This explorer is read-only and has no stored answer to that: "
                "ask where EXPLORER_READ_ONLY is not set."
            )
        return self.queue.submit(
            key(question, identity),
            question.kind,
            job_args(question, identity),
            question.title,
            owner=asker.owner,
            scope=asker.scope,
            interactive=question.kind not in BATCH,
            ahead=asker.ahead,
        )

    def ask_about(
        self, neuron: Neuron, asker: Asker, build: Callable[[Workspace], Question], kind: type[T]
    ) -> T | Status:
        """Ask about a neuron, whose layer must be scanned first."""
        opened = self.open_neuron(neuron, asker)
        if isinstance(opened, Status):
            return opened
        return self.ask(build(opened.workspace), opened.identity, asker, kind)

    def network(self, ws: str, asker: Asker) -> NetworkInfo | Status:
        """The workspace's network."""
        workspace = self.settings.workspace(ws)
        question = questions.network(workspace)
        return self._open(question, self._weights(workspace), asker, NetworkInfo)

    def images(self, ws: str, asker: Asker) -> ImageSet | Status:
        """The workspace's pictures, indexed anew when their folder changes."""
        workspace = self.settings.workspace(ws)
        images, data = workspace.images, self.settings.data_dir
        fingerprint = self._look(f"images {images}", lambda: sets.fingerprint(images, data))
        question = questions.images(workspace, fingerprint)
        return self._open(question, fingerprint, asker, ImageSet)

    def open(self, ws: str, asker: Asker) -> Opened | Status:
        """The workspace with its network and pictures."""
        network = self.network(ws, asker)
        if isinstance(network, Status):
            return network
        images = self.images(ws, asker)
        if isinstance(images, Status):
            return images
        workspace = self.settings.workspace(ws)
        identity = Identity(self._weights(workspace), images.digest)
        return Opened(workspace, network, images, identity)

    def open_layer(self, ws: str, layer: str, asker: Asker) -> OpenedLayer | Status:
        """The workspace with the scan of one layer."""
        opened = self.open(ws, asker)
        if isinstance(opened, Status):
            return opened
        found = opened.network.layer(layer)
        scan = self._scan(opened.identity, found.name)
        if scan is None:
            question = questions.scan(opened.workspace, [found.name])
            return self.submit(question, opened.identity, asker)
        return OpenedLayer(
            opened.workspace, opened.network, opened.images, opened.identity, found, scan
        )

    def open_neuron(self, neuron: Neuron, asker: Asker) -> OpenedLayer | Status:
        """The workspace with the scan of the neuron's layer; BadInput where it has no such
        channel."""
        opened = self.open_layer(neuron.workspace, neuron.layer, asker)
        if isinstance(opened, OpenedLayer):
            browse.check_channel(neuron, opened.layer)
        return opened

    def arrays(self, identity: Identity) -> ScanArrays:
        """The scans of a network over pictures."""
        return ScanArrays(self.settings.cache_dir / "scans" / identity.scans)

    def _scan(self, identity: Identity, layer: str) -> Scan | None:
        """The finished scan of a layer, whose files are looked at once in a while: a page asks for
        it a dozen times. What is missing is looked for again."""
        name, now = (identity.scans, layer), time.monotonic()
        if name in self._scans and now - self._scans[name][0] < RECHECK_SECONDS:
            return self._scans[name][1]
        found = self.arrays(identity).read(layer)
        if found is None:
            self._scans.pop(name, None)
            return None
        while len(self._scans) >= MOST_OPENED:
            self._scans.pop(next(iter(self._scans)), None)
        self._scans[name] = (now, found)
        return found

    def _open(self, question: Question, content: str, asker: Asker, kind: type[W]) -> W | Status:
        """What every question about a workspace needs; decoded once, as it never changes."""
        identity = questions.nothing_but(content)
        name = key(question, identity)
        found = self._opened.get(name)
        if isinstance(found, kind):
            return found
        answer = self.ask(question, identity, asker, kind)
        if not isinstance(answer, Status):
            if len(self._opened) >= MOST_OPENED:
                self._opened.clear()
            self._opened[name] = answer
        return answer

    def _weights(self, workspace: Workspace) -> str:
        """What identifies the workspace's network with its weights, as it is scanned."""
        network, weights = workspace.network, workspace.weights
        name = f"network {network} {weights}"
        found = self._look(name, lambda: network_identity(network, weights))
        exact = workspace.precision == PRECISIONS[0]
        return found if exact else f"{found}, {workspace.precision}"

    def _look(self, name: str, look: Callable[[], str]) -> str:
        """What a look at files says, believed for a while; nothing found is looked for again."""
        now = time.monotonic()
        seen, found = self._looks.get(name, (-RECHECK_SECONDS, ""))
        if now - seen >= RECHECK_SECONDS or not found:
            found = look()
            self._looks[name] = (now, found)
        return found
