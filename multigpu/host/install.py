"""Install one runtime, or build one wheel, from a job of `multigpu.install`.

    install runtime JSON [STATUS]   an environment from hashed locks or a wheel, sealed, stamped
    install wheel JSON [STATUS]     a wheel of llama-cpp-python, built from its hashed sdist

Runs as root in a transient unit, so that it outlives the SSH connection. With uv where the host has
it, with pip otherwise. The directory is complete when its stamp is there; whatever fails leaves no
directory, and its last line says why. Python 3.9+, stdlib only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any, Dict, List

from multigpu.host.install_run import Failed, free_mib, report, run, watched
from multigpu.host.install_words import reason as words

MIB = 1 << 20
CONFIGURATIONS = ("/etc/pip.conf", "/root/.config/pip/pip.conf", "/root/.pip/pip.conf")
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
QUIET = ("--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off")
HASHED = ("--require-hashes", "--no-deps")
JOBS_PER_GIB = 0.5
"""nvcc takes up to two GiB a file."""

Job = Dict[str, Any]


def main(argv: List[str]) -> int:
    """Run one job. Returns the exit status; why it failed is its last line, and in STATUS."""
    os.umask(0o022)
    what, job = argv[0], json.loads(argv[1])
    report.path = argv[2] if len(argv) > 2 else None
    try:
        {"runtime": install, "wheel": build}[what](job)
    except Failed as error:
        return failed(str(error))
    except OSError as error:
        return failed(full(error) or f"{error.strerror or error}: {error.filename or ''}")
    report.remove()
    return 0


def failed(reason: str) -> int:
    """Say it once, where the deploy and where a person looks."""
    report.write({"reason": reason})
    print(f"multigpu: {reason}", flush=True)
    return 1


def full(error: OSError) -> "str | None":
    """The line for a disk that filled up under our own hands."""
    return words([str(error)]) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None


def install(job: Job) -> None:
    """Make `directory`, complete or not at all."""
    directory = job["directory"]
    name = os.path.basename(directory)
    work = beside(os.path.dirname(directory), name)
    discard(directory)
    discard(work)
    os.makedirs(f"{work}/tmp")
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    try:
        room(os.path.dirname(directory), job.get("needed_mib"))
        with watched(name, directory):
            packages(job, work)
        if job.get("link"):
            link(directory, job["link"])
        seal(directory, name)
    except BaseException:
        discard(directory)
        raise
    finally:
        discard(work)


def beside(rooms: str, name: str) -> str:
    """For downloads and caches, on the file system of the runtimes: uv links instead of copying."""
    return f"{os.path.dirname(rooms)}/work/{name}"


def packages(job: Job, work: str) -> None:
    """The virtual environment with everything in it."""
    directory, uv = job["directory"], chosen_uv(job)
    own = environment(work, job.get("index"))
    if uv is None:
        run([job["python"], "-m", "venv", directory], own)
        start = [f"{directory}/bin/python", "-m", "pip", "install", *QUIET]
    else:
        run([uv, "venv", "--quiet", "--python", job["python"], directory], own)
        start = [uv, "pip", "install", "--python", f"{directory}/bin/python"]
        start += ["--compile-bytecode", "--cache-dir", f"{work}/uv"]
    for requirements in job.get("requirements") or ():
        run([*start, "--only-binary", ":all:", *HASHED, *where(job), "-r", requirements], own)
    if job.get("wheel"):
        checked(job["wheel"], job.get("wheel_sha256"))
        run([*start, "--no-deps", "--no-index", job["wheel"]], own)


def chosen_uv(job: Job) -> "str | None":
    """uv where the host has it; not where only pip's configuration says where packages are."""
    path = shutil.which("uv", path=f"{os.environ.get('PATH', '')}:/usr/local/bin:/root/.local/bin")
    told = job.get("index") or job.get("find_links") or not job.get("requirements")
    return path if path and (told or not pip_configured()) else None


def pip_configured() -> bool:
    """True when a configuration of pip names an index or a folder: uv does not read it."""
    for path in CONFIGURATIONS:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                if any(word in stream.read() for word in ("index-url", "find-links", "no-index")):
                    return True
        except OSError:
            continue
    return False


def where(job: Job) -> List[str]:
    """Arguments that say where packages come from; none leaves it to the host's configuration."""
    if job.get("find_links"):
        if not os.path.isdir(job["find_links"]):
            raise Failed(
                f"wheel_directory {job['find_links']} is no directory on this host; do: put the "
                "wheels of the lock there"
            )
        return ["--no-index", "--find-links", job["find_links"]]
    return ["--index-url", job["index"]] if job.get("index") else []


