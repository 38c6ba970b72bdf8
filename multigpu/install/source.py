"""Where packages come from: the host's own configuration, an operator's index, or a folder.

The inventory's `package_index`, `wheel_directory` and `https_proxy`. None of them may hold a
password: a URL stands in argv, and a proxy in the environment of the unit that installs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from multigpu.errors import WishError
from multigpu.install.recipe import WHEELS, Recipe, Upload

ON_HOST = "host:"
URL = re.compile(
    r"https?://(?:(?P<login>[^/]*)@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^/@:]+)(?::\d+)?(?:/.*)?"
)
NETRC = "/etc/multigpu/credentials/package-index.netrc"
"""Read by the installing unit alone, where it is there: `machine NAME login USER password WORD`."""


@dataclass(frozen=True)
class Source:
    """`wheel_directory` is a folder on the controller, with `host:` in front one on the host."""

    package_index: str | None = None
    wheel_directory: str | None = None
    https_proxy: str | None = None


def read_source(data: Mapping[str, Any]) -> Source:
    """From an inventory's host data. Raises WishError in one line."""
    source = Source(*(_text(data, key) for key in ("package_index", "wheel_directory")))
    if source.package_index and source.wheel_directory:
        raise WishError("package_index and wheel_directory are both set: leave one of them out")
    if source.package_index:
        _url("package_index", source.package_index)
    return replace(source, https_proxy=read_proxy(data))


def read_proxy(data: Mapping[str, Any]) -> str | None:
    """`https_proxy` of an inventory's host data. Raises WishError in one line."""
    proxy = _text(data, "https_proxy")
    if proxy:
        _url("https_proxy", proxy)
    return proxy


def _text(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value or any(c.isspace() or c == "\0" for c in value):
        raise WishError(f"{key} is {type(value).__name__}: a text without blanks is needed")
    return value


def _url(key: str, value: str) -> None:
    parts = URL.fullmatch(value)
    if parts is None:
        raise WishError(f"{key} is no URL: write https://host/path")
    if parts["login"] is not None:
        raise WishError(
            f"{key} holds a user or a password, and command lines can be read by everybody: leave "
            f"them out and put a line `machine {parts['host']} login .. password ..` into {NETRC} "
            "(mode 0600, root's) on the host"
        )


def sourced(recipe: Recipe, source: Source, wheels: tuple[Upload, ...] = ()) -> Recipe:
    """The recipe with its packages from there. `wheels` are those of a controller's folder."""
    if recipe.job is None:
        return recipe
    folder = None
    if source.wheel_directory is not None:
        on_host = source.wheel_directory.startswith(ON_HOST)
        folder = source.wheel_directory.removeprefix(ON_HOST) if on_host else wheelhouse(recipe)
    job = replace(recipe.job, index=source.package_index, find_links=folder)
    build = recipe.build
    if build is not None:
        build = replace(build, index=source.package_index, find_links=folder)
    return replace(recipe, job=job, build=build, uploads=(*recipe.uploads, *wheels))


def wheelhouse(recipe: Recipe) -> str:
    """Where a controller's folder is uploaded to."""
    return f"{WHEELS}/{recipe.name}/wheels"
