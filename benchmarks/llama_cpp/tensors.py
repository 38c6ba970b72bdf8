"""Which tensors a model of some metadata has: asked of llama.cpp itself.

    python -m benchmarks.llama_cpp.tensors LIBRARY_FOLDER METADATA.gguf

prints one tensor per line, its name and its shape, innermost dimension first. `libllama.so` makes
the model from metadata alone (`llama_model_init_from_user`, include/llama.h) and allocates nothing.
It ends the process where it does not like what it reads, therefore a program of its own.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

TENSOR_MAP = "_Z29llama_internal_get_tensor_mapB5cxx11PK11llama_model"
PAIR_BYTES = (
    40  # std::pair<std::string, ggml_tensor *> of libstdc++: the text first, then the tensor
)
SHAPE_OFFSET, NAME_OFFSET = 16, 256


class ModelParams(ctypes.Structure):
    """`llama_model_params` of include/llama.h, 0c1e57098."""

    _fields_ = (
        ("devices", ctypes.c_void_p),
        ("tensor_buft_overrides", ctypes.c_void_p),
        ("n_gpu_layers", ctypes.c_int32),
        ("split_mode", ctypes.c_int32),
        ("load_mode", ctypes.c_int32),
        ("lazy_mode", ctypes.c_int32),
        ("main_gpu", ctypes.c_int32),
        ("tensor_split", ctypes.c_void_p),
        ("progress_callback", ctypes.c_void_p),
        ("progress_callback_user_data", ctypes.c_void_p),
        ("kv_overrides", ctypes.c_void_p),
        ("vocab_only", ctypes.c_bool),
        ("check_tensors", ctypes.c_bool),
        ("use_extra_bufts", ctypes.c_bool),
        ("no_host", ctypes.c_bool),
        ("no_alloc", ctypes.c_bool),
        ("load_mtp", ctypes.c_bool),
    )


class GgufInit(ctypes.Structure):
    """`gguf_init_params` of ggml/include/gguf.h."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def tensors(library: Path, metadata: Path) -> list[tuple[str, list[int]]]:
    """Name and shape of every tensor, optional ones included."""
    for name in ("libggml-base.so", "libggml.so"):
        base = ctypes.CDLL(str(library / name), mode=ctypes.RTLD_GLOBAL)
    llama = ctypes.CDLL(str(library / "libllama.so"), mode=ctypes.RTLD_GLOBAL)
    base.ggml_backend_load_all()
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = (ctypes.c_char_p, GgufInit)
    llama.llama_model_default_params.restype = ModelParams
    init = llama.llama_model_init_from_user
    init.restype = ctypes.c_void_p
    init.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ModelParams)
    header = base.gguf_init_from_file(str(metadata).encode(), GgufInit(True, None))
    params = llama.llama_model_default_params()
    params.no_alloc = params.load_mtp = True
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: None)
    model = init(header, ctypes.cast(callback, ctypes.c_void_p), None, params)
    if not model:
        raise SystemExit(f"llama.cpp makes no model of {metadata.name}")
    return _entries(getattr(llama, TENSOR_MAP), model)


def _entries(tensor_map: object, model: int) -> list[tuple[str, list[int]]]:
    """The elements of the returned std::vector."""
    tensor_map.restype = ctypes.POINTER(ctypes.c_size_t)  # type: ignore[attr-defined]
    tensor_map.argtypes = (ctypes.c_void_p,)  # type: ignore[attr-defined]
    vector = tensor_map(model)  # type: ignore[operator]
    found = []
    for pair in range(vector[0], vector[1], PAIR_BYTES):
        tensor = ctypes.cast(pair + 32, ctypes.POINTER(ctypes.c_size_t))[0]
        text = ctypes.cast(pair, ctypes.POINTER(ctypes.c_size_t))[0]
        shape = list(ctypes.cast(tensor + SHAPE_OFFSET, ctypes.POINTER(ctypes.c_int64))[0:4])
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        found.append((ctypes.string_at(text).decode(), shape))
    return found


if __name__ == "__main__":
    for name, shape in tensors(Path(sys.argv[1]), Path(sys.argv[2])):
        print(name, *shape)