def environment(work: str, index: "str | None") -> Dict[str, str]:
    """Ours, with the host's certificates, its login for the index, and room for downloads.

    pip takes nothing from an index without TLS unless told so; what is wrong there fails its hash.
    """
    own = {**os.environ, "TMPDIR": f"{work}/tmp", "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}
    own |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "HOME": "/root"}
    if index and index.startswith("http://"):
        own["PIP_TRUSTED_HOST"] = index[len("http://") :].partition("/")[0]
    bundle = next((path for path in AUTHORITIES if os.path.exists(path)), None)
    if bundle is not None:
        for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            own.setdefault(name, bundle)
    netrc = f"{os.environ.get('CREDENTIALS_DIRECTORY', '')}/netrc"
    if os.path.exists(netrc):
        own["NETRC"] = netrc
    return own


def room(directory: str, needed_mib: "int | None") -> None:
    """Refuse before anything is written."""
    free = free_mib(directory)
    if needed_mib is not None and free < needed_mib:
        raise Failed(
            f"{free / 1024:.1f} GiB free at {directory}, needed {needed_mib / 1024:.1f} GiB; do: "
            "make room, or mount a larger disk there"
        )


def checked(path: str, sha256: "str | None") -> None:
    """Refuse a wheel that is another than the controller's."""
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(MIB), b""):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise Failed(f"{path} has another hash than on the controller; do: remove it, run again")


def link(directory: str, name: str) -> None:
    """A link to where packages lie, whatever the version of Python; programs made executable."""
    ask = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site = subprocess.check_output([f"{directory}/bin/python", "-c", ask], text=True).strip()
    os.symlink(site, f"{directory}/{name}")
    programs = f"{site}/bin"
    for program in os.listdir(programs) if os.path.isdir(programs) else ():
        os.chmod(f"{programs}/{program}", 0o755)


def seal(directory: str, name: str) -> None:
    """Take every write bit away, then write the stamp."""
    for folder, _, files in os.walk(directory):
        for path in (folder, *(f"{folder}/{file}" for file in files)):
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode & 0o555)
    stamp = f"{directory}/installed"
    with open(f"{stamp}.new", "w", encoding="utf-8") as stream:
        stream.write(f"{name}\n")
        os.fchmod(stream.fileno(), 0o444)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(f"{stamp}.new", stamp)


def discard(path: str) -> None:
    """Remove a directory; root needs no write bits."""
    shutil.rmtree(path, ignore_errors=True)


def build(job: Job) -> None:
    """Build one wheel and move it to its place when it is complete."""
    work = beside(os.path.dirname(os.path.dirname(job["wheel"])), job["kind"])
    discard(work)
    os.makedirs(f"{work}/tmp")
    try:
        room(work, job.get("needed_mib"))
        with watched("llama.cpp", work):
            built = compiled(job, work)
        if os.path.basename(built) != os.path.basename(job["wheel"]):
            raise Failed(f"built {os.path.basename(built)}, planned was {job['wheel']}")
        os.makedirs(os.path.dirname(job["wheel"]), exist_ok=True)
        os.replace(built, job["wheel"])
    finally:
        discard(work)


def compiled(job: Job, work: str) -> str:
    """Path of the wheel that pip made of the sdist, with the locked tools, without isolation."""
    own, venv = environment(work, job.get("index")), f"{work}/venv"
    run([job["python"], "-m", "venv", venv], own)
    pip = [f"{venv}/bin/python", "-m", "pip"]
    tools = ["--only-binary", ":all:", *HASHED, *where(job), "-r", job["tools"]]
    run([*pip, "install", *QUIET, *tools], own)
    own["PATH"] = os.pathsep.join([f"{venv}/bin", own.get("PATH", ""), *(job.get("path") or ())])
    own["CMAKE_ARGS"] = " ".join(job["cmake_arguments"])
    own["CMAKE_BUILD_PARALLEL_LEVEL"] = str(parallel())
    for name, word in job.get("environment") or ():
        own[name] = subprocess.check_output(["sh", "-c", f"printf %s {word}"], env=own, text=True)
    source = ["--no-binary", ":all:", "--no-build-isolation", *HASHED, *where(job)]
    wheel = [*pip, "wheel", "-v", *QUIET, *source, "-w", f"{work}/out", "-r", job["requirements"]]
    run(wheel, own)
    (name,) = os.listdir(f"{work}/out")
    return f"{work}/out/{name}"


def parallel() -> int:
    """Compilers at a time: one a processor, as far as the memory reaches."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return max(1, min(os.cpu_count() or 1, int(memory * JOBS_PER_GIB)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
