"""Secrets of a service: where they lie on the host, and how an engine gets its API key.

A secret is a file on the controller, then one that root alone may read on the host, then one in a
directory that systemd makes for a unit's processes (systemd.exec(5), LoadCredential=). Only its
path is ever part of a command line.

How engines take a key: vLLM 0.33.0 reads VLLM_API_KEY (entrypoints/serve/middleware/register.py);
llama_cpp.server 0.3.36 reads API_KEY, as its settings are pydantic's; llama-server has
--api-key-file. SGLang 0.5.23 has only --api-key, which a YAML file of --config may hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from multigpu.hardware import Host
from multigpu.plan import Credential, Wish

DIRECTORY = "/etc/multigpu/credentials"
MODE, OWNER = "0600", "root:root"
ITERATIONS = 100_000
API_KEY, HF_TOKEN, CERTIFICATE = "api_key", "hf_token", "certificate"
CONFIG_FILE = "secrets.yaml"
"""What the supervisor writes into $RUNTIME_DIRECTORY for an engine that wants a configuration."""
VARIABLES = {"vllm": "VLLM_API_KEY", "llama_cpp.server": "API_KEY"}
CONFIG_KEYS = {"sglang": "api-key"}
FLAGS = {"llama.cpp": "--api-key-file", "sglang": "--config"}


@dataclass(frozen=True)
class Wanted:
    """A secret that a host must hold: its path there, and the file on the controller."""

    path: str
    source_path: str
    several_lines: bool = False


@dataclass(frozen=True)
class Secret:
    """What must lie at a path of the host; the content is in no representation of the value."""

    path: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Installed:
    """A secret on the host: `proof` is PBKDF2 of its content and the nonce that was sent."""

    path: str
    proof: str
    mode: str
    owner: str


def path(service: str, name: str) -> str:
    """The file on the host: `/etc/multigpu/credentials/chat.api_key`. Replicas share it."""
    return f"{DIRECTORY}/{service}.{name}"


def wanted(wish: Wish) -> tuple[Wanted, ...]:
    """Every secret of a service that the host must hold."""
    sources = {API_KEY: wish.api_key_file, HF_TOKEN: wish.hf_token_file}
    each = [Wanted(path(wish.name, n), source) for n, source in sources.items() if source]
    if wish.endpoint is not None and wish.endpoint.certificate is not None:
        place = path(wish.name, CERTIFICATE)
        each.append(Wanted(place, wish.endpoint.certificate, several_lines=True))
    return tuple(each)


def proof(content: bytes, nonce: str) -> str:
    """What a host answers about a secret that it holds; hexadecimal.

    The nonce is new each time, so an answer that somebody saw says nothing about the next one; a
    guess at the secret costs ITERATIONS hashes.
    """
    return hashlib.pbkdf2_hmac("sha256", content, nonce.encode(), ITERATIONS).hex()


def to_install(
    secrets: Iterable[Secret], installed: Iterable[Installed], nonce: str
) -> tuple[Secret, ...]:
    """Secrets that the host lacks, or holds with another content, mode or owner."""
    found = {i.path: (i.proof, i.mode, i.owner) for i in installed}
    return tuple(
        secret
        for secret in secrets
        if found.get(secret.path) != (proof(secret.content, nonce), MODE, OWNER)
    )


def unwanted(machine: Host, wanted: Iterable[Wanted]) -> tuple[str, ...]:
    """Paths of secrets on the host that no service has any more."""
    kept = {each.path for each in wanted}
    return tuple(
        file.path
        for file in machine.files
        if file.path.startswith(f"{DIRECTORY}/") and file.path not in kept
    )


def of_engine(runtime: str, wish: Wish) -> tuple[Credential, ...]:
    """What the process of an engine gets: its API key. A token is for fetching models only."""
    if wish.api_key_file is None:
        return ()
    variable, key = VARIABLES.get(runtime), CONFIG_KEYS.get(runtime)
    return (Credential(API_KEY, wish.api_key_file, variable, key),)


def words(runtime: str, process: str, wish: Wish) -> tuple[str, ...]:
    """What the engine's command line gains: the path of a file. `process` is the service's name.

    systemd puts the credentials of multigpu-chat.service below
    /run/credentials/multigpu-chat.service.
    """
    if wish.api_key_file is None or runtime not in FLAGS:
        return ()
    if runtime in CONFIG_KEYS:
        return (FLAGS[runtime], f"/run/multigpu/{process}/{CONFIG_FILE}")
    return (FLAGS[runtime], f"/run/credentials/multigpu-{process}.service/{API_KEY}")
