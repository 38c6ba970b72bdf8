"""The argument parsers of installed vLLM and SGLang, without a GPU and without starting anything.

Both build their parsers from modules that import torch; the CPU build of it is enough. The module
that holds vLLM's parser moved between releases.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from collections.abc import Callable

VLLM_MODULES = (
    "vllm.entrypoints.common.cli_args",  # 0.33
    "vllm.entrypoints.launchers.cli_args",  # 0.32
    "vllm.entrypoints.openai.cli_args",
)
KERNELS = ("vllm._C", "vllm._C_stable_libtorch", "vllm._moe_C", "vllm._moe_C_stable_libtorch")


def vllm() -> argparse.ArgumentParser:
    """The parser of `vllm serve` on CUDA; the model is its positional argument."""
    pretend_cuda()
    from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]

    parser = _vllm_module().make_arg_parser(FlexibleArgumentParser())
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def pretend_cuda() -> None:
    """Let vLLM take this machine for one with CUDA: its defaults and choices depend on that.

    Its kernels need libcuda.so.1, so empty modules stand in for them.
    """
    sys.modules.update({name: types.ModuleType(name) for name in KERNELS})
    from vllm import platforms  # type: ignore[import-not-found]
    from vllm.platforms.cuda import NonNvmlCudaPlatform  # type: ignore[import-not-found]

    platforms._current_platform = NonNvmlCudaPlatform()


def _vllm_module():  # type: ignore[no-untyped-def]
    for name in VLLM_MODULES[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
    return importlib.import_module(VLLM_MODULES[-1])


def sglang() -> argparse.ArgumentParser:
    """The parser of `sglang serve`."""
    from sglang.srt.server_args import ServerArgs  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser("sglang serve")
    ServerArgs.add_cli_args(parser)
    return parser


def llama_cpp_server() -> argparse.ArgumentParser:
    """The parser that `python -m llama_cpp.server` makes of its pydantic settings."""
    from llama_cpp.server.cli import add_args_from_model  # type: ignore[import-not-found]
    from llama_cpp.server.settings import Settings  # type: ignore[import-not-found]

    parser = argparse.ArgumentParser()
    add_args_from_model(parser, Settings)
    parser.add_argument("--config_file", type=str)
    return parser


PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "vllm": vllm,
    "sglang": sglang,
    "llama_cpp.server": llama_cpp_server,
}
