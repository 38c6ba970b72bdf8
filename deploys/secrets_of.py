"""Secrets of a host's services: read on the controller, compared with what the host holds."""

from __future__ import annotations

from collections.abc import Iterable
from secrets import token_hex

from pyinfra import host

from deploys.common import QUICK_S, failed, privilege
from facts.credentials import Credentials
from multigpu import credentials
from multigpu.credentials import Secret, Wanted
from multigpu.errors import MultigpuError
from multigpu.plan import Plan
from multigpu.store import secret_files


def services(plans: Iterable[Plan]) -> tuple[Wanted, ...]:
    """Every secret that these services need on the host."""
    return tuple(each for plan in plans for each in credentials.wanted(plan.wish))


def missing(each: Iterable[Wanted]) -> tuple[Secret, ...]:
    """Those that the host lacks or holds otherwise; asks the host only where there are any.

    Raises MultigpuError when a file of the controller is no secret, or the host does not answer.
    """
    secrets = tuple(secret_files.load(one) for one in each)
    if not secrets:
        return ()
    nonce = token_hex(16)
    paths = tuple(secret.path for secret in secrets)
    found = host.get_fact(Credentials, nonce=nonce, paths=paths, _timeout=QUICK_S, **privilege())
    if found is None and not failed():
        raise MultigpuError("the host gave no answer about its secrets: run this again")
    return credentials.to_install(secrets, found or (), nonce)
