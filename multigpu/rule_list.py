"""Every rule that speaks in a plan, a refusal or a survey: its stable id and what it says.

An id never changes and is never used again for something else. `scripts/rules_page.py` writes
docs/rules.md from here; a test holds this list against every `Reason(...)` and `Caution(...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

HEAD = """\
# Rules

Every decision and every warning names its rule: on a screen in square brackets, and in plan files.
An id never changes. `make docs` writes this page from multigpu/rule_list.py.

"""


@dataclass(frozen=True)
class Rule:
    """One rule. `section` is the title it stands under, `meaning` one sentence with a full stop."""

    id: str
    section: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """Rules that speak in one place; `note` stands under the title."""

    title: str
    meanings: Mapping[str, str]
    note: str = ""


REFUSALS = Section(
    "Why a way of serving does not hold",
    {
        "attention-heads": "vLLM: the query heads do not divide by the tensor parallel size.",
        "backend-cards": "llama.cpp: the wished backend is of another vendor, or uses no card.",
        "backend-mixed": "llama.cpp: devices of two backends need a build with both.",
        "bfloat16": "vLLM: a card older than 8.0 (Ampere), and float16 cannot stand in.",
        "compute-capability": "vLLM: the card is older than the wheel (7.5) or vLLM itself (7.0).",
        "context-length": "The context is longer than the model's own, and no rope flag is set.",
        "device-count": "llama.cpp: more cards than one process takes.",
        "device-names": "`devices` names too few devices, or Vulkan's order of cards is not known.",
        "expert-parallel": "vLLM: fewer experts than ranks, or no tensor parallel group.",
        "expert-size": "vLLM: an expert's feed-forward size does not divide by the TP size.",
        "ffn-size": "vLLM: the feed-forward size does not divide by the tensor parallel size.",
        "gfx-unsupported": "AMD: the runtime has no code for this card, with the ROCm of the host.",
        "hidden-size": "vLLM: the hidden size does not divide by the tensor parallel size.",
        "host-memory": "The host has too little free memory for the offloaded weights.",
        "kv-cache-dtype": "vLLM: the cards have no kernel for this type of the KV cache.",
        "kv-cache-flash": "llama.cpp: a quantized V cache needs flash attention.",
        "kv-cache-heads": "llama.cpp: the heads do not suit a quantized KV cache, or no kernel.",
        "kv-heads": "vLLM: the KV heads neither divide by the TP size nor repeat evenly.",
        "layer-counts": "llama.cpp: the units per card do not add up, or a card would get none.",
        "memory-fit": "The card that lacks most: what it would have to hold, and what it can.",
        "memory-unbalanced": "SGLang: a card of a team has less than 0.9 of another's free memory.",
        "model-format": "The runtime does not read this format (GGUF or safetensors).",
        "one-vendor": "One process uses the cards of one vendor.",
        "pinned": "The operator fixed something else; as a reason: what the operator fixed.",
        "pipeline-stages": "vLLM: the blocks per stage do not add up, or a stage would get none.",
        "pipeline-support": "vLLM: the model family cannot be split into pipeline stages.",
        "quantization-capability": "vLLM: the cards are too old for the quantization.",
        "quantization-groups": "vLLM: a rank's share of a matrix is not whole groups or tiles.",
        "quantization-on-rocm": "vLLM: no kernel multiplies by this format on these AMD cards.",
        "rocm-version": "AMD: the ROCm of the host is older than the runtime needs for the cards.",
        "environment-overrides": "llama_cpp.server: a variable would win over the command line.",
        "offload-flags": "llama_cpp.server: no flag keeps experts in the host's memory.",
        "one-request-at-a-time": "llama_cpp.server: it serves one request at a time.",
        "runtime-on-request": "Planned where wished by name; SGLang also for shared prefixes.",
        "shared-cache": "llama.cpp: the size of a KV cache that crosses cards is not known.",
        "tensor-split-backend": "llama.cpp: Vulkan does not reduce between cards by itself.",
        "single-process": "llama_cpp.server: neither copies nor divided layers.",
        "tensor-split-flags": "llama.cpp: a flag that dividing every layer does not bear.",
        "tensor-split-model": "llama.cpp: the model's layers cannot be divided between the cards.",
        "usable-card": "The card has an error, is cut into MIG slices, or hides its memory.",
        "vocab-size": "vLLM: the padded vocabulary does not divide by the tensor parallel size.",
    },
)

LOST = Section(
    "Why a way that holds was not chosen",
    {
        "close-second": "Predicted so near to the chosen way that measuring both may turn it.",
        "ranked-lower": "It holds, but another way serves the objective better.",
    },
)

CHANGES = Section(
    "What would make it fit",
    {
        "change-cards": "The least number of further cards that the missing memory fills.",
        "change-context": "The longest context of which one request would fit.",
        "change-setting": "A setting of the runtime with which the nearest way would fit.",
        "change-weights": "The size of weights, and bits of each, that would fit.",
    },
)

CHOICES = Section(
    "Why a way was chosen",
    {
        "context-largest-cache": "One engine caches the most tokens of all ways.",
        "layer-split": "Cards work in turn and links hardly matter.",
        "nearest-to-bounds": "No way meets the wished bounds; this one exceeds them least.",
        "one-card-too-small": "What rules out a single card, which would be simpler.",
        "copies-before-split": "A split is faster by prediction, but by less than these miss.",
        "only-one": "No other candidate holds.",
        "pipeline-parallel": "Stages exchange little, so links hardly matter.",
        "predicted-fastest": "Of all ways it serves the objective best by predicted speed.",
        "proven-before-experimental": "llama.cpp's experimental mode is faster, but by too little.",
        "replicas": "Every card holds a copy, and nothing crosses a link.",
        "shared-prefix": "SGLang before vLLM: requests at a time share most of their prompts.",
        "simplest-of-equals": "A rival is hardly faster by prediction, and this way is simpler.",
        "single-card": "One card holds all of it, and nothing crosses a link.",
        "speed-unknown": "No speed can be predicted, so rules of thumb ranked the ways.",
        "tensor-parallel": "Every card reads its share of the weights for every token.",
        "tensor-split": "llama.cpp: every card works on every token, an experimental mode.",
        "throughput-engines": "As many engines as the cards allow, without traffic between them.",
    },
)

WARNINGS = Section(
    "What to know although a plan holds",
    {
        "bound-missed": "No way meets a bound of the wish, and what would meet it.",
        "card-left-out": "A card of the host is in no plan, and why.",
        "cuda-wheel": "vLLM, SGLang: PyPI's wheel is for NVIDIA cards; AMD's need one's own build.",
        "float16-instead": "vLLM: cards older than 8.0 compute a bfloat16 model in float16.",
        "gfx-override": "AMD: HSA_OVERRIDE_GFX_VERSION makes a card run another one's code.",
        "gfx-untested": "AMD: vLLM compiles for the card, but does not list it as supported.",
        "gpu-unknown": "Bandwidth and arithmetic of a card are not known: no speed is predicted.",
        "kv-dtype-kernel": "vLLM: only one attention backend reads this KV cache on the cards.",
        "model-lower-bound": "Something of the model is not counted, so sizes are lower bounds.",
        "no-progress": "llama_cpp.server: no metrics, so a hang is not seen.",
        "peer-access-unproven": "A virtual machine grants P2P over PCIe; it is off until proved.",
        "prediction-weak": "The range of a predicted speed is too wide to rely on.",
        "pin-costs": "Without the pins another way would be clearly better.",
        "rccl-all-reduce": "vLLM's own all-reduce is for MI300 and MI350; here RCCL does it.",
        "requests-wait": "The cache holds fewer requests at a time than wished; others wait.",
        "single-user": "llama_cpp.server: other requests wait for the end of the one that runs.",
        "slow-link": "Tensor parallel crosses sockets or runs over four lanes or fewer.",
        "smallest-card-counts": "SGLang: an unused smaller card sets the share that stays free.",
        "token-count": "llama_cpp.server: its usage may be off by a token.",
        "utilization-lowered": "vLLM gets less than its usual share of a card.",
        "vulkan-headers": "llama.cpp with Vulkan cannot be built with the distribution's headers.",
        "vulkan-speed": "llama.cpp with Vulkan reads prompts more slowly than with HIP or CUDA.",
        "weight-only": "vLLM: the format saves memory, but these cards compute in 16 bits.",
    },
)

FLAGS = Section(
    "Flags of the wish",
    {
        "flag-abbreviated": "The option is short for a longer one, and can become ambiguous.",
        "flag-arity": "The option takes another number of values.",
        "flag-choice": "The value is none of those the option takes.",
        "flag-type": "The value is not a number.",
        "flag-unknown": "The runtime has no such option.",
    },
)

MACHINE = Section(
    "The machine (survey)",
    {
        "acs-redirect": "A port between two cards with P2P sends their traffic over the root.",
        "aer-errors": "PCIe errors on the way to a card: a riser, a slot, or a loose card.",
        "bar1-small": "Resizable BAR is off, which only P2P over a patched module asks for.",
        "capture-problem": "The probe could not see something, and why.",
        "coherent-memory": "Card and processor reach each other's memory (Grace Hopper).",
        "compute-mode": "A card takes one process only, or none.",
        "compute-partition": "An AMD card shows as several, each with a share of it.",
        "container": "The survey ran in a container, which hides processes and kernel messages.",
        "display-attached": "A card that computes also draws a desktop.",
        "driver-error": "The driver reported a failure of a card that has no Xid.",
        "driver-missing": "No driver is loaded for the cards.",
        "ecc-uncorrected": "A card met memory errors that it could not correct.",
        "fabric-manager": "The NVLink fabric of an NVSwitch machine is not set up.",
        "gpu-lost": "A card fell off the PCIe bus, by the kernel's word.",
        "gpu-unusable": "A card answers with an error.",
        "iommu-translating": "The IOMMU translates where P2P over PCIe is granted.",
        "mig-on": "A card is cut into MIG slices.",
        "mixed-architecture": "Cards of different compute capability or gfx: what that closes.",
        "mixed-memory": "Memory differs by more than 10 %: what even shares leave unused.",
        "mixed-vendor": "Cards of two vendors, which never form one group.",
        "module-closed": "The closed kernel module is loaded, which cannot be patched for P2P.",
        "narrow-link": "A card runs on fewer lanes than it has, and what limits them.",
        "numa-parted": "A socket is parted into several NUMA nodes.",
        "numa-unknown": "The firmware does not tell on which NUMA node a card sits.",
        "nvlink-inactive": "Some NVLinks of a card are down, or fewer than its twin's are up.",
        "nvswitch-sxid": "An NVSwitch reported an error.",
        "out-of-memory": "The kernel killed processes for want of RAM.",
        "p2p-in-guest": "A guest grants P2P over PCIe, which the hypervisor only asserts.",
        "p2p-one-way": "The driver grants P2P in one direction only.",
        "p2p-refused": "The driver refuses that cards read each other's memory.",
        "pci-only": "Of a folder of outputs, only PCI shows the card.",
        "pcie-generation": "A card reaches a slower PCIe generation than its own or its twin's.",
        "persistence-off": "Persistence mode is off with several cards.",
        "power-cap": "A card is capped below its default power.",
        "process-crashed": "The kernel log holds processes that crashed.",
        "recovery-action": "The driver asks for a reset, a reboot or a drain of a card.",
        "registry-dwords": "The driver runs with registry keys.",
        "retired-pages-pending": "Bad pages of memory wait for a reset to be taken out.",
        "row-remap-failure": "A card could not replace bad rows of memory.",
        "row-remap-pending": "Bad rows of memory wait for a reset to be replaced.",
        "throttling": "A card is slowed down now: heat, power brake, hardware slowdown.",
        "unified-memory": "The GPU shares the processor's memory.",
        "virtual-machine": "Lanes, slots and paths are what the hypervisor shows.",
        "vram-in-use": "Other processes hold memory of a card.",
        "xid-history": "The kernel log holds Xid errors of a card.",
    },
    "Here by id; on the screen by severity: broken, danger, slow, limit (`!`), note (`·`).",
)

INSTALLATION = Section(
    "Why a runtime cannot be installed",
    {
        "build-tools": "Something that llama.cpp is built with is not on the host.",
        "cuda-toolkit": "The CUDA compiler is too old or too new for the cards or the driver.",
        "driver-cuda": "The driver is older than the CUDA of the wheels asks for.",
        "glibc": "The C library is older than the wheels are built for.",
        "install-disk": "There is less free space than download and installation need.",
        "python-venv": "Python cannot make virtual environments, and there is no uv.",
        "python-version": "No interpreter of the host is new enough.",
        "wheel-capability": "A card is older than the wheels hold code for.",
    },
    "Said before anything is brought to the host.",
)

COMPARED = {"memory-fit", *LOST.meanings}
"""Rules whose `found` already compares with what is needed."""

SECTIONS = (REFUSALS, LOST, CHANGES, CHOICES, WARNINGS, FLAGS, MACHINE, INSTALLATION)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule: Rule(rule, section.title, meaning)
        for section in SECTIONS
        for rule, meaning in section.meanings.items()
    }
)


def page() -> str:
    """The text of docs/rules.md."""
    return HEAD + "\n".join(map(_table, SECTIONS))


def _table(section: Section) -> str:
    rows = [f"| `{rule}` | {section.meanings[rule]} |" for rule in sorted(section.meanings)]
    note = [section.note, ""] if section.note else []
    lines = [f"## {section.title}", "", *note, "| id | what it says |", "|---|---|", *rows, ""]
    return "\n".join(lines)
