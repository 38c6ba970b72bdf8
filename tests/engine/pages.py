"""The metrics pages, by the names of the engines (vLLM v1/metrics/loggers.py, SGLang
observability/metrics_collector.py, llama.cpp tools/server/server-context.cpp), and their answers on
/health, which are not to be trusted."""

from __future__ import annotations

from command_lines import Options
from shared import Shared

COUNTER, GAUGE = "counter", "gauge"
Row = tuple[str, str, str, float]


def metrics(options: Options, shared: Shared) -> str:
    """In Prometheus text format, with a line that says that they come from no GPU."""
    lines = [f"# HELP simulated_engine a simulated {options.engine}: no GPU gave these numbers"]
    for name, kind, labels, number in ROWS[options.shape](options, shared):
        lines += [f"# TYPE {name} {kind}", f"{name}{labels} {float(number)}"]
    return "\n".join(lines) + "\n"


def vllm(options: Options, shared: Shared) -> list[Row]:
    label = f'{{engine="0",model_name="{options.model}"}}'
    done = label.replace("{", '{finished_reason="length",', 1)
    return [
        ("vllm:num_requests_running", GAUGE, label, shared.running),
        ("vllm:num_requests_waiting", GAUGE, label, shared.waiting),
        ("vllm:kv_cache_usage_perc", GAUGE, label, shared.kv_usage),
        ("vllm:prompt_tokens_total", COUNTER, label, shared.prompted),
        ("vllm:generation_tokens_total", COUNTER, label, shared.generated),
        ("vllm:request_success_total", COUNTER, done, shared.finished),
    ]


def sglang(options: Options, shared: Shared) -> list[Row]:
    label = f'{{engine_type="unified",model_name="{options.model}"}}'
    decode = label.replace("{", '{mode="decode",', 1)
    return [
        ("sglang:num_running_reqs", GAUGE, label, shared.running),
        ("sglang:num_queue_reqs", GAUGE, label, shared.waiting),
        ("sglang:token_usage", GAUGE, label, shared.kv_usage),
        ("sglang:realtime_tokens_total", COUNTER, decode, shared.generated + shared.decoded),
        ("sglang:prompt_tokens_total", COUNTER, label, shared.prompted),
        ("sglang:generation_tokens_total", COUNTER, label, shared.generated),
    ]


def llama(options: Options, shared: Shared) -> list[Row]:
    """llama-server's counter of tokens moves when a slot ends."""
    return [
        ("llamacpp:requests_processing", GAUGE, "", shared.running),
        ("llamacpp:requests_deferred", GAUGE, "", shared.waiting),
        ("llamacpp:n_decode_total", COUNTER, "", shared.decoded),
        ("llamacpp:prompt_tokens_total", COUNTER, "", shared.prompted),
        ("llamacpp:tokens_predicted_total", COUNTER, "", shared.finished),
    ]


ROWS = {"vllm": vllm, "sglang": sglang, "llama": llama}


def health(options: Options, *, prefilling: bool, dead: bool) -> int:
    """vLLM: a flag. SGLang: 503 in a long prefill (sglang issue 22511), 200 over a dead scheduler
    (6624). llama-server: 200 whatever its devices do (llama.cpp issue 27388)."""
    if options.shape == "vllm":
        return 503 if dead else 200
    return 503 if options.shape == "sglang" and prefilling else 200
