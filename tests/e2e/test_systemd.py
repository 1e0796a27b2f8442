"""Under the real systemd: in a unit with Delegate=yes the container's cgroup is the unit's.

systemd is started in a guest kernel, in a pid and a cgroup namespace, as it is in a container.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.mutants import fails

pytestmark = [pytest.mark.requires_root, pytest.mark.kernel("memory", "cpu", "pids")]

SYSTEMD = "/lib/systemd/systemd"
# Without default dependencies: nothing else of the machine is started, or tidied up.
UNITS = {
    "look.target": "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nWants=look.service\n",
    "look.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\nAfter=dbus.socket\n"
    "[Service]\nType=oneshot\nStandardOutput=null\nExecStart=/bin/sh {script}\n",
    "dbus.socket": "[Unit]\nDefaultDependencies=no\n"
    "[Socket]\nListenStream=/run/dbus/system_bus_socket\n",
    "dbus.service": "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n"
    "[Service]\nExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile "
    "--systemd-activation\n",
}
# The root of systemd's tree is a cgroup of its own, with the controllers handed down to it.
BOOT = """
mkdir -p /sys/fs/cgroup/machine
echo "+memory +cpu +pids" > /sys/fs/cgroup/cgroup.subtree_control
echo "+memory +cpu +pids" > /sys/fs/cgroup/machine/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/machine/own
exec timeout -s KILL 60 env -i container=other PATH="$PATH" \\
  unshare --pid --fork --mount --mount-proc sh -c '
    echo 0 > /sys/fs/cgroup/machine/own/cgroup.procs
    exec unshare --cgroup sh -c "
      umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
      exec {systemd} --system --unit=look.target --log-target=null --show-status=no"'
"""
RUN = "run --rm --network none --cgroupns host"
SHOW = "grep ^0:: /proc/self/cgroup"
LOOK = """
exec > {heard} 2>&1
run() {{ echo "-- $1"; shift; env {env} "$@"; }}
run plain {cli} {run} -m 64m busybox {show}
run scope systemd-run --quiet --scope {delegate} {cli} {run} -m 64m --cpus 0.5 busybox {show}
run service systemd-run --quiet {service} {delegate} {cli} {run} -m 64m busybox {show}
run session systemd-run --quiet --scope {cli} {run} -m 64m busybox {show}
echo "-- left"; find /sys/fs/cgroup -name '*minicontainer*'; echo "-- end"
systemctl poweroff --force --force
"""


def look(cli, tmp_path, delegate) -> dict[str, str]:
    """Boot it, run containers in several ways, and say in which cgroup each was."""
    for program in (SYSTEMD, "/usr/bin/systemd-run", "/usr/bin/dbus-daemon"):
        if not os.path.exists(program):
            pytest.skip("systemd and dbus are not installed")
    if "GUEST" not in os.environ:
        pytest.skip("a second systemd is only started in a guest kernel")
    heard, script = tmp_path / "heard", tmp_path / "look"
    names = [name for name in cli.env if name.startswith("MINICONTAINER_")]
    env = [f"{name}={cli.env[name]}" for name in names if cli.env[name]]
    of_service = ["--wait", "--pipe", "-p", "DefaultDependencies=no"]
    script.write_text(
        LOOK.format(
            heard=heard, run=RUN, show=SHOW, delegate=delegate, cli=cli.launcher,
            env=shlex.join(env),
            service=shlex.join([*of_service, *(f"--setenv={word}" for word in env)]),
        )
    )  # fmt: skip
    units = Path("/run/systemd/system")
    units.mkdir(parents=True, exist_ok=True)
    for name, text in UNITS.items():
        (units / name).write_text(text.format(script=script))
    try:
        subprocess.run(["sh", "-c", BOOT.format(systemd=SYSTEMD)], stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=120)  # fmt: skip
    finally:
        shutil.rmtree("/run/systemd", ignore_errors=True)
        for place in ("machine/own", "machine"):
            subprocess.run(["find", f"/sys/fs/cgroup/{place}", "-depth", "-type", "d", "-exec",
                            "rmdir", "{}", ";"], capture_output=True)  # fmt: skip
    text = heard.read_text()
    assert "-- end" in text, text
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in text.split("-- ")[1:]}


def check(cli, tmp_path, delegate="-p Delegate=yes"):
    where = look(cli, tmp_path, delegate)
    assert where["plain"].startswith("0::/minicontainer/"), where
    assert where["scope"].startswith("0::/system.slice/run-"), where
    assert ".scope/minicontainer/" in where["scope"]
    assert where["service"].startswith("0::/system.slice/run-"), where
    assert ".service/minicontainer/" in where["service"]
    assert where["session"].startswith("0::/minicontainer/"), where
    assert where["left"] == ""


def test_in_a_delegated_unit_the_cgroup_is_the_units(busybox, tmp_path):
    check(busybox, tmp_path)


def test_the_check_can_fail(busybox, tmp_path):
    fails(check, busybox, tmp_path, "")
