"""What systemd will make of the rendered text.

The two unquoters below are written from systemd.service(5) "Command lines" and systemd.exec(5)
"EnvironmentFile=", not from the code under test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from multigpu import supervision, units
from multigpu import unit_text as quoting
from multigpu.host import supervise_options
from multigpu.host.judging import Times
from multigpu.host.watching import Names
from multigpu.plan import Credential, Plan, Service, Setting
from multigpu.progress import Progress
from multigpu.store import texts
from multigpu.units import ENVIRONMENT_TEMPLATE, MARK, UNIT_TEMPLATE, RenderedUnit
from multigpu.wish_values import Endpoint
from tests.plans import LAYER_SPLIT, SETTING, UUIDS, plan

DIRECTORY = Path(__file__).parent.parent / "templates"
TEMPLATES = texts.templates(DIRECTORY)

VLLM = Service(
    "chat",
    ("/opt/multigpu/runtimes/vllm/bin/vllm", "serve", "Qwen/Qwen3-32B-AWQ", "--port", "8000",
     "--tensor-parallel-size", "2", "--chat-template", "{{ '100% \\n' }} $HOME; #1"),
    (SETTING, Setting("NCCL_P2P_DISABLE", "1", "no P2P between the cards")),
    8000,
    "/health",
    (0, 1),
)  # fmt: skip
LLAMA = Service(
    "coder",
    ("/opt/multigpu/runtimes/llama.cpp/bin/llama-server", "--model", "/srv/two words.gguf",
     "--tensor-split", "33,32", "--port", "8001"),
    (SETTING,),
    8001,
    "/health",
    (0, 1),
)  # fmt: skip


def render(
    service: Service = VLLM,
    wished: Plan | None = None,
    extra: tuple[Setting, ...] = (),
    templates: Mapping[str, str] = TEMPLATES,
    host_program: str = "/opt/multigpu/host/multigpu-host.pyz",
) -> RenderedUnit:
    return units.render(
        wished or plan(), service, host_program=host_program, extra=extra, templates=templates
    )


def unit_text(unit: RenderedUnit) -> str:
    return unit.files[1].content


def environment_text(unit: RenderedUnit) -> str:
    return unit.files[0].content


ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "'": "'", "\\": "\\", "s": " "}


def split_command_line(text: str) -> list[str]:
    """systemd.service(5): quotes, C escapes, then %% and $$."""
    words: list[str] = []
    word, quote, rest = None, None, text.strip(" \t")
    while rest:
        char, rest = rest[0], rest[1:]
        if char == "\\":
            code = re.match(r"x([0-9a-f]{2})", rest)
            word = (word or "") + (chr(int(code[1], 16)) if code else ESCAPES[rest[0]])
            rest = rest[3:] if code else rest[1:]
        elif quote and char == quote:
            quote = None
        elif quote is None and char in "\"'":
            quote, word = char, word or ""
        elif quote is None and char in " \t":
            words, word = words + ([word] if word is not None else []), None
        else:
            word = (word or "") + char
    assert quote is None
    words += [word] if word is not None else []
    return [literal(w) for w in words]


def literal(word: str) -> str:
    """A lone % or $ would be a specifier or a variable."""
    assert not re.search(r"(?<!%)(%%)*%(?!%)", word)
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", word)
    return word.replace("%%", "%").replace("$$", "$")


def logical_lines(text: str) -> list[str]:
    """systemd.syntax(7): CR and LF end a line, a backslash continues it, comments are dropped."""
    lines: list[str] = []
    pending = ""
    for line in re.split(r"[\n\r\0]", text):
        if line.lstrip(" \t").startswith(("#", ";")):
            continue
        if re.search(r"(?<!\\)(\\\\)*\\$", line):
            pending += line[:-1] + " "
            continue
        lines.append(pending + line.strip(" \t"))
        pending = ""
    return lines


def exec_start(unit: RenderedUnit) -> list[str]:
    (line,) = [x for x in logical_lines(unit_text(unit)) if x.startswith("ExecStart=")]
    return split_command_line(line.removeprefix("ExecStart="))


def read_environment_file(text: str) -> dict[str, str]:
    """systemd.exec(5), EnvironmentFile=, as systemd 252 reads it (a state machine)."""
    found: dict[str, str] = {}
    rest = text
    while rest:
        if rest[0] in "#;":
            # Up to 253 a backslash takes the end of a comment's line away.
            matched = re.match(r"(\\[\s\S]|[^\\\n\r])*", rest)
            rest = rest[matched.end() if matched else 0 :].lstrip("\n\r")
            continue
        name, _, rest = rest.partition("=")
        value, rest = quoted(rest[1:]) if rest.startswith('"') else unquoted(rest)
        found[name.strip()] = value
        rest = rest.lstrip(" \t\n\r")
    return found


def quoted(rest: str) -> tuple[str, str]:
    value = ""
    while rest[0] != '"':
        if rest[0] == "\\" and rest[1] in '"\\`$':
            rest = rest[1:]
        value, rest = value + rest[0], rest[1:]
    return value, rest[1:]


def unquoted(rest: str) -> tuple[str, str]:
    line = re.split(r"[\n\r]", rest)[0]
    assert "\\" not in line
    return line.strip(" \t"), rest[len(line) :]


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(words))
def test_any_arguments_reach_the_engine_as_they_are(arguments: list[str]) -> None:
    unit = render(replace(VLLM, argv=("/usr/bin/engine", *arguments)))
    argv = exec_start(unit)
    assert argv[argv.index("--") + 1 :] == ["/usr/bin/engine", *arguments]


@given(st.lists(st.tuples(words, words), max_size=4))
def test_any_settings_reach_the_engine_as_they_are(pairs: list[tuple[str, str]]) -> None:
    settings = tuple(Setting(f"V{n}", value, why) for n, (value, why) in enumerate(pairs))
    unit = render(replace(VLLM, environment=settings))
    assert read_environment_file(environment_text(unit)) == {s.name: s.value for s in settings}


@pytest.mark.parametrize("word", ["#1", ";", "a\\", "$HOME", "100%", "", "a\rb", "'", "ü b"])
def test_words_with_a_meaning_to_systemd_lose_it(word: str) -> None:
    assert split_command_line(quoting.exec_word(word)) == [word]
    assert not quoting.exec_word(word).startswith(("#", ";"))


def test_a_reason_that_ends_in_a_backslash_does_not_swallow_the_setting() -> None:
    unit = render(replace(VLLM, environment=(Setting("A", "1", "see C:\\"),)))
    assert read_environment_file(environment_text(unit)) == {"A": "1"}


def test_each_setting_stands_under_its_reason() -> None:
    library = Setting("LD_LIBRARY_PATH", "/opt/x/lib", "the wheel carries\nno RPATH")
    lines = environment_text(render(extra=(library,))).splitlines()
    assert lines[0].startswith("# Rendered by multigpu from plans/tower.yaml")
    assert lines[1:] == [
        "# the planned cards, in this order",
        f"CUDA_VISIBLE_DEVICES={SETTING.value}",
        "# no P2P between the cards",
        "NCCL_P2P_DISABLE=1",
        "# the wheel carries no RPATH",
        "LD_LIBRARY_PATH=/opt/x/lib",
    ]


def test_a_flag_and_its_value_share_a_line() -> None:
    text = unit_text(render(LLAMA, plan(LAYER_SPLIT)))
    assert "  --tensor-split 33,32 \\\n" in text
    assert '  --model "/srv/two words.gguf" \\\n' in text


def test_the_supervisor_gets_the_health_url_and_the_time_to_start() -> None:
    argv = exec_start(render(wished=plan(start_s=900)))
    assert argv[:3] == ["/usr/bin/python3", "/opt/multigpu/host/multigpu-host.pyz", "supervise"]
    assert argv[3:7] == ["--health", "http://127.0.0.1:8000/health", "--start-s", "900"]
    assert argv[7] == "--exclusive"
    assert argv[argv.index("--") + 1 :] == list(VLLM.argv)


def test_the_supervisor_gets_what_moves_in_the_engine_and_the_cards_it_will_fill() -> None:
    progress = Progress("/metrics", ("running", "waiting"), ("tokens_total",))
    options = supervise_options.parser().parse_args(
        exec_start(render(replace(VLLM, progress=progress), plan(stall_s=400)))[3:]
    )
    assert supervise_options.names(options) == Names(
        "/metrics", ("running", "waiting"), ("tokens_total",)
    )
    assert (options.service, options.wish, options.runtime) == ("chat", "chat", "vllm")
    assert supervise_options.cards(options) == dict.fromkeys(UUIDS, 19700)
    assert supervise_options.times(options) == Times(stall_s=400)


def test_an_engine_that_publishes_nothing_gets_no_names_and_the_usual_clocks() -> None:
    options = supervise_options.parser().parse_args(exec_start(render())[3:])
    assert not supervise_options.names(options).known
    assert supervise_options.times(options) == Times()


def test_a_stop_takes_what_requests_get_and_twenty_seconds() -> None:
    assert "TimeoutStopSec=20" in logical_lines(unit_text(render()))
    two = render(wished=plan(endpoint=Endpoint()))
    argv = exec_start(two)
    assert f"TimeoutStopSec={int(argv[argv.index('--drain-s') + 1]) + 20}" in logical_lines(
        unit_text(two)
    )
    assert supervise_options.parser().parse_args(argv[3:]).kill_s == supervision.KILL_S


def test_a_fence_of_the_host_or_of_the_service_keeps_it_down() -> None:
    lines = logical_lines(unit_text(render()))
    assert "ConditionPathExists=!/var/lib/multigpu/fenced" in lines
    assert "ConditionPathExists=!/var/lib/multigpu/chat/fenced" in lines
    assert "OnFailure=multigpu-gave-up@%n.service" in lines


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("192.168.1.7", "http://192.168.1.7:8000"),
        ("fd00::7", "http://[fd00::7]:8000"),
    ],
)
def test_a_service_is_asked_where_it_listens(bind: str, url: str) -> None:
    unit = render(wished=plan(bind=bind))
    assert unit.url == url
    assert exec_start(unit)[4] == f"{url}/health"


def test_equal_inputs_give_an_equal_revision_which_the_unit_carries() -> None:
    unit = render()
    assert unit == render()
    assert f"Environment=MULTIGPU_REVISION={unit.revision}\n" in unit_text(unit)
    assert re.fullmatch("[0-9a-f]{16}", unit.revision)


@pytest.mark.parametrize(
    "other",
    [
        render(replace(VLLM, argv=(*VLLM.argv, "--enforce-eager"))),
        render(replace(VLLM, argv=(*VLLM.argv[:-1], "other"))),
        render(replace(VLLM, environment=(SETTING,))),
        render(extra=(Setting("A", "1", "why"),)),
        render(replace(VLLM, port=8001)),
        render(wished=plan(start_s=601)),
        render(host_program="/opt/multigpu/host/newer.pyz"),
        render(templates={**TEMPLATES, UNIT_TEMPLATE: TEMPLATES[UNIT_TEMPLATE] + "\n"}),
        render(templates={**TEMPLATES, ENVIRONMENT_TEMPLATE: "A=1\n"}),
    ],
)
def test_any_change_of_arguments_environment_or_template_changes_the_revision(
    other: RenderedUnit,
) -> None:
    assert other.revision != render().revision


def test_both_files_begin_with_the_mark_that_says_whose_they_are() -> None:
    assert all(file.content.startswith(MARK) for file in render(VLLM).files)


def test_a_template_that_names_an_unknown_value_fails() -> None:
    with pytest.raises(UndefinedError):
        render(templates={**TEMPLATES, UNIT_TEMPLATE: "{{ no_such_value }}"})


def test_the_environment_file_is_for_root_alone_as_it_may_hold_a_token() -> None:
    environment, unit = render().files
    assert (environment.path, environment.mode) == ("/etc/multigpu/chat.env", "0600")
    assert (unit.path, unit.mode) == ("/etc/systemd/system/multigpu-chat.service", "0644")


def test_the_engine_hears_one_sigterm_and_leaves_no_orphans() -> None:
    lines = logical_lines(unit_text(render()))
    assert "KillMode=mixed" in lines
    assert not any(line.startswith(("SendSIGKILL=", "KillSignal=")) for line in lines)


def test_a_simulated_plan_says_so_in_the_description() -> None:
    text = unit_text(render(wished=plan(simulated=True)))
    assert "Description=multigpu chat: vllm tensor_parallel on GPU 0,1 (simulated)\n" in text


def test_each_service_has_a_user_of_its_own_in_the_common_group() -> None:
    lines = logical_lines(unit_text(render()))
    assert {"User=multigpu-chat", "Group=multigpu"} <= set(lines)
    names = {units.account(name) for name in ("a" * 40, "a" * 41, "a")}
    assert len(names) == 3 and all(len(name) <= 31 for name in names)


def test_the_unit_names_the_credential_and_the_command_line_its_path_only() -> None:
    key = Credential("api_key", "/home/me/key", variable="VLLM_API_KEY")
    unit = render(replace(VLLM, credentials=(key,)))
    lines = logical_lines(unit_text(unit))
    assert "LoadCredential=api_key:/etc/multigpu/credentials/chat.api_key" in lines
    argv = exec_start(unit)
    assert argv[argv.index("--secret") + 1] == "VLLM_API_KEY=api_key"
    assert argv[argv.index("--bearer") + 1] == "api_key"
    assert unit.credentials == ("/etc/multigpu/credentials/chat.api_key",)
    assert not any("/home/me/key" in file.content for file in unit.files)


def test_ranks_meet_at_the_loopback_device_unless_the_operator_says_otherwise() -> None:
    lines = logical_lines(unit_text(render()))
    ours = next(n for n, line in enumerate(lines) if "NCCL_SOCKET_IFNAME=lo" in line)
    # systemd.exec(5): settings of EnvironmentFile= override those of Environment=.
    assert (
        lines[ours].startswith("Environment=") and "EnvironmentFile=/etc/multigpu/chat.env" in lines
    )
    assert "NCCL_SOCKET_IFNAME" not in unit_text(render(LLAMA, plan(LAYER_SPLIT)))
