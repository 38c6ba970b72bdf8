"""The inventory's `services` as `Wish` values; what is wrong is one line naming service and key."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from multigpu.backend import Backend
from multigpu.errors import WishError
from multigpu.given_secrets import is_secret, shown
from multigpu.plan import Objective, Strategy, Wish
from multigpu.runtimes import RUNTIMES
from multigpu.wish_values import Balance, Endpoint

OURS = ("devices", "exporter", "kernel-log", "react", "recover", "transaction")
"""multigpu-devices.service and so on are units of the host."""
SERVICE_NAME = re.compile(rf"(?!install-|fetch-|endpoint-|(?:{'|'.join(OURS)})$)[a-z0-9][a-z0-9-]*")
"""multigpu-install-* install runtimes, multigpu-fetch-* fetch models, multigpu-endpoint-* are
endpoints."""
REVISION = re.compile(r"[A-Za-z0-9][\w./+-]*", re.ASCII)
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEYS = tuple(field.name for field in fields(Wish) if field.name != "name")
ALIASES = {"max_model_len": "context"}
"""vLLM's word for a key of ours."""

Reader = Callable[[Any], Any]


def wishes(services: Mapping[str, Mapping[str, Any]]) -> tuple[Wish, ...]:
    """One wish per service, in the order of the inventory.

    Lists and tuples are taken alike; a key that is None counts as left out. Raises WishError for
    an unknown key, a wrong type, or a value that cannot be.
    """
    if not isinstance(services, Mapping):
        raise WishError("services is not a dict: write services = {'chat': {'model': ...}}")
    return tuple(_wish(name, wished) for name, wished in services.items())


def _wish(name: object, wished: object) -> Wish:
    if not isinstance(name, str) or not SERVICE_NAME.fullmatch(name):
        raise WishError(
            f"service {name!r}: use lower-case letters, digits and dashes, and neither "
            f"install-..., fetch-..., endpoint-... nor {', '.join(OURS)}: units of ours"
        )
    if not isinstance(wished, Mapping):
        raise WishError(f"{name}: is not a dict: write {{'model': ...}}")
    wished = _canonical(name, wished)
    for key in wished:
        if key not in KEYS:
            raise WishError(f"{name}: unknown key {key!r}{_nearest(key)}")
    if wished.get("model") is None:
        raise WishError(f"{name}: model is missing: give a hub id, a folder or a .gguf file")
    values = {key: _read(name, key, v) for key, v in wished.items() if v is not None}
    wish = Wish(name=name, **values)
    _no_secrets(wish)
    return wish


def _canonical(name: str, wished: Mapping[str, Any]) -> Mapping[str, Any]:
    for alias, key in ALIASES.items():
        if alias in wished and key in wished:
            raise WishError(f"{name}: {alias} and {key} are the same: leave one of them out")
    return {ALIASES.get(key, key): value for key, value in wished.items()}


def _no_secrets(wish: Wish) -> None:
    """Command lines and plan files are readable to everybody. The value is not repeated."""
    values = {
        "model": wish.model,
        **{f"env {name}": value for name, value in wish.env.items()},
        **{f"flags {name}": value for name, value in wish.flags.items()},
    }
    for where, value in values.items():
        if is_secret(where.rpartition(" ")[2], value):
            raise WishError(f"{wish.name}: {where} holds a secret, {INSTEAD}{wish.name}")
    for flag in {"--api-key-file", "--config"} & wish.flags.keys():
        if wish.api_key_file is not None:
            raise WishError(
                f"{wish.name}: flags {flag} and api_key_file may disagree: leave one out"
            )


INSTEAD = (
    "and plans and command lines can be read by everybody: use api_key_file or hf_token_file; put "
    "any other as a variable into a file of mode 0600 on the host and name that as "
    "EnvironmentFile= with systemctl edit multigpu-"
)


