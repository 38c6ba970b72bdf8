"""What llama.cpp on the host says of a plan, where it and the model are there already."""

from collections.abc import Iterator

from pyinfra import host

from deploys.common import TEMPLATES, TIMEOUT_S, privilege
from facts.llama_fit import LlamaFit
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.plan import Plan, Service, Source
from multigpu.runtimes import llama_cpp, llama_cpp_fit
from multigpu.store.recipes import recipe


def memory_asked(machine: Host, plan: Plan) -> Iterator[str]:
    """Planned memory beside that of `llama-fit-params`, one line a card; nothing where it is not.

    Only a GGUF that lies on the host is asked about; replicas are alike, the first speaks for all.
    """
    service = _service(machine, plan)
    if service is None:
        return
    asking = llama_cpp_fit.command(service)
    printed = host.get_fact(LlamaFit, asking=asking, _timeout=TIMEOUT_S, **privilege())
    planned = plan.chosen.memory[: len(service.gpus)]
    answer = llama_cpp_fit.asked(service, planned, printed or "")
    yield from answer.lines if answer else ()


def _service(machine: Host, plan: Plan) -> Service | None:
    if plan.chosen.runtime != llama_cpp.NAME or plan.model.source is not Source.HOST:
        return None
    try:
        installed = recipe(machine, plan, TEMPLATES)
    except MultigpuError:
        return None
    return llama_cpp.render(plan, installed.executable, plan.model.path)[0]
