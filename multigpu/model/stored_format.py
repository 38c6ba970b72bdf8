"""How one quantized matrix lies in a checkpoint: bits, groups, scales, zeros; its bytes.

Sources: the weight layouts of AutoAWQ, GPTQ (AutoGPTQ, GPTQModel), compressed-tensors, NVIDIA's
ModelOpt, DeepSeek's block FP8, OCP MX, bitsandbytes and torchao, as vLLM 0.33 loads them
(`model_executor/layers/quantization`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


@dataclass(frozen=True)
class Stored:
    """One way to store a matrix of outputs x inputs.

    `group_size` inputs share a scale of `scale_bytes`; None is one scale per output channel, 0 one
    for the whole matrix. In `blocks` groups span as many outputs as inputs. `zeros` are packed in
    `bits` each. `index` is one 32-bit group number per input (GPTQ).
    """

    scheme: str
    bits: float
    group_size: int | None = None
    scale_bytes: float = 2.0
    blocks: bool = False
    zeros: bool = False
    index: bool = False

    def bytes(self, outputs: int, inputs: int) -> float:
        """Bytes of one matrix with everything that belongs to it."""
        scales = self._scales(outputs, inputs)
        zeros = scales * self.bits / 8 if self.zeros else 0.0
        index = 4.0 * inputs if self.index else 0.0
        return outputs * inputs * self.bits / 8 + scales * self.scale_bytes + zeros + index

    def _scales(self, outputs: int, inputs: int) -> int:
        if self.group_size == 0:
            return 2  # of weights and of activations
        if self.group_size is None or self.group_size < 0:
            return outputs
        if self.blocks:
            return ceil(outputs / self.group_size) * ceil(inputs / self.group_size)
        return outputs * ceil(inputs / self.group_size)


def awq(bits: int, group_size: int | None) -> Stored:
    """4-bit weights, 16-bit scales, packed zeros."""
    return Stored("awq", bits, group_size, zeros=True)


def gptq(bits: int, group_size: int | None) -> Stored:
    """As AWQ, with the group of every input; 8 bits exist."""
    return Stored("gptq", bits, group_size, zeros=True, index=True)


def integers(bits: int, group_size: int | None, *, zeros: bool, activations: bool) -> Stored:
    """compressed-tensors: w4a16, w8a16 packed; w8a8 and w4a8 with quantized activations."""
    suffix = "a8" if activations else "a16"
    return Stored(f"w{bits}{suffix}", bits, group_size, zeros=zeros)


def fp8(block: int | None = None, *, channel: bool = False) -> Stored:
    """8-bit floats: one scale for the matrix, per channel, or one float32 per square block."""
    if block:
        return Stored("fp8", 8, block, 4.0, blocks=True)
    return Stored("fp8", 8, None if channel else 0, 4.0)


NVFP4 = Stored("nvfp4", 4, 16, 1.0)
MXFP4 = Stored("mxfp4", 4, 32, 1.0)
MXFP8 = Stored("mxfp8", 8, 32, 1.0)
# NF4 with double quantization: one byte per 64 weights; int8 one float32 per output.
BITSANDBYTES_4 = Stored("bitsandbytes", 4, 64, 1.02)
BITSANDBYTES_8 = Stored("bitsandbytes", 8, None, 4.0)
