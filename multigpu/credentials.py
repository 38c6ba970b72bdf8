"""Secrets of a service: where they lie on the host, and how an engine gets its API key.

A secret is a file on the controller, then one that root alone may read on the host, then one in a
directory that systemd makes for a unit's processes (systemd.exec(5), LoadCredential=). Only its
path is ever part of a command line.

How engines take a key: vLLM 0.33.0 reads VLLM_API_KEY (entrypoints/serve/middleware/register.py);
llama_cpp.server 0.3.36 reads API_KEY, as its settings are pydantic's; llama-server has
--api-key-file. SGLang 0.5.23 has only --api-key, which a YAML file of --config may hold.
"""

from __future__ import annotations

from multigpu.plan import Credential, Wish

DIRECTORY = "/etc/multigpu/credentials"
API_KEY, HF_TOKEN = "api_key", "hf_token"
CONFIG_FILE = "secrets.yaml"
"""What the supervisor writes into $RUNTIME_DIRECTORY for an engine that wants a configuration."""
VARIABLES = {"vllm": "VLLM_API_KEY", "llama_cpp.server": "API_KEY"}
CONFIG_KEYS = {"sglang": "api-key"}
FLAGS = {"llama.cpp": "--api-key-file", "sglang": "--config"}


def path(service: str, name: str) -> str:
    """The file on the host: `/etc/multigpu/credentials/chat.api_key`. Replicas share it."""
    return f"{DIRECTORY}/{service}.{name}"


def wanted(wish: Wish) -> tuple[Credential, ...]:
    """Every secret of a service that the host must hold."""
    sources = {API_KEY: wish.api_key_file, HF_TOKEN: wish.hf_token_file}
    return tuple(Credential(name, source) for name, source in sources.items() if source is not None)


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
