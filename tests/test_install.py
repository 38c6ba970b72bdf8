"""Recipes: what is brought to a host and what its program is told to do there."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from multigpu import install
from multigpu.errors import MultigpuError, WishError
from multigpu.hardware import Gpu, Host, ManagedFile, UnitState, Vendor
from multigpu.install import Recipe, Source, generations, locks, progress, source
from multigpu.managed import Generation
from multigpu.store.recipes import Files
from multigpu.toolchain import Python, Toolchain
from multigpu.wish_values import Wish

TEMPLATES = Path(__file__).parent.parent / "templates"
LOCKS = sorted((TEMPLATES / "requirements").glob("*.txt"))
WISH = Wish("chat", "org/model")
DEBIAN = Toolchain(pythons=(Python("/usr/bin/python3", (3, 11), True),), machine="x86_64")
CARDS = (
    Gpu(0, compute_capability=(8, 9), memory_mib=24564),
    Gpu(1, compute_capability=(8, 6), memory_mib=24576),
)
HOST = Host("tower", CARDS, python=(3, 11, 2), glibc="2.36", toolchain=DEBIAN)


class Cached(Files):
    """The repository's locks, and one wheel: given by the operator, or built before."""

    wheel: str | None = None

    def identity(self, path: str) -> tuple[str, int]:
        return "f" * 64, 1000

    def built(self, kind: str) -> str | None:
        return self.wheel


FILES = Cached(TEMPLATES)
WHEEL = "/home/ada/wheels/llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"


def vllm(version: str = "0.33.0", host: Host = HOST) -> Recipe:
    wish = replace(WISH, runtime_version=version)
    return install.python_runtime("vllm", host, wish, FILES, version="0.33.0", program="vllm")


def llama(wish: Wish = WISH, host: Host = HOST, server: bool = False) -> Recipe:
    return install.llama_cpp(host, wish, FILES, version="0.3.36", server=server)


RECIPES = {
    "vllm": vllm(),
    "llama.cpp wheel": llama(replace(WISH, wheel=WHEEL)),
    "llama.cpp built": llama(),
    "llama_cpp.server built": llama(server=True),
}
each = pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_a_hash_for_every_requirement_and_no_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert "--index" not in text
    for block in locks.requirements(text):
        assert "--hash=sha256:" in block, block


@each
def test_all_that_a_job_reads_is_uploaded_or_built(recipe: Recipe) -> None:
    assert recipe.job is not None
    there = {upload.path for upload in recipe.uploads}
    if recipe.build is not None:
        assert {recipe.build.requirements, recipe.build.tools} <= there
        there.add(recipe.build.wheel)
    assert set(recipe.job.requirements) <= there
    assert recipe.job.wheel is None or recipe.job.wheel in there


@each
def test_everything_lies_below_directories_named_like_the_runtime(recipe: Recipe) -> None:
    assert recipe.executable.startswith(f"/opt/multigpu/runtimes/{recipe.name}/")
    for upload in recipe.uploads:
        assert upload.path.startswith(f"/opt/multigpu/wheels/{recipe.name}/")


def test_another_lock_gives_another_directory() -> None:
    assert vllm("0.32.0").name.startswith("vllm-0.32.0-")
    text = (TEMPLATES / "requirements/vllm-0.33.0.txt").read_text()
    assert vllm().name == f"vllm-0.33.0-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def test_a_wished_version_without_a_lock_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(WishError, match=r"'9.9' of vllm has no lock; there are 0.32.0, 0.33.0"):
        vllm("9.9")


def test_the_locks_of_a_runtime_are_not_those_of_one_with_a_longer_name() -> None:
    assert FILES.versions("llama-cpp-python") == ("0.3.36",)
    assert FILES.versions("llama-cpp-python-server") == ("0.3.36",)


