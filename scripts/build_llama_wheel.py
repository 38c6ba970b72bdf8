"""Build a llama-cpp-python wheel that carries llama-server and ggml-rpc-server.

PyPI has no llama-server; the llama-cpp-python source distribution contains all of llama.cpp, and a
wheel of it, built once per kind of host, installs everywhere with pip. Programs land in
`<venv>/lib/python3.X/site-packages/bin`, their libraries in `.../site-packages/lib`, without RPATH:
run them with `LD_LIBRARY_PATH=<venv>/lib/python3.X/site-packages/lib`.

    python scripts/build_llama_wheel.py             CPU and RPC
    python scripts/build_llama_wheel.py --cuda      CUDA too; needs the CUDA toolkit
    python scripts/build_llama_wheel.py --hip       ROCm too; needs the ROCm toolkit

Prints the path of the wheel. The cache is keyed by version, flags and architecture, so a second
call is instant.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

VERSION = "0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
HEARTBEAT_SECONDS = 15.0

FLAGS = (
    "-DLLAVA_BUILD=OFF",  # it would add the multimodal library a second time
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_TOOLS_INSTALL=ON",
    "-DLLAMA_USE_PREBUILT_UI=OFF",  # it would download during the build
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_ALL_WARNINGS=OFF",
    "-DGGML_RPC=ON",
    "-DGGML_NATIVE=OFF",  # the wheel runs on other machines than this one
    "-DGGML_OPENMP=OFF",  # no libgomp needed on the host
)
# Read by CMake right after `project(llama.cpp)`. Tools that no host needs are left out. The rest of
# the time goes into headers that are parsed again for every file, so files are compiled in batches;
# those set apart do not bear it. ggml is left as it is: its speed is the product.
HOOK = """
set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
macro(add_subdirectory directory)
  if(NOT "${directory}" MATCHES "^(cli|completion|cvector-generator|export-lora|gguf-split|imatrix|\
perplexity|quantize|results|tokenize|tts)$")
    if("${directory}" MATCHES "^(src|common|mtmd|server)$"
       AND NOT CMAKE_CURRENT_SOURCE_DIR MATCHES "ggml$")
      set(CMAKE_UNITY_BUILD ON)
      set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
    else()
      set(CMAKE_UNITY_BUILD OFF)
      set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
    endif()
    _add_subdirectory(${directory} ${ARGN})
    foreach(alone json.cpp mtmd-helper.cpp mtmd-helper-gen.cpp)
      foreach(target llama-common mtmd)
        if(TARGET ${target})
          get_target_property(folder ${target} SOURCE_DIR)
          set_source_files_properties("${folder}/${alone}" TARGET_DIRECTORY ${target}
                                      PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
        endif()
      endforeach()
    endforeach()
  endif()
endmacro()
"""


def main() -> int:
    options = arguments()
    flags = chosen_flags(options)
    wheel = location(Path(options.cache).expanduser(), flags)
    if not options.where and not wheel.exists():
        build(flags, wheel, options.jobs)
    print(wheel)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("MULTIGPU_CACHE") or "~/.cache/multigpu"
    parser.add_argument("--cache", default=default, help="directory of built wheels")
    parser.add_argument("--cuda", action="store_true", help="append -DGGML_CUDA=ON")
    parser.add_argument("--hip", action="store_true", help="append -DGGML_HIP=ON")
    parser.add_argument("--cmake", action="append", default=[], metavar="-DNAME=VALUE",
                        help="one more flag for CMake; may be given again")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time")
    parser.add_argument("--where", action="store_true", help="print the path without building")
    return parser.parse_args()


def chosen_flags(options: argparse.Namespace) -> tuple[str, ...]:
    extra = (("-DGGML_CUDA=ON",) if options.cuda else ()) + (
        ("-DGGML_HIP=ON",) if options.hip else ()
    )
    return (*FLAGS, *extra, *options.cmake)


def location(cache: Path, flags: tuple[str, ...]) -> Path:
    """Path of the wheel of these flags, whether it is there or not."""
    libc = "-".join(platform.libc_ver())
    text = "\0".join((VERSION, SDIST_SHA256, platform.machine(), libc, HOOK, *flags))
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"llama_cpp_python-{VERSION}-py3-none-linux_{platform.machine()}.whl"
    return cache / f"llama-wheel-{key}" / name


def build(flags: tuple[str, ...], wheel: Path, jobs: int) -> None:
    """Build into a temporary directory and move the finished wheel to its place."""
    with tempfile.TemporaryDirectory(prefix="llama-wheel-") as folder:
        hook, pins = Path(folder, "hook.cmake"), Path(folder, "pins.txt")
        hook.write_text(HOOK)
        pins.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
        cmake = " ".join((*flags, f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={hook}"))
        watch(
            [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir",
             "--require-hashes", "--no-binary=llama-cpp-python", f"--wheel-dir={folder}/out",
             f"--requirement={pins}"],
            {**os.environ, "CMAKE_ARGS": cmake, "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs)},
        )  # fmt: skip
        built = next(Path(folder, "out").glob("*.whl"))
        wheel.parent.mkdir(parents=True, exist_ok=True)
        partial = wheel.with_suffix(".partial")
        shutil.move(built, partial)
        partial.replace(wheel)


def watch(argv: list[str], environment: dict[str, str]) -> None:
    """Run pip, saying every 15 s how far ninja is. Exits with its last lines when it fails."""
    started = time.monotonic()
    process = subprocess.Popen(
        argv, env=environment, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    while reader.is_alive():
        reader.join(HEARTBEAT_SECONDS)
        if reader.is_alive():
            say(started, progress(lines))
    if process.wait():
        print("".join(lines[-40:]), file=sys.stderr)
        raise SystemExit("llama.cpp wheel: the build failed; its last lines are above")
    say(started, "done")


def progress(lines: list[str]) -> str:
    """`[n/m]` of the newest line that has it; before that, what pip is doing."""
    found = (re.search(r"\[\d+/\d+\]", line) for line in reversed(lines))
    steps = (match.group(0) for match in found if match)
    return next(steps, lines[-1].strip()[:60] if lines else "starting pip")


def say(started: float, text: str) -> None:
    elapsed = time.monotonic() - started
    print(f"llama.cpp wheel: {elapsed:.0f} s {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
