"""Ways in which a text reaches us broken: cut, garbled bytes, lines lost, doubled or mixed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

LONGEST = 12_000
"""Longer texts are first cut to a window, so that many can be tried."""

WORDS = (
    *("N/A", "[N/A]", "ERR!", "[Unknown Error]", "GPU is lost", "", " ", "\t", "\t\t", "\0", "-1"),
    *("9" * 30, "1e999", "nan", "0x" + "f" * 40, "18446744073709551616", "\ud800", "\u2028", "½"),
    *("٣", "{", "}", "[", "]", "<", ">", "</gpu>", "<gpu id=", '"', "\\", ":", "|", "=", "%s"),
    *("\x1b[4m", "\x1b[0m", "\x1b[", "None", "null", "true", "0000:00:00.0", "ffff:ff:1f.7", "MiB"),
)


def mutated(text: str, other: str, random: Random) -> str:
    """One broken version of a text; `other` is some other text to mix it with."""
    text = window(text, random)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        text = random.choice(MUTATIONS)(text, other, random)
    return text[: 2 * LONGEST]


def window(text: str, random: Random) -> str:
    """The beginning, which says what the text is, or any other part of it."""
    if len(text) <= LONGEST:
        return text
    start = random.choice((0, 0, random.randrange(len(text) - LONGEST)))
    return text[start : start + LONGEST]


def spot(text: str, random: Random) -> int:
    return random.randrange(len(text) + 1)


def cut(text: str, other: str, random: Random) -> str:
    return text[: spot(text, random)]


def beheaded(text: str, other: str, random: Random) -> str:
    return text[spot(text, random) :]


def flipped(text: str, other: str, random: Random) -> str:
    """Bytes changed, then read as the controller reads them."""
    data = bytearray(text.encode("utf-8", "replace"))
    for _ in range(random.choice((1, 3, 20))):
        if data:
            data[random.randrange(len(data))] = random.randrange(256)
    return data.decode("utf-8", "backslashreplace")


def hole(text: str, other: str, random: Random) -> str:
    start = spot(text, random)
    return text[:start] + text[start + random.randrange(1, 200) :]


def word(text: str, other: str, random: Random) -> str:
    start = spot(text, random)
    return text[:start] + random.choice(WORDS) + text[start + random.randrange(8) :]


def number(text: str, other: str, random: Random) -> str:
    """A digit somewhere becomes something else that numbers are made of."""
    places = [i for i, c in enumerate(text) if c.isdecimal()]
    if not places:
        return text
    place = random.choice(places)
    return (
        text[:place]
        + random.choice(("", "-", ".", "e9", "99999999999999", "x", ",", "∞"))
        + text[place + 1 :]
    )


def by_lines(change: Callable[[list[str], Random], list[str]]) -> Callable[[str, str, Random], str]:
    def mutation(text: str, other: str, random: Random) -> str:
        return "\n".join(change(text.split("\n"), random))

    return mutation


def doubled(lines: list[str], random: Random) -> list[str]:
    place = random.randrange(len(lines))
    return [*lines[:place], *lines[place : place + 5] * random.choice((2, 3)), *lines[place + 5 :]]


def shuffled(lines: list[str], random: Random) -> list[str]:
    place = random.randrange(len(lines))
    part = lines[place : place + 12]
    random.shuffle(part)
    return [*lines[:place], *part, *lines[place + 12 :]]


def dropped(lines: list[str], random: Random) -> list[str]:
    return [line for line in lines if random.random() > 0.1]


def padded(lines: list[str], random: Random) -> list[str]:
    lead = random.choice(("> ", "  ", "\t", "May 15 08:57:36 host x: ", "$ "))
    return [lead + line for line in lines]


def retabbed(text: str, other: str, random: Random) -> str:
    return text.replace("\t", random.choice((" ", "  ", "\t\t"))).replace(
        "  ", random.choice(("\t", " "))
    )


def spliced(text: str, other: str, random: Random) -> str:
    return text[: spot(text, random)] + window(other, random)[spot(other, random) % LONGEST :]


def interleaved(text: str, other: str, random: Random) -> str:
    """A line of another program in the middle, as in a shared log."""
    lines, strangers = text.split("\n"), window(other, random).split("\n")
    for _ in range(3):
        lines.insert(random.randrange(len(lines) + 1), random.choice(strangers))
    return "\n".join(lines)


def line_ends(text: str, other: str, random: Random) -> str:
    return text.replace("\n", random.choice(("\r\n", "\r", " ", "\x0c", "\x85")))


MUTATIONS: tuple[Callable[[str, str, Random], str], ...] = (
    *(cut, cut, beheaded, flipped, flipped, hole, word, word, number, number, retabbed),
    *(spliced, interleaved, line_ends),
    *map(by_lines, (doubled, shuffled, dropped, padded)),
)
