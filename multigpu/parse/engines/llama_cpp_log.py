"""Start-up logs of llama.cpp and ik_llama.cpp: llama-server, llama-cli, llama-bench.

Old releases and the fork print `llm_load_tensors: CUDA0 buffer size`, newer ones `load_tensors:
CUDA0 model buffer size` (with `--verbosity 4`); copies from a web page have lost their alignment.
With `-fit`, models are loaded on trial: of several loads of one file the last one counts, a second
file is a draft model. Facts of 0.5.0-dev (0c1e57098): src/llama-model.cpp, llama-context.cpp,
llama-kv-cache.cpp, ggml-cuda.cu, ggml-vulkan.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from multigpu.parse.engines import llama_cpp_found as take
from multigpu.parse.engines.engine_log import EngineLog, LlamaCppFacts
from multigpu.parse.engines.engine_scan import (
    REAL,
    WHOLE,
    Rule,
    rule,
    scan,
)
from multigpu.parse.engines.gguf_metadata import GgufMetadata, gguf_metadata
from multigpu.parse.reading import Kind, Lines, Reading, signature

# `RPC0[host:port]` and `Meta(CUDA0,CUDA1)` are names too.
NAME = r"(\w[\w.:\[\]()/,-]{0,120})"
SPACED = r"(\w.{0,80}?)"
# What a buffer is for, and the line that tells its size.
BUFFERS = (
    ("weights_mib", r"load_tensors: +{n} +(?:model )?buffer size += +{r} MiB"),
    ("kv_cache_mib", r"llama_kv_cache\w*: +{n} +KV buffer size += +{r} MiB"),
    ("state_cache_mib", r"llama_\w+: +{n} +(?:RS|state) buffer size += +{r} MiB"),
    ("output_mib", r": +{n} +output buffer size += +{r} MiB"),
    ("compute_mib", r": +{n} +compute buffer size += +{r} MiB"),
)
COUNTS = ("n_ctx", "n_ctx_seq", "n_batch", "n_ubatch", "n_seq_max")


def line(keyword: str, pattern: str, tell: Callable[[Any, re.Match[str]], None]) -> Rule:
    """A rule where {n} is a device's name, {r} a number and {w} a whole one."""
    filled = pattern.replace("{n}", NAME).replace("{r}", f"({REAL})").replace("{w}", f"({WHOLE})")
    return rule(keyword, filled, tell)


