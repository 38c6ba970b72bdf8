"""What a release of vLLM does with memory by itself: defaults, the sampler, CUDA graphs.

The rendered release is 0.33.0. Older ones are here because boot logs of them are what predictions
can be compared with. Sources: `engine/arg_utils.py` (defaults), `v1/worker/gpu_worker.py` (what is
subtracted before the KV cache), `v1/sample/ops/topk_topp_sampler.py` and
`v1/worker/gpu/sample/` (the sampler), of the wheels 0.11.0, 0.12.0 and 0.33.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from multigpu.hardware import Gpu, Vendor
from multigpu.plan import ModelSpec, Wish

GIB = 1024


@dataclass(frozen=True)
class Release:
    """How one release accounts for memory.

    `sampler_bytes` are held per (request, vocabulary entry) at the peak of sampling,
    `sampler_state_bytes` all the time. `graphs_first` says that an estimate of the CUDA graphs is
    subtracted before the KV cache (since 0.21), `null_block` that one block of the cache is kept
    back, `windows_in_flight` that a sliding window is widened by every batch under way.
    `embedding_copied` says that a first start, which compiles, has a second embedding at its peak,
    `workspaces_kept` that the experts' workspaces stay, so that they are no part of the peak.
    """

    version: tuple[int, int]
    gpu_memory_utilization: float
    sampler_bytes: float
    sampler_state_bytes: float
    graphs_first: bool
    null_block: bool
    windows_in_flight: bool
    embedding_copied: bool = False
    workspaces_kept: bool = False


# Sorting the float32 logits for top-k and top-p keeps 9.6 copies of them: torch_peak of three boots
# with 1024 requests (H100, 0.11: 9.6, 9.9 and 9.6 copies), and 256 requests on 24 GB (0.13).
SORTING = 9.6 * 4
# FlashInfer does not sort: bfloat16 logits, a float32 copy of them, masked logits and probabilities
# (`top_k_top_p_sampling_from_logits`). Penalties keep an int32 count and one bit of the prompt all
# the time (`PenaltiesState.output_bin_counts`): 4.1 bytes between 256 and 1024 requests on an H200.
FUSED, COUNTS = 2 + 4 + 4 + 4, 4 + 1 / 8
# With VLLM_USE_FLASHINFER_SAMPLER=0, which is rendered, Triton works in place on the float32 copy:
# 6 bytes in three boots of an H200 (0.33.0) whose peak is sampling.
IN_PLACE = 2 + 4
SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"

RELEASES = (
    Release((0, 33), 0.92, IN_PLACE, COUNTS, True, True, True, True, True),
    Release((0, 21), 0.92, FUSED, COUNTS, True, False, False),
    Release((0, 17), 0.9, FUSED, 0.0, False, False, False),
    Release((0, 0), 0.9, SORTING, 0.0, False, False, False),
)
RENDERED = RELEASES[0]


def of_wish(wish: Wish) -> Release:
    """The accounting of the wished version, with FlashInfer's sampler where `env` asks for it."""
    found = release(wish.runtime_version)
    if wish.env.get(SAMPLER) == "1" and found.sampler_bytes == IN_PLACE:
        return replace(found, sampler_bytes=FUSED)
    return found


@cache
def release(version: str | None) -> Release:
    """The accounting of a version (`0.13.0rc2`); of the rendered one when that is not known."""
    parts = re.match(r"v?(\d{1,4})\.(\d{1,4})", version or "", re.ASCII)
    if parts is None:
        return RENDERED
    return next(known for known in RELEASES if (int(parts[1]), int(parts[2])) >= known.version)


# vLLM's own tier for large cards: 8192 tokens and 1024 requests from 70 GiB. An A100 and a GB10
# (compute capability 12.1) belong to the small tier whatever they hold, and from 160 GiB a batch is
# 16384 tokens (`get_batch_defaults` in `engine/arg_utils.py`).
LARGE_MIB, LARGEST_MIB = 70 * GIB, 160 * GIB
LARGE_MAX_NUM_SEQS = 1024
SMALL_BATCH, LARGE_BATCH, LARGEST_BATCH = 2048, 8192, 16384
# Below 70 GiB vLLM itself would take 256, for which the cache of such a card has hardly room: 256
# cost about 0.6 GiB more than 64 for CUDA graphs and the sampler. So 64 is rendered where nothing
# is wished; the boot logs of such cards that predictions are compared with ran 32 or 64 as well.
MAX_NUM_SEQS = 64
# Never fewer than this: further requests would wait although there is room for them.
MIN_MAX_NUM_SEQS = 16