def _nearest(key: object) -> str:
    close = get_close_matches(str(key), KEYS, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": use one of {', '.join(KEYS)}"


def _read(name: str, key: str, value: object) -> Any:
    try:
        return READERS[key](value)
    except ValueError as error:
        raise WishError(f"{name}: {key} is {shown(value)!r}: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or any(c in value for c in "\0\n\r"):
        raise ValueError("a text of one line is needed")
    return value


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a whole number is needed")
    return value


def _positive(value: object) -> int:
    number = _whole(value)
    if number < 1:
        raise ValueError("at least 1 is needed")
    return number


def _port(value: object) -> int:
    number = _whole(value)
    if not 1 <= number <= 65535:
        raise ValueError("a port lies between 1 and 65535")
    return number


def _fraction(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError("a number above 0 and up to 1 is needed")
    return float(value)


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError("a number above 0 is needed")
    return float(value)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("True or False is needed")
    return value


def _strategy(value: object) -> Strategy:
    return Strategy(_one_of(Strategy, value))


def _objective(value: object) -> Objective:
    return Objective(_one_of(Objective, value))


def _one_of(names: Iterable[str], value: object) -> str:
    known = [str(name) for name in names]
    if value not in known:
        raise ValueError(f"use one of {', '.join(known)}")
    return str(value)


def _runtime(value: object) -> str:
    return _one_of([module.NAME for module in RUNTIMES], value)


def _backend(value: object) -> str:
    return _one_of(Backend, value)


def _list(value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("a list is needed")
    return tuple(value)


def _indices(value: object) -> tuple[int, ...]:
    numbers = tuple(_whole(item) for item in _list(value))
    if any(number < 0 for number in numbers):
        raise ValueError("GPU indices begin at 0")
    return numbers


def _counts(value: object) -> tuple[int, ...]:
    return tuple(_positive(item) for item in _list(value))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _flags(value: object) -> Mapping[str, str | None]:
    """Numbers are taken as written; None and True stand for a flag without a value."""
    return MappingProxyType(
        {_flag(k): _word(v) for k, v in _mapping(value).items() if v is not False}
    )


def _flag(name: object) -> str:
    if not isinstance(name, str) or not name.startswith("--") or "=" in name:
        raise ValueError(f"{name!r} is not a long option like '--kv-cache-dtype'")
    return name


def _word(value: object) -> str | None:
    if value is None or value is True:
        return None
    return str(value) if isinstance(value, int | float) else _text(value)


def _env(value: object) -> Mapping[str, str]:
    found = {}
    for name, item in _mapping(value).items():
        if not isinstance(name, str) or not ENVIRONMENT_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name of an environment variable")
        plain = isinstance(item, int | float) and not isinstance(item, bool)
        found[name] = str(item) if plain else _text(item)
    return MappingProxyType(found)


def _revision(value: object) -> str:
    """What git takes for a branch, a tag or a commit, as far as it is asked of the hub."""
    text = _text(value)
    if not REVISION.fullmatch(text) or ".." in text:
        raise ValueError("a commit, a tag or a branch of the repository is needed")
    return text


def _sha256(value: object) -> tuple[str, ...]:
    """One hash, or one for each shard."""
    hashes = (value,) if isinstance(value, str) else _list(value)
    if not hashes or not all(isinstance(h, str) and SHA256.fullmatch(h) for h in hashes):
        raise ValueError("64 hexadecimal digits are needed, or a list of such for a set of shards")
    return tuple(str(each).lower() for each in hashes)


def _mapping(value: object) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise ValueError("a dict is needed")
    return value


ENDPOINT_KEYS = ("port", "bind", "balance", "certificate")


def _endpoint(value: object) -> Endpoint:
    """True and False stand for an endpoint with the defaults and for none."""
    if isinstance(value, bool):
        return Endpoint(on=value)
    given = _mapping(value)
    for key in given:
        if key not in ENDPOINT_KEYS:
            raise ValueError(f"{key!r} is none of its keys, {', '.join(ENDPOINT_KEYS)}")
    readers: dict[str, Reader] = {"port": _port, "balance": _balance}
    read = {str(key): readers.get(str(key), _text)(v) for key, v in given.items() if v is not None}
    return Endpoint(**read)


def _balance(value: object) -> Balance:
    return Balance(_one_of(Balance, value))


READERS: dict[str, Reader] = {
    "model": _text,
    "objective": _objective,
    "context": _positive,
    "concurrency": _positive,
    "runtime": _runtime,
    "strategy": _strategy,
    "gpus": _indices,
    "tensor_parallel_size": _positive,
    "pipeline_parallel_size": _positive,
    "layers": _counts,
    "gpu_memory_utilization": _fraction,
    "input_tokens": _positive,
    "output_tokens": _positive,
    "ttft_ms": _amount,
    "tpot_ms": _amount,
    "kv_cache_dtype": _text,
    "expert_parallel": _truth,
    "cpu_offload_gib": _amount,
    "port": _port,
    "bind": _text,
    "served_model_name": _text,
    "devices": _texts,
    "flags": _flags,
    "env": _env,
    "executable": _text,
    "wheel": _text,
    "runtime_version": _text,
    "backend": _backend,
    "start_s": _positive,
    "stall_s": _positive,
    "endpoint": _endpoint,
    "shared_prefix_tokens": _positive,
    "switch_runtime": _truth,
    "api_key_file": _text,
    "hf_token_file": _text,
    "revision": _revision,
    "sha256": _sha256,
    "trust_remote_code": _truth,
}
