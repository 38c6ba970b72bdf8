"""HTTP of the fetch program: where a token may go, what is worth another try, what is not.

Redirects are followed here and not by urllib alone: urllib would carry the headers of a request,
and with them the token, to whatever host an answer names (`HTTPRedirectHandler.redirect_request`).
Proxies are those of the environment, as urllib reads them (`https_proxy`, `no_proxy`).
"""

from __future__ import annotations

import email.utils
import http.client
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Dict, Optional, Tuple

TIMEOUT_S = 30.0
LONGEST_WAIT_S = 300.0
AGENT = "multigpu"
TRANSIENT = (408, 425, 429, 500, 502, 503, 504, 520, 522, 524)
HERE = "do: download the model on the controller and give its path as model"


class Refused(Exception):
    """It would fail the same way again; one line for the operator."""


class Interrupted(Exception):
    """Worth another try. `wait_s` is what the server asked for, None when it said nothing.

    `reached` is False when no server answered at all.
    """

    def __init__(self, why: str, wait_s: Optional[float] = None, reached: bool = True) -> None:
        super().__init__(why)
        self.wait_s = wait_s
        self.reached = reached


def origin(url: str) -> Tuple[str, str, Optional[int]]:
    """Scheme, host and port: what has to be equal for a token to be sent."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https only (http where it was told), and gives the token to no other host."""

    def __init__(self, client: "Client") -> None:
        self.client = client

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Optional[urllib.request.Request]:
        """The next request; a token is never among the headers that urllib takes along."""
        self.client.check(newurl)
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            self.client.authorize(following)
        return following


class Client:
    """Opens URLs. `token` is sent to the origin of `hub` and to nobody else."""

    def __init__(
        self, hub: Optional[str] = None, token: Optional[str] = None, allow_http: bool = False
    ) -> None:
        self.hub, self._token, self.allow_http = hub, token, allow_http
        self._opener = urllib.request.build_opener(Redirects(self))

    def check(self, url: str) -> None:
        """Raises Refused for anything but https, and http where that is allowed."""
        scheme, host, _ = origin(url)
        if not host or scheme not in (("https", "http") if self.allow_http else ("https",)):
            raise Refused(
                f"{shown(url)} is no https address; do: give one that is served over https"
            )

    def authorize(self, request: urllib.request.Request) -> None:
        """Add the token if this request goes to the hub itself."""
        if self._token and self.hub and origin(request.full_url) == origin(self.hub):
            # Unredirected: urllib does not copy it into the request of a redirect.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")

    def open(self, url: str, headers: Optional[Dict[str, str]] = None) -> Any:
        """The answer, 200 or 206, to be read and closed. Raises Refused or Interrupted."""
        self.check(url)
        known = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})}
        request = urllib.request.Request(url, headers=known)
        self.authorize(request)
        try:
            return self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise self._answered(url, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise unreached(url, error) from None

    def _answered(self, url: str, error: urllib.error.HTTPError) -> Exception:
        """What an error status of the server means."""
        if error.code == 416:
            return Interrupted("416", 0.0)
        if error.code in TRANSIENT:
            return Interrupted(
                f"{shown(url)} answered {error.code}", asked_to_wait(error.headers, time.time())
            )
        if error.code in (401, 403):
            return Refused(f"{shown(url)} answered {error.code}: {self._forbidden(url)}")
        if error.code in (404, 410):
            return Refused(
                f"{shown(url)} answered {error.code}: it is not there (any more); do: check the "
                "address and the revision, then run deploys/plan.py"
            )
        return Refused(f"{shown(url)} answered {error.code}, needed is 200; {HERE}")

    def _forbidden(self, url: str) -> str:
        if self.hub is None or origin(url) != origin(self.hub):
            return f"it wants a login, and only the hub gets a token; {HERE}"
        had = "the token of hf_token_file was refused" if self._token else "no token was given"
        return (
            f"{had}; do: accept the model's licence on the hub and set hf_token_file to a token of "
            "that account"
        )


def unreached(url: str, error: Exception) -> Exception:
    """What a failure without an answer means: certificates are not tried again, the rest is."""
    reason = getattr(error, "reason", error)
    reason = reason if isinstance(reason, Exception) else error
    if isinstance(reason, (Refused, Interrupted)):
        return reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Refused(
            f"the certificate of {host_of(url)} does not hold ({reason.verify_message}); do: check "
            "the host's clock and install the certificate of your proxy or mirror"
        )
    said = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    timed_out = isinstance(reason, TimeoutError)
    return Interrupted(f"{host_of(url)} cannot be reached ({said})", reached=timed_out)


def asked_to_wait(headers: Any, now: float) -> Optional[float]:
    """Seconds of Retry-After (RFC 9110, 10.2.3), a number or a date; None when it says nothing."""
    text = str(headers.get("Retry-After") or "").strip()
    if not text:
        return None
    if text.isdigit():
        return min(float(text[:9]), LONGEST_WAIT_S)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(at - now, 0.0), LONGEST_WAIT_S)


def host_of(url: str) -> str:
    """The host's name alone."""
    return origin(url)[1] or shown(url)


def shown(url: str) -> str:
    """An address for logs: without query and login, which may hold a signature or a password."""
    parts = urllib.parse.urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}" if place else parts.path or "the address"
