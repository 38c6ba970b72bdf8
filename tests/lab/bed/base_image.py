"""The guest's Debian: systemd, sshd, Python and little else, packed as a tar in the cache."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from .cache import cached, key
from .settings import USER, Settings
from .shell import run, run_visibly

PACKAGES = (
    "ca-certificates", "curl", "dbus", "iproute2", "openssh-server", "pciutils", "procps",
    "python3", "python3-venv", "sudo", "systemd", "systemd-sysv",
)  # fmt: skip
MASKED = (
    "apt-daily-upgrade.timer", "apt-daily.timer", "console-getty.service",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer", "getty@tty1.service",
    "systemd-firstboot.service", "systemd-journal-flush.service",
)  # fmt: skip
# What operations install on a host: it lies in the guest as a repository of its own, because hosts
# have no uplink. The name of a file that apt keeps has its colon as %3a.
OFFERED = ("haproxy",)
REPOSITORY = "/usr/share/lab-packages"
OFFER = f"""\
cd "$1" && mkdir -p .{REPOSITORY} && chroot . apt-get -q -y --no-install-recommends \
  -o Dir::Cache::archives={REPOSITORY} install --download-only {" ".join(OFFERED)} &&
rm -rf .{REPOSITORY}/partial .{REPOSITORY}/lock && for file in .{REPOSITORY}/*.deb; do
  dpkg-deb --field "$file"
  echo "Filename: ./$(basename "$file")"
  echo "Size: $(stat -c %s "$file")"
  echo "SHA256: $(sha256sum < "$file" | cut -d" " -f1)"
  echo
done > .{REPOSITORY}/Packages &&
echo "deb [trusted=yes] file:{REPOSITORY} ./" > ./etc/apt/sources.list.d/lab.list"""
# Each line runs in a shell with the new root as $1.
HOOKS = (
    OFFER,
    f'chroot "$1" useradd --create-home --shell /bin/bash {USER}',
    f'install -d -o 1000 -g 1000 -m 700 "$1/home/{USER}/.ssh"',
    f'echo "{USER} ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/{USER}"',
    f'chmod 440 "$1/etc/sudoers.d/{USER}"',
    'echo "UseDNS no" > "$1/etc/ssh/sshd_config.d/lab.conf"',
    f'for unit in {" ".join(MASKED)}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done',
    'rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf"',
    'truncate -s 0 "$1/etc/machine-id"',
)
OPTIONS = (
    "--mode=root",
    "--variant=minbase",
    f"--include={','.join(PACKAGES)}",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-include=/usr/share/locale/locale.alias",
    "--dpkgopt=force-unsafe-io",
    *(f"--customize-hook={hook}" for hook in HOOKS),
)


def suite() -> str:
    """`$MULTIGPU_LAB_SUITE`, else bookworm, unless programs built here would not run in it.

    What is compiled on this machine runs in the guest, so the guest's C library must not be older.
    """
    chosen = os.environ.get("MULTIGPU_LAB_SUITE")
    version = platform.libc_ver()[1].split(".")
    here = tuple(int(part) for part in version[:2]) if version[0] else (0, 0)
    return chosen or ("bookworm" if here <= (2, 36) else "trixie")


def sources(name: str) -> list[str]:
    """This machine's own package sources when it runs that suite; else mmdebstrap's default."""
    release = platform.freedesktop_os_release()
    if (release.get("ID"), release.get("VERSION_CODENAME")) != ("debian", name):
        return []
    files = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
    return [str(path) for path in files if path.exists() and path.stat().st_size][:1]


def recipe_key() -> str:
    return key(suite(), platform.machine(), *OPTIONS)


def packed(settings: Settings) -> Path:
    """The packed image, built when the cache has none of this recipe: small, to be kept by CI."""
    return cached(settings.cache / f"guest-{suite()}-{recipe_key()}.tar.zst", build)


def image(settings: Settings) -> Path:
    """The image as a directory, which all hosts of all labs share and none writes to."""
    return cached(settings.cache / "unpacked" / recipe_key(), lambda p: unpack(packed(settings), p))


def build(partial: Path) -> None:
    # mmdebstrap chooses the format by the suffix, and the cache's partial name keeps it.
    run_visibly(
        f"guest image ({suite()})",
        "mmdebstrap", *OPTIONS, suite(), partial, *sources(suite()),
        step=r"^I: .*",
    )  # fmt: skip


def unpack(archive: Path, target: Path) -> None:
    target.mkdir(parents=True)
    run("tar", "-C", target, "-I", "zstd", "-xpf", archive, "--numeric-owner")
