"""Downloads that fail within seconds when there is no way out, and one sentence about it."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from explorer.records import Unavailable

SECONDS = 5.0
"""How long a host may take to answer at all."""
STALLED = 15.0
"""How long a download may stand still."""


@contextmanager
def fetching(what: str) -> Iterator[None]:
    """Run a library's download of ``what`` with short waits; what is cached is used offline.

    Raises Unavailable, saying what to do, when a download is needed and cannot be had.
    """
    offline, patience = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    constants.HF_HUB_OFFLINE = offline or not _answers(constants.ENDPOINT)
    socket.setdefaulttimeout(STALLED)
    try:
        yield
    except (OSError, http.client.HTTPException, HfHubHTTPError) as error:
        raise Unavailable(
            f"The weights of {what} cannot be downloaded from here: connect to the internet, or "
            "give the path of a checkpoint as weights (random also works)."
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(patience)


def _answers(address: str) -> bool:
    """Whether a host answers, be it with an error."""
    if not address.startswith(("https:", "http:")):
        return False
    try:
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - checked above
        urllib.request.urlopen(request, timeout=SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True
