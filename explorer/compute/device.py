"""The device that networks run on, and the process settings that make it fast."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from functools import cache

import torch

from explorer.records import Unavailable


def choose_device(setting: str = "auto") -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda[:N]``, with this process tuned for it.

    ``auto`` is the first CUDA device, or the CPU where there is none. Raises Unavailable when a
    CUDA device is asked for that this machine does not have.
    """
    _tune()
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if setting == "cpu" or (setting == "auto" and not count):
        return torch.device("cpu")
    device = torch.device("cuda:0" if setting in ("auto", "cuda") else setting)
    if (device.index or 0) >= count:
        have = "no CUDA device" if not count else f"only {count} CUDA device(s)"
        raise Unavailable(
            f"EXPLORER_DEVICE is '{setting}', but {have} can be used here: set it to auto or cpu."
        )
    return device


def cpu_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads() -> int:
    """How many threads a network runs on here, on a CPU."""
    _tune()
    return torch.get_num_threads()


def give_back() -> None:
    """Let the system have the memory that nothing here uses, which ``choose_device`` has this
    process keep. What comes next asks for it again, at half a second a GiB."""
    gc.collect()
    torch.cuda.empty_cache()
    libc = _libc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _libc() -> ctypes.CDLL | None:
    """glibc; None where there is another C library, whose allocator has no such knobs."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None


@cache
def _tune() -> None:
    """Once per process, before the first forward pass.

    glibc returns large tensors to the system and faults them in again on every pass; keeping
    them (no mmap, no trimming, growth by 256 MiB, one heap for all threads, as those of other
    threads are returned all the same) makes networks two to four times as fast. One core is left to
    the web process where there are more than two. Convolutions stay float32: TF32 would reorder top
    images.
    """
    libc = _libc()
    if libc is not None:
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 << 20), (-8, 1)):
            libc.mallopt(parameter, value)
    if "OMP_NUM_THREADS" not in os.environ:
        cores = cpu_cores()
        torch.set_num_threads(cores - 1 if cores > 2 else cores)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