def test_the_cuda_of_the_wheels_is_read_from_the_lock() -> None:
    assert vllm().needs.cuda == (13, 0)
    older = "nvidia-cuda-runtime-cu12==12.8.90 ; sys_platform == 'linux' \\\n    --hash=sha256:00\n"
    assert locks.cuda(older) == (12, 8)
    assert locks.cuda("numpy==2.4.6 \\\n") is None
    only_mac = "nvidia-cuda-runtime==13.5.37 ; sys_platform == 'darwin' \\\n"
    assert locks.cuda(only_mac) is None


def test_llama_cpp_is_built_for_exactly_the_cards() -> None:
    build = llama().build
    assert build is not None
    assert "-DCMAKE_CUDA_ARCHITECTURES=86;89" in build.cmake_arguments
    assert "-DGGML_NATIVE=OFF" in build.cmake_arguments


def test_hosts_of_one_kind_share_a_wheel_and_others_do_not() -> None:
    def kind(host: Host) -> str:
        build = llama(host=host).build
        assert build is not None
        return build.kind

    twin = replace(HOST, name="other", gpus=tuple(reversed(CARDS)))
    assert kind(twin) == kind(HOST)
    assert kind(replace(HOST, glibc="2.39")) != kind(HOST)
    assert kind(replace(HOST, gpus=CARDS[:1])) != kind(HOST)
    assert kind(replace(HOST, toolchain=replace(DEBIAN, machine="aarch64"))) != kind(HOST)


def test_a_wheel_that_was_built_before_is_uploaded_instead_of_built() -> None:
    cached = Cached(TEMPLATES)
    cached.wheel = WHEEL
    recipe = install.llama_cpp(HOST, WISH, cached, version="0.3.36")
    assert recipe.build is None
    assert recipe.directory == llama().directory
    assert recipe.job is not None
    assert (recipe.job.wheel_sha256, recipe.uploads[0].source) == ("f" * 64, WHEEL)


def test_a_file_that_is_named_unlike_a_wheel_is_refused() -> None:
    with pytest.raises(MultigpuError, match="not named like a wheel"):
        llama(replace(WISH, wheel="/home/ada/llama.whl"))


def test_a_lock_without_the_package_is_refused() -> None:
    with pytest.raises(MultigpuError, match="names llama-cpp-python 0 times"):
        locks.parted("cmake==4.0.0 --hash=sha256:00\n", "llama-cpp-python")


# --- where packages come from --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"package_index": "https://ada:secret@index.lan/simple"}, "package_index holds a user"),
        ({"https_proxy": "http://token@proxy.lan:3128"}, "https_proxy holds a user"),
        ({"package_index": "index.lan"}, "package_index is no URL"),
        ({"package_index": 8}, "package_index is int"),
        ({"package_index": "https://a/", "wheel_directory": "x"}, "both set"),
    ],
)
def test_a_source_that_does_not_hold_is_refused(data: dict[str, object], words: str) -> None:
    with pytest.raises(WishError, match=words) as refusal:
        install.read_source(data)
    assert "secret" not in str(refusal.value)
    assert "token" not in str(refusal.value)


def test_an_index_stands_in_the_job_and_in_the_build() -> None:
    found = install.sourced(llama(), Source("https://index.lan/simple"))
    assert found.job is not None
    assert found.build is not None
    assert found.job.index == found.build.index == "https://index.lan/simple"


def test_a_folder_of_the_host_is_used_in_place() -> None:
    found = install.sourced(vllm(), Source(wheel_directory="host:/srv/wheels"))
    assert found.job is not None
    assert found.job.find_links == "/srv/wheels"


def test_a_folder_of_the_controller_is_uploaded_below_the_runtimes_wheels() -> None:
    found = install.sourced(vllm(), Source(wheel_directory="wheels"))
    assert found.job is not None
    assert found.job.find_links == source.wheelhouse(found)


