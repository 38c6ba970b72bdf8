"""How a runtime gets onto a host: pinned, hashed, in a directory named by its content.

Values only. A recipe says what must lie on the host and what `multigpu.host.install` shall do
there; `preflight` says beforehand why it could not; `operations.runtime` runs it.
"""

from __future__ import annotations

from multigpu.install.generations import keep, prune_needed, record_of
from multigpu.install.llama_cpp import llama_cpp
from multigpu.install.preflight import preflight
from multigpu.install.preflight import refusal as preflight_refusal
from multigpu.install.python_runtime import python_runtime
from multigpu.install.recipe import (
    MODELS,
    PREFIX,
    RUNTIMES,
    WHEELS,
    Build,
    Files,
    Job,
    Needs,
    Recipe,
    Upload,
    already_there,
)
from multigpu.install.source import Source, read_source, sourced

__all__ = [
    "MODELS",
    "PREFIX",
    "RUNTIMES",
    "WHEELS",
    "Build",
    "Files",
    "Job",
    "Needs",
    "Recipe",
    "Source",
    "Upload",
    "already_there",
    "keep",
    "llama_cpp",
    "preflight",
    "preflight_refusal",
    "prune_needed",
    "python_runtime",
    "read_source",
    "record_of",
    "sourced",
]
