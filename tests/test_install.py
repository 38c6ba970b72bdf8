"""The scripts that install a runtime: read by a real shell, run against a stand-in for python3."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from multigpu import install
from multigpu.errors import MultigpuError
from multigpu.hardware import Host
from multigpu.install import Recipe

LOCKS = Path(__file__).parent.parent / "templates/requirements"
VLLM_LOCK = (LOCKS / "vllm-0.33.0.txt").read_text()
LLAMA_LOCK = (LOCKS / "llama-cpp-python-0.3.36.txt").read_text()
WHEEL = "/home/ada/wheels/llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
HOST = Host("tower", python=(3, 11, 2))

# Makes a virtual environment whose own python is the same stand-in, and writes down what it is
# asked for. `-m pip` fails on demand, and lays out what the llama.cpp wheel would.
PYTHON = """\
#!/bin/sh
echo "$@" >> "$LOG"
case "$1 $2" in
"-m venv") mkdir "$3" "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") [ -z "$FAIL" ] && mkdir -p "$SITE/bin" && touch "$SITE/bin/llama-server" ;;
*) echo "$SITE" ;;
esac
"""


def recipes() -> dict[str, Recipe]:
    return {
        "vllm": install.vllm(HOST, "0.33.0", VLLM_LOCK),
        "llama.cpp wheel": install.llama_cpp_wheel("0.3.36", WHEEL, "f" * 64, 1000),
        "llama.cpp source": install.llama_cpp_source("0.3.36", LLAMA_LOCK),
    }


each = pytest.mark.parametrize("name", list(recipes()))


class Machine:
    """Runs a recipe's script with everything below a directory of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.log, self.site = directory / "log", directory / "site packages"
        self.bin = directory / "bin"
        self.bin.mkdir()
        (directory / "opt/runtimes").mkdir(parents=True)
        self.command("python3", PYTHON)

    def command(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, recipe: Recipe, fail: str = "") -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:/usr/bin:/bin"
        variables = {"PATH": path, "LOG": str(self.log), "SITE": str(self.site), "FAIL": fail}
        script = ["sh", "-c", recipe.script or ""]
        return subprocess.run(script, env=variables, capture_output=True, text=True)

    def pips(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith("-m pip")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(install, "PREFIX", str(tmp_path / "opt"))
    found = Machine(tmp_path)
    found.command("nvcc", "#!/bin/sh\n")
    return found


@each
def test_a_shell_can_read_the_script(name: str) -> None:
    script = recipes()[name].script or ""
    assert subprocess.run(["sh", "-n", "-c", script], capture_output=True).returncode == 0


@each
def test_each_path_is_one_plain_word(name: str) -> None:
    recipe = recipes()[name]
    paths = [recipe.directory or "", recipe.executable, *(u.path for u in recipe.uploads)]
    assert all(re.fullmatch(r"[A-Za-z0-9_./-]+", path) for path in paths)
    outside_quotes = re.sub(r'"[^"]*"|\'[^\']*\'', "", recipe.script or "")
    assert "$" not in outside_quotes and "`" not in outside_quotes


@each
def test_every_pip_call_demands_hashes_of_files_that_were_uploaded(
    name: str, machine: Machine
) -> None:
    recipe = recipes()[name]
    assert machine.run(recipe).returncode == 0
    uploaded = {upload.path: upload.content for upload in recipe.uploads}
    calls = machine.pips()
    assert calls
    for call in calls:
        words = shlex.split(call)
        assert {"--require-hashes", "--no-deps"} <= set(words)
        lock = uploaded[words[words.index("-r") + 1]] or b""
        requirements = re.findall(rb"^[^\s#].*(?:\n\s+.*)*", lock, re.MULTILINE)
        assert requirements and all(b"--hash=sha256:" in one for one in requirements)


@each
def test_a_script_that_was_cut_short_may_be_run_again(name: str, machine: Machine) -> None:
    recipe = recipes()[name]
    directory = Path(recipe.directory or "")
    assert machine.run(recipe, fail="yes").returncode != 0
    (directory / "left over").touch()
    assert machine.run(recipe).returncode == 0
    assert not (directory / "left over").exists()
    assert not Path(recipe.stamp or "").exists()


@pytest.mark.parametrize("name", ["llama.cpp wheel", "llama.cpp source"])
def test_llama_server_is_found_under_a_path_without_the_python_version(
    name: str, machine: Machine
) -> None:
    recipe = recipes()[name]
    assert machine.run(recipe).returncode == 0
    assert Path(recipe.executable).resolve() == machine.site / "bin/llama-server"
    assert Path(recipe.executable).stat().st_mode & 0o111 == 0o111
    (setting,) = recipe.environment
    assert setting.name == "LD_LIBRARY_PATH"
    assert setting.value == f"{recipe.directory}/llama.cpp/lib"


def test_a_host_without_venv_is_told_which_package_it_lacks(machine: Machine) -> None:
    machine.command("python3", "#!/bin/sh\nexit 1\n")
    done = machine.run(recipes()["vllm"])
    assert done.returncode == 1
    assert "install python3-venv" in done.stderr


def test_a_build_without_a_cuda_toolkit_stops_before_it_removes_anything(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("nvcc", path="/usr/bin:/bin"):
        pytest.skip("nvcc is everywhere on this machine")
    monkeypatch.setattr(install, "CUDA_PROGRAMS", str(machine.site))
    recipe = recipes()["llama.cpp source"]
    Path(recipe.directory or "").mkdir()
    (machine.bin / "nvcc").unlink()
    done = machine.run(recipe)
    assert done.returncode == 1
    assert "no nvcc: install the CUDA toolkit" in done.stderr
    assert Path(recipe.directory or "").exists()


def test_the_source_build_gets_its_tools_first_and_the_sdist_alone() -> None:
    own, tools = recipes()["llama.cpp source"].uploads
    assert (own.content or b"").startswith(b"llama-cpp-python==0.3.36 ")
    assert b"llama-cpp-python" not in (tools.content or b"")
    assert tools.path == f"{own.path}.tools"


def test_a_lock_without_the_package_is_refused() -> None:
    with pytest.raises(MultigpuError, match="names llama-cpp-python 0 times"):
        install.llama_cpp_source("0.3.36", "cmake==4.0.0 --hash=sha256:00\n")


def test_another_lock_is_another_directory() -> None:
    other = install.vllm(HOST, "0.33.0", VLLM_LOCK + "# changed\n")
    assert other.directory != recipes()["vllm"].directory


def test_vllm_says_which_python_it_needs() -> None:
    with pytest.raises(MultigpuError, match=r"needs Python 3\.11 or newer, tower has 3\.9\.18"):
        install.vllm(Host("tower", python=(3, 9, 18)), "0.33.0", VLLM_LOCK)


def test_an_unknown_python_is_not_refused() -> None:
    assert install.vllm(Host("tower"), "0.33.0", VLLM_LOCK) == recipes()["vllm"]


@pytest.mark.parametrize("name", ["x y-1-py3-none-any.whl", "$(id).whl", "model.gguf", "a.whl"])
def test_a_wheel_of_another_name_is_refused(name: str) -> None:
    with pytest.raises(MultigpuError, match="not named like a wheel"):
        install.llama_cpp_wheel("0.3.36", f"/srv/{name}", "f" * 64, 1000)


def test_a_runtime_that_is_already_there_is_left_alone() -> None:
    recipe = install.already_there("/usr/bin/vllm")
    assert (recipe.executable, recipe.script, recipe.stamp) == ("/usr/bin/vllm", None, None)
