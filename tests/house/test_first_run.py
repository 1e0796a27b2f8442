"""tools/first-run, the end of `make run`, tried with a stand-in for minicontainer."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import CHECKOUT

pytestmark = pytest.mark.requires_root

# Runs "in the container" right here; says first what it was asked.
STAND_IN = """#!/bin/sh
echo "asked: $*" >> '{log}'
case "$*" in
*alpine*) {alpine} ;;
esac
while [ "$1" != alpine ] && [ "$1" != busybox ]; do shift; done
shift
[ "$1" = true ] || {container}
"""

NO_ALPINE = "echo 'cannot find alpine; hint: minicontainer run busybox sh' >&2; exit 125"


@pytest.fixture
def first_run(tmp_path):
    """Run it; its status, its words, and what minicontainer was asked."""

    def run(alpine: str = ":", container: str = 'exec "$@"') -> tuple[int, str, list[str]]:
        log = tmp_path / "log"
        log.write_text("")
        stand_in = tmp_path / "minicontainer"
        stand_in.write_text(STAND_IN.format(log=log, alpine=alpine, container=container))
        stand_in.chmod(0o755)
        done = subprocess.run(
            [CHECKOUT / "tools/first-run", stand_in],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout, log.read_text().splitlines()

    return run


def test_without_a_terminal_it_is_a_proof(first_run):
    status, words, asked = first_run()
    assert status == 0, words
    assert "the same: one kernel" in words
    assert "uid=0(root)" in words
    assert all("alpine" in line for line in asked)


def test_another_kernel_would_be_noticed(first_run):
    status, words, _ = first_run(container="echo 0-0-0")
    assert status == 1
    assert "is not this machine's" in words


def test_without_alpine_it_is_busybox_and_says_so(first_run):
    status, words, asked = first_run(alpine=NO_ALPINE)
    assert status == 0, words
    assert "this is busybox instead" in words
    assert "cannot find alpine" in words
    assert "busybox sh -c" in asked[-1]


def test_any_other_failure_is_not_hidden_behind_busybox(first_run):
    status, words, asked = first_run(alpine="echo 'mount failed: EPERM' >&2; exit 125")
    assert status == 125
    assert "mount failed" in words
    assert not any("busybox" in line for line in asked)


def test_a_failing_container_is_no_proof(first_run):
    status, words, _ = first_run(container="exit 125")
    assert status == 125
    assert "the same" not in words


def test_at_a_terminal_it_is_a_shell(tmp_path, launcher):
    """Through a real terminal, down to the prompt of busybox's shell."""
    import pexpect

    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MINICONTAINER_IMAGES": "",
           "MINICONTAINER_ALPINE_MIRROR": "http://127.0.0.1:1",  # nobody listens
           "MINICONTAINER_ROOT": f"{tmp_path}/data", "MINICONTAINER_RUN": f"{tmp_path}/run",
           "MINICONTAINER_CACHE": f"{tmp_path}/cache", "TERM": "dumb"}  # fmt: skip
    command = str(CHECKOUT / "tools/first-run")
    child = pexpect.spawn(command, [str(launcher)], env=env, timeout=60, encoding="utf-8")
    child.expect("this is busybox instead")
    child.expect("# ")
    child.sendline("echo pid $$; exit 3")
    child.expect(r"pid 1\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0  # the shell's own status is no failure of `make run`
