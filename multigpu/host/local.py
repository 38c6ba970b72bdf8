"""HTTP to services of this very host: never through a proxy, whatever the environment says."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any, Union

FAILURES = (OSError, ValueError, http.client.HTTPException)
"""What `open_url` may raise; urllib.error.URLError is an OSError."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def open_url(request: Union[str, urllib.request.Request], timeout_s: float) -> Any:
    """The answer, to be used in a with statement. Raises one of FAILURES."""
    return _DIRECT.open(request, timeout=timeout_s)


def said(error: Exception) -> str:
    """What a failure says, in one line, with the begin of the server's own words."""
    text = str(error) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError):
        text += ": " + error.read(300).decode("utf-8", "replace")
    return " ".join(text.split())