def test_no_source_changes_neither_directory_nor_stamp() -> None:
    for packages in (Source(), Source("https://a.lan/"), Source(wheel_directory="host:/w")):
        assert install.sourced(vllm(), packages).stamp == vllm().stamp


# --- checks before anything is brought -----------------------------------------------------------


GOOD = replace(HOST, driver="580.95.05", install_free_mib=200_000)


def rules(host: Host, recipe: Recipe | None = None) -> list[str]:
    return [reason.rule for reason in install.preflight(host, recipe or vllm())]


def with_pythons(*pythons: Python, uv: str | None = None) -> Host:
    return replace(GOOD, toolchain=Toolchain(pythons=pythons, uv=uv, machine="x86_64"))


OLD = Python("/usr/bin/python3", (3, 10), True)
BARE = Python("/usr/bin/python3", (3, 12), False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (GOOD, []),
        (Host("unknown"), []),
        (replace(GOOD, driver="570.153.02"), ["driver-cuda"]),
        (replace(GOOD, glibc="2.17"), ["glibc"]),
        (with_pythons(OLD), ["python-version"]),
        (replace(GOOD, toolchain=None, python=(3, 9, 18)), ["python-version"]),
        (with_pythons(BARE), ["python-venv"]),
        (with_pythons(BARE, uv="0.9.2"), []),
        (with_pythons(OLD, Python("/usr/bin/python3.12", (3, 12), True)), []),
        (replace(GOOD, gpus=(Gpu(0, compute_capability=(7, 0)),)), ["wheel-capability"]),
        (replace(GOOD, install_free_mib=100), ["install-disk"]),
    ],
)
def test_what_a_host_lacks_for_vllm_is_said(host: Host, expected: list[str]) -> None:
    found = [rule for rule in rules(host) if rule != "install-disk" or "install-disk" in expected]
    assert found == expected


def test_the_newer_python_beside_an_old_one_makes_the_environment() -> None:
    host = with_pythons(OLD, Python("/usr/bin/python3.12", (3, 12), True))
    job = vllm(host=host).job
    assert job is not None
    assert job.python == "/usr/bin/python3.12"


def builder(
    nvcc: tuple[int, int] | None, driver: str = "580.95.05", *cards: tuple[int, int]
) -> Host:
    programs = frozenset({"g++", "nvcc"} if nvcc else {"g++"})
    gpus = tuple(Gpu(i, compute_capability=card) for i, card in enumerate(cards or ((8, 6),)))
    chain = replace(DEBIAN, nvcc=nvcc, programs=programs)
    return replace(GOOD, gpus=gpus, driver=driver, toolchain=chain)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (builder((12, 8)), []),
        (builder(None), ["build-tools"]),
        (builder((12, 4), "580.95.05", (8, 6), (12, 0)), ["cuda-toolkit"]),
        (builder((13, 0), "580.95.05", (6, 1)), ["cuda-toolkit"]),
        (builder((13, 0), "570.153.02"), ["cuda-toolkit"]),
        (builder((12, 9), "535.261.03"), []),
    ],
)
def test_what_a_host_lacks_to_build_llama_cpp_is_said(host: Host, expected: list[str]) -> None:
    assert rules(host, llama(host=host)) == expected


def test_an_amd_host_is_asked_for_no_nvidia_driver() -> None:
    cards = (Gpu(0, vendor=Vendor.AMD, gfx="gfx1100"),)
    assert "driver-cuda" not in rules(replace(GOOD, gpus=cards, driver="5.1"))


def test_a_refusal_is_one_line_with_what_to_do() -> None:
    host = replace(GOOD, driver="570.153.02", glibc="2.17")
    line = install.preflight_refusal(vllm(), install.preflight(host, vllm()))
    assert line.startswith("vllm 0.33.0 cannot be installed: glibc 2.17, needed: 2.28 or newer")
    assert "driver 570.153.02, needed: 580 or newer for CUDA 13; do: install driver 580" in line
    assert "\n" not in line


