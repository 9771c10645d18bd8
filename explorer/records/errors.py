"""The error hierarchy. Each message is one sentence: what happened and what to do about it."""

from __future__ import annotations


class ExplorerError(Exception):
    """The root of every error that a person is meant to read."""


class BadInput(ExplorerError):
    """Something the person gave (a name, a file, a parameter) cannot be used. Exit code 2."""


class DeadNeuron(BadInput):
    """The channel fires on no image of the set, so it has no references to split or explain."""


class NoCluster(BadInput):
    """No virtual neuron comes of it: there are too few references, they are alike, or the settings
    drop every group."""


class MissingRule(BadInput):
    """A module has no relevance rule; the message names it and offers gradient x activation."""


class Unavailable(ExplorerError):
    """Something outside (a hub, a package, a device, disk space) cannot be had. Exit code 2."""


class OutOfMemory(Unavailable):
    """The device has too little memory even for the smallest batch."""


class Cancelled(ExplorerError):
    """The person withdrew the question before it was answered."""