GAVE_UP = (
    r"((?:failed to allocate compute buffers|failed to create context with model|unable to load "
    r"model|failed to load model|error loading model|exiting due to model loading error).{0,120})"
)
SERVING = (
    r"HTTP server listening|server is listening on|\blistening on (?:http|unix)|main: model loaded|"
    r"main\] model loaded|all slots are idle|\bgenerate: n_ctx = |main: n_kv_max = "
)
RULES = (
    *(line("buffer size", pattern, take.buffer(name)) for name, pattern in BUFFERS),
    line("loaded meta data", r"loaded meta data with \d+ key-value .{0,60}? from (.*)", take.load),
    line("offloaded ", r"offloaded (\d{1,6})/(\d{1,6}) layers to GPU", take.offloaded),
    line("n_", rf"llama_(?:new_)?context\w*: +({'|'.join(COUNTS)}) += +{{w}}", take.context),
    line(
        "flash_attn",
        r"llama_\w+: +flash_attn += +(\w{1,12})|Flash Attention was auto, set to (\w+)",
        take.flash,
    ),
    line("Flash Att", r"()()Flash Attention (?:was auto, set to )?(enabled|disabled)$", take.flash),
    line(
        " size ",
        r"(?:KV self size +|llama_kv_cache\w*: +size) ?= +{r} MiB(?: \( *(\d{1,15}) cells.{0,80}?)?"
        r",? (?:c\^)?KV? ?\((\w{1,12})\): +[\d.]+ MiB(?:, V \((\w{1,12})\))?",
        take.kv_self,
    ),
    line("parallelism", r"pipeline parallelism enabled(?: \(n_copies=(\d{1,4})\))?", take.copies),
    line("sched copies", r"sched copies = (\d{1,4})", take.sched_copies),
    line("found ", r"found \d{1,3} (CUDA|ROCm|MUSA) devices", take.backend),
    line(
        "Device ",
        r"^.{0,60}?\bDevice (\d{1,3}): (.{1,120}?), (?:compute capability (\d{1,3})\.(\d{1,3})|"
        r"(gfx\w{1,12})).{0,80}?, VMM: \w{1,5}(?:.{0,60}?VRAM: (\d{1,9}) MiB)?",
        take.cuda_card,
    ),
    line(
        "ggml_vulkan: ",
        r"ggml_vulkan: (\d{1,3}) = (.{1,120}?) \([^()]{0,60}\) \|(?: uma: ([01]) \|)?",
        take.vulkan_card,
    ),
    line(
        " total, ",
        rf"llama_\w{{1,40}}: +- {{n}} \({SPACED}\) *: +{{r}} total, +-?\d{{1,9}} used, ",
        take.projected,
    ),
    line(
        "failed to allocate ",
        r"failed to allocate [A-Za-z]+(\d{1,3}) buffer of size {w}$",
        take.no_buffer,
    ),
    line(
        "using device",
        rf"using device {{n}} \({SPACED}\)(?: \(([\w:.]{{1,20}})\))? - (\d{{1,9}}) MiB free",
        take.using,
    ),
    line("assigned to", r"load_tensors: layer +\d{1,4} assigned to device {n}\b", take.layer),
    line(
        "build",
        r"build[ :]+= ?(\d{1,9}) \((\w{1,40})\)|\bbuild=(\d{1,9}) commit=\"(\w{1,40})\"",
        take.build,
    ),
    line("build: ", r"\bbuild: (\d{1,9}) \((\w{1,40})\)()()", take.build),
    line("-ts ", r"(?:^|\s)-ts ([\d.,/]{1,100})(?:\s|$)", take.split),
    line("--tensor-split", r"--tensor-split[ =]([\d.,/]{1,100})(?:\s|$)", take.split),
    line(
        "failed to fit", r"failed to fit params to free device mem\w+: (.{1,200})", take.fit_failed
    ),
    line("fit_memory_breakdown", r"\"fit_memory_breakdown\"", take.breakdown),
    line(
        "out of memory",
        r"allocating {r} MiB on device (\d{1,3}): (?:cuda|hip|musa)Malloc failed: out of memory",
        take.no_memory,
    ),
    line("llocation of size", r"Device memory allocation of size {w} failed", take.vulkan_memory),
    *(
        line(word, GAVE_UP, take.gave_up)
        for word in ("failed to ", "unable to load", "error loading", "exiting due")
    ),
    line("atal error", r"((?:\b[A-Za-z]:)?[^\s:]{1,200}:\d{1,6}: [Ff]atal error)", take.abort),
    line("GGML_ASSERT", r"(GGML_ASSERT\(.{1,200})", take.abort),
    line("CUDA error", r"(CUDA error: .{1,120})", take.abort),
    *(
        line(word, SERVING, take.ready)
        for word in ("listening", "model loaded", "all slots", "generate: n_ctx", "n_kv_max")
    ),
)


def read_llama_cpp_log(log: str) -> Reading[EngineLog]:
    """The start-up in a log of llama.cpp; lines that tell nothing of it stay unread."""
    lines, found = Lines(log), take.LlamaFound()
    metadata = gguf_metadata(lines)
    scan(lines, RULES, found)
    for label, card in found.cards.items():
        device = found.device(label)
        device.update({k: v for k, v in card.items() if device.get(k) is None})
    if metadata is not None:
        found.first(**_of_model(metadata))
    facts = LlamaCppFacts(**found.llama, metadata=metadata)
    return lines.reading(found.log("llama.cpp", llama_cpp=facts))


def _of_model(metadata: GgufMetadata) -> dict[str, str | None]:
    return {
        "model": metadata.path or metadata.name,
        "architecture": metadata.architecture,
        "quantization": metadata.ftype,
    }


KINDS = (
    Kind(
        "llama-cpp-log",
        "log of llama.cpp (llama-server, llama-cli)",
        signature(
            r"load_tensors: +\S.{0,120}buffer size *=|offloaded \d+/\d+ layers to GPU"
            r"|llama_(?:kv_cache\w*|context|new_context_with_model|model_load\w*): "
            r"|\b(?:KV|compute|output) buffer size *= +[\d.]+ MiB|ggml_(?:cuda|vulkan)\w*: \w"
            r"|\"fit_memory_breakdown\"",
            sure=0.95,
        ),
        read_llama_cpp_log,
        "llama-server",
    ),
)