# --- generations ---------------------------------------------------------------------------------


def stamped(*names: str) -> Host:
    files = tuple(
        ManagedFile(f"/opt/multigpu/runtimes/{name}/installed", "0" * 64) for name in names
    )
    return replace(GOOD, runtimes=names, files=files)


def test_an_upgrade_keeps_the_generation_before_and_drops_the_one_before_that() -> None:
    new, old = vllm("0.33.0"), vllm("0.32.0")
    host = replace(
        stamped(old.name, "vllm-0.31.0-aaaaaaaaaaaa"),
        generations=(Generation("chat", old.name, "vllm-0.31.0-aaaaaaaaaaaa"),),
    )
    records = install.record_of(host, {"chat": new})
    assert records == (Generation("chat", new.name, old.name),)
    assert generations.obsolete(host, install.keep(records)) == ("vllm-0.31.0-aaaaaaaaaaaa",)
    assert install.prune_needed(host, {"chat": new})


def test_going_back_keeps_the_newer_one() -> None:
    new, old = vllm("0.33.0"), vllm("0.32.0")
    host = replace(
        stamped(old.name, new.name), generations=(Generation("chat", new.name, old.name),)
    )
    assert install.record_of(host, {"chat": old}) == (Generation("chat", old.name, new.name),)


def test_nothing_is_pruned_on_a_host_that_is_as_it_should_be() -> None:
    new, old = vllm("0.33.0"), vllm("0.32.0")
    host = replace(
        stamped(old.name, new.name), generations=(Generation("chat", new.name, old.name),)
    )
    assert not install.prune_needed(host, {"chat": new})


def test_a_generation_that_another_service_runs_from_stays() -> None:
    new, old = vllm("0.33.0"), vllm("0.32.0")
    host = replace(stamped(old.name, new.name), generations=(Generation("other", old.name, None),))
    records = install.record_of(host, {"chat": new, "other": old})
    assert generations.obsolete(host, install.keep(records)) == ()


def test_a_directory_that_is_being_installed_is_left_alone() -> None:
    unit = UnitState("multigpu-install-vllm-0.32.0-aa.service", active_state="activating")
    host = replace(stamped("vllm-0.32.0-aa"), units=(unit,))
    assert generations.obsolete(host, ()) == ()


def test_locks_and_wheels_of_a_complete_runtime_are_left_over() -> None:
    new = vllm()
    host = stamped(new.name)
    lock = ManagedFile(f"/opt/multigpu/wheels/{new.name}/requirements.txt", "0" * 64)
    host = replace(
        host, files=(*host.files, lock), generations=(Generation("chat", new.name, None),)
    )
    assert install.prune_needed(host, {"chat": new})


def test_an_operators_own_runtime_has_no_generation() -> None:
    own = install.already_there("/opt/vllm/bin/vllm")
    assert install.record_of(GOOD, {"chat": own}) == ()
    assert not install.prune_needed(GOOD, {"chat": own})


def test_jobs_hold_no_secret_and_fit_into_argv() -> None:
    for recipe in RECIPES.values():
        assert recipe.job is not None
        assert len(str(asdict(recipe.job))) < 4000


# --- how far it is -------------------------------------------------------------------------------


def test_what_the_host_shows_of_an_installation_is_read() -> None:
    busy = progress.watched('ActiveState=activating\nJob=7\n{"line": "vllm: 12 s, [3/9]"}\n')
    assert (busy.busy, busy.complete, busy.line) == (True, False, "vllm: 12 s, [3/9]")
    failed = progress.watched('ActiveState=failed\nJob=0\n{"reason": "the disk is full"}\n')
    assert (failed.busy, failed.reason, failed.line) == (False, "the disk is full", None)
    done = progress.watched("ActiveState=inactive\nJob=0\nstamp\n\n")
    assert done.complete
    assert progress.watched('ActiveState=activating\n{"line": 7\n').line is None
