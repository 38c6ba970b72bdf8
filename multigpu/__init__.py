"""Plan, serve and verify LLM inference on hosts with several GPUs.

This package is the pure room: values in, values out. No pyinfra, no subprocess, no sockets, no
files, except in the rooms that say so (`multigpu.host`, `multigpu.store`, `multigpu.cli`).
It stays importable on Python 3.9, because `multigpu.host` travels to GPU hosts inside it.
"""

__version__ = "0.1.0"