def large(gpu: Gpu) -> bool:
    """True where vLLM takes its defaults for large cards."""
    mib = gpu.memory_mib or 0
    if mib >= LARGEST_MIB:
        return True
    small = "A100" in (gpu.name or "").upper() or gpu.compute_capability == (12, 1)
    return mib >= LARGE_MIB and not small


def batched_tokens(gpu: Gpu, flags: Mapping[str, str | None]) -> int:
    """`--max-num-batched-tokens`: vLLM's server default, or the flag."""
    given = flags.get("--max-num-batched-tokens")
    if given is not None and given.isdigit():
        return int(given)
    if not large(gpu):
        return SMALL_BATCH
    return LARGEST_BATCH if (gpu.memory_mib or 0) >= LARGEST_MIB else LARGE_BATCH


def max_num_seqs(gpu: Gpu, wish: Wish, replicas: int) -> int:
    """`--max-num-seqs` of one engine: its share of what is wished, else the card's default.

    Never above vLLM's own largest default: beyond it requests wait in its queue, instead of the
    sampler and the CUDA graphs taking the memory of the cache.
    """
    given = wish.flags.get("--max-num-seqs")
    if given is not None and given.isdigit():
        return int(given)
    if wish.concurrency is not None:
        share = -(-wish.concurrency // replicas)
        return min(LARGE_MAX_NUM_SEQS, max(MIN_MAX_NUM_SEQS, share))
    return LARGE_MAX_NUM_SEQS if large(gpu) else MAX_NUM_SEQS


# Bytes per cached element. nvfp4 has a scale of one byte per 16 elements, int8_per_token_head one
# of four bytes per head (`KVQuantMode` in `v1/kv_cache_interface.py`).
KV_BYTES = {"fp8": 1.0, "int8": 1.03, "nvfp4": 0.5625, "turboquant": 0.5625}


def kv_bytes(wish: Wish, model: ModelSpec | None = None) -> float:
    """Bytes per cached element under `--kv-cache-dtype`; auto is what the checkpoint asks for."""
    dtype = wish.kv_cache_dtype or wish.flags.get("--kv-cache-dtype") or "auto"
    if dtype == "auto" and model is not None and model.kv_cache_dtype is not None:
        dtype = model.kv_cache_dtype
    for start, size in KV_BYTES.items():
        if dtype.startswith(start):
            return size
    return 4.0 if dtype in ("float32", "fp32") else 2.0


# Memory outside of torch's pool: the CUDA context and what libraries keep. 0.13 GiB on H100 (0.11),
# 0.33 GiB on A100 (0.26); 13 boots of 24 to 40 GB cards leave 0.10 to 0.27 after the activations.
# ROCm (2 R9700, 0.11 to 0.13): 0.4 to 0.7 in ten boots, 1.7 to 3.5 in four of one nightly build.
CONTEXT_MIB = {Vendor.NVIDIA: 200.0, Vendor.AMD: 560.0}
# NCCL and vLLM's own all-reduce where an engine spans cards: 0.42 GiB on 2 H100; RCCL hardly shows.
NCCL_MIB = {Vendor.NVIDIA: 400.0, Vendor.AMD: 70.0}
# One captured CUDA graph, of which vLLM estimates about twice what it takes: seven boots of an H200
# (0.33.0) estimate 6.6 to 13.8 MiB for 24 to 62 blocks, and 15.3 for 27 with latent attention.
# Thirteen boots of NVIDIA cards (0.8 to 0.26) took 4 to 14; 28 to 60 in three of an A100 40GB.
# R9700 printed 22 to 58 (0.11 to 0.13), falling from build to build; no boot of a release that
# subtracts them has been seen there: a prediction for ROCm may be up to 1 GiB too large.
GRAPH_MIB, GRAPH_BLOCK_MIB, GRAPH_LATENT_BLOCK_MIB = 2.5, 0.2, 0.47


@cache
def captured_graphs(seqs: int) -> int:
    """Graphs that are captured: piecewise up to twice the requests, full ones up to them.

    Sizes 1, 2, 4, then every 8 up to 256, every 16 up to 512 (`_set_cudagraph_sizes`).
    """
    return _sizes(min(2 * seqs, 512)) + _sizes(min(seqs, 512))


def _sizes(largest: int) -> int:
    small = sum(1 for size in (1, 2, 4) if size <= largest)
    return small + min(largest, 255) // 8 + max(0, (largest - 240) // 16)
