"""HTTP to services of this very host: never through a proxy, whatever the environment says."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from typing import Any, Union

FAILURES = (OSError, ValueError, http.client.HTTPException)
"""What `open_url` may raise; urllib.error.URLError is an OSError."""

# A certificate names the address that clients use, not the loopback that is asked here.
_UNVERIFIED = ssl.create_default_context()
_UNVERIFIED.check_hostname = False
_UNVERIFIED.verify_mode = ssl.CERT_NONE
_DIRECT = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_UNVERIFIED)
)


def open_url(request: Union[str, urllib.request.Request], timeout_s: float) -> Any:
    """The answer, to be used in a with statement. Raises one of FAILURES."""
    return _DIRECT.open(request, timeout=timeout_s)


def said(error: Exception) -> str:
    """What a failure says, in one line, with the begin of the server's own words."""
    text = str(error) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError):
        text += ": " + error.read(300).decode("utf-8", "replace")
    return " ".join(text.split())
