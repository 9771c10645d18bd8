"""What every answer needs: the store, what is loaded, and the Lab of the workspace in question."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from explorer.compute.device_lab import DeviceLab
from explorer.compute.engine import LOCAL, Cluster
from explorer.compute.shelf import Shelf
from explorer.images import sets
from explorer.keys import Identity, Question, key
from explorer.records import BadInput, ImageSet, Neuron, Workspace
from explorer.settings import Settings
from explorer.store import Store

T = TypeVar("T")

REMEMBERED = 8


class Room:
    """The worker's own: one device, what is loaded on it, and where answers are kept."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.shelf = Shelf(settings.device)
        self._images: dict[str, ImageSet] = {}
        self._labs: dict[Identity, DeviceLab] = {}
        self._memory: OrderedDict[Hashable, Any] = OrderedDict()

    def lab(self, question: Question, identity: Identity) -> DeviceLab:
        """The Lab of the question's workspace; that of the last workspace is kept."""
        if identity not in self._labs:
            workspace = question.workspace
            images = self._image_set(workspace, identity)
            cache = self.settings.cache_dir
            lab = DeviceLab(workspace, identity, images, self.shelf, self.store, cache)
            self._labs = {identity: lab}
        return self._labs[identity]

    def get_ready(self) -> bool:
        """A moment's work for what the last workspace may be asked next; whether there is more."""
        return any(lab.get_ready() for lab in self._labs.values())

    @contextmanager
    def cluster(self) -> Iterator[Cluster | None]:
        """The cluster that bulk work is to run on; None where that is this process alone."""
        if self.settings.engine == LOCAL:
            yield None
            return
        with Cluster(self.settings.engine, self.settings.device) as found:
            yield found

    @contextmanager
    def sharing(self, lab: DeviceLab) -> Iterator[None]:
        """Have a cluster do the bulk of what this Lab is asked, if there is one."""
        with self.cluster() as lab.cluster:
            try:
                yield
            finally:
                lab.cluster = None

    def kept(
        self, question: Question, identity: Identity, what: type[T], make: Callable[[], T]
    ) -> T:
        """The stored answer to a question that another one needs, or made and stored now."""
        name = key(question, identity)
        found = self.store.get(name)
        if not isinstance(found, what):
            found = make()
            self.store.put(name, found)
        return found

    def remembered(self, name: Hashable, make: Callable[[], T]) -> T:
        """Something costly that the next question may need too; the latest few are held."""
        if name not in self._memory:
            self._memory[name] = make()
        self._memory.move_to_end(name)
        while len(self._memory) > REMEMBERED:
            self._memory.popitem(last=False)
        found: T = self._memory[name]
        return found

    def _image_set(self, workspace: Workspace, identity: Identity) -> ImageSet:
        """The pictures as they were when the question was asked."""
        data = self.settings.data_dir
        fingerprint = sets.fingerprint(workspace.images, data)
        if fingerprint not in self._images:
            self._images = {fingerprint: sets.open_set(workspace.images, data)}
        found = self._images[fingerprint]
        if found.digest != identity.images:
            raise BadInput(
                f"The pictures of {workspace.images} have changed since this was asked: "
                "reload the page."
            )
        return found


def neuron_of(question: Question) -> Neuron:
    """The neuron that a question is about."""
    return Neuron.parse(question.workspace.name, question.subject)


def inner(kind: str, question: Question, args: Mapping[str, Any]) -> Question:
    """Another question about the same subject."""
    return replace(question, kind=kind, args=args)
