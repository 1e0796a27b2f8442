"""tools/install and the launcher that it writes, tried with a stand-in for the package."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import load_tool

install = load_tool("install")

PYTHON = os.path.realpath(sys._base_executable)

MAIN = """
import sys
def entry():
    print("words:", *sys.argv[1:])
    print("flags:", sys.flags.isolated, sys.flags.no_site)
    print("errors", file=sys.stderr)
    sys.exit(7)
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a directory with a space and quotes in its name."""
    folder = tmp_path / 'my "own" che\'ckout'
    (folder / "minicontainer/cli").mkdir(parents=True)
    (folder / "minicontainer/cli/main.py").write_text(MAIN)
    return folder


def launch(tmp_path, interpreter, checkout, *args, **more):
    """Write the launcher, run it."""
    file = tmp_path / "minicontainer"
    file.write_text(install.launcher(str(interpreter), str(checkout), str(tmp_path / "packages")))
    file.chmod(0o755)
    return subprocess.run([file, *args], capture_output=True, text=True, **more)


def test_the_launcher_hands_on_words_output_and_status(tmp_path, checkout):
    done = launch(tmp_path, PYTHON, checkout, "run", "two words", "")
    assert done.stdout == "words: run two words \nflags: 1 1\n"
    assert (done.returncode, done.stderr) == (7, "errors\n")


@pytest.mark.parametrize("folder", ["with space", "x" * 130], ids=["space", "long"])
def test_an_interpreter_that_a_shebang_cannot_name(tmp_path, checkout, folder):
    (tmp_path / folder).mkdir()
    python = tmp_path / folder / "python3"
    python.symlink_to(PYTHON)
    done = launch(tmp_path, python, checkout, "run", "two words")
    assert done.stdout == "words: run two words\nflags: 1 1\n"
    assert done.returncode == 7


def test_the_shebang_is_plain_where_it_can_be():
    """Mutant of the test above: sh in between costs a millisecond, so not without need."""
    assert install.launcher(PYTHON, "/c", "/p").startswith(f"#!{PYTHON} -IS\n")


def test_the_users_environment_does_not_reach_root(tmp_path, checkout):
    (tmp_path / "argparse.py").write_text("raise SystemExit('taken over')")
    (tmp_path / "minicontainer.py").write_text("raise SystemExit('taken over')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": str(tmp_path / "x")}
    assert launch(tmp_path, PYTHON, checkout, env=env, cwd=tmp_path).returncode == 7


def test_a_checkout_that_moved_is_named(tmp_path, checkout):
    checkout.rename(tmp_path / "elsewhere")
    done = launch(tmp_path, PYTHON, checkout, "run")
    assert done.returncode == 1
    assert "make install" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("redirect", "status", "complaint"),
    [
        (">/dev/full", "125", "No space left on device"),
        ("| true", "141", ""),
        (">&-", "0", ""),
        (">/dev/null", "0", ""),
    ],
)
def test_output_that_cannot_be_written_is_no_success(launcher, redirect, status, complaint):
    """The real command ends by ``os._exit``, and Python's own end would have complained."""
    # the sleep lets `true` be gone before there is anything to write to it
    command = f"{{ sleep 0.2; '{launcher}' version; echo $? >&2; }} {redirect}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    *before, last = done.stderr.splitlines()
    assert last == status, done.stderr
    assert complaint in "".join(before)
    assert bool(before) == bool(complaint)


def test_an_old_python_is_refused_by_its_name(tmp_path, monkeypatch):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3 10\n")
    old.chmod(0o755)
    monkeypatch.setenv("PYTHON", str(old))
    with pytest.raises(install.Refused, match=r"3\.11 or newer .*python3 is 3\.10"):
        install.choose_python()


def test_a_virtual_environment_is_seen_through():
    assert install.real_python(sys.executable) == PYTHON


def test_static_and_dynamic_programs_are_told_apart(tmp_path):
    (tmp_path / "text").write_text("#!/bin/sh\n")
    assert not install.is_static(str(tmp_path / "text"))
    assert not install.is_static(PYTHON)
    assert not install.is_static(str(tmp_path / "nothing"))
    source = tmp_path / "still.c"
    source.write_text("void _start(void) { for (;;); }\n")
    still = tmp_path / "still"
    subprocess.run(["gcc", "-static", "-nostdlib", "-o", still, source], check=True)
    assert install.is_static(str(still))


@pytest.fixture
def bare_machine(monkeypatch):
    """A machine without libcap's headers; its package tools are chosen by the test."""
    need = install.system_needs()[3]
    assert need.apt == "libcap-dev"
    monkeypatch.setattr(install, "system_needs", lambda: [need._replace(present=False)])


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("dnf", "dnf install libcap-devel"),
        ("pacman", "pacman -S --needed libcap"),
        ("apk", "apk add libcap-dev"),
        ("zypper", "zypper install libcap-devel"),
        ("none", "Debian calls them: libcap-dev"),
    ],
)
def test_other_distributions_are_told_what_to_type(bare_machine, monkeypatch, tool, words):
    monkeypatch.setattr(install.shutil, "which", lambda name: name if name == tool else None)
    with pytest.raises(install.Refused, match=words):
        install.install_packages()


def test_apt_is_asked_for_what_is_missing_and_its_success_is_checked(bare_machine, monkeypatch):
    asked = []
    monkeypatch.setattr(install.shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(install, "apt_install", lambda *names: asked.append(names) or True)
    with pytest.raises(install.Refused, match="still missing: libcap's headers"):
        install.install_packages()
    assert asked == [("libcap-dev",)]


def test_a_complete_machine_asks_for_nothing(monkeypatch):
    monkeypatch.setattr(install, "apt_install", lambda *names: pytest.fail(f"asked for {names}"))
    install.install_packages()


@pytest.fixture
def no_guest_kernel(tmp_path, monkeypatch):
    """A checkout without one, on a machine with QEMU."""
    target = tmp_path / "guest-kernel"
    monkeypatch.setattr(install, "GUEST_KERNEL", target)
    monkeypatch.setattr(install.shutil, "which", lambda name: f"/usr/bin/{name}")
    return target


def test_a_distribution_without_the_guest_kernel_is_told(no_guest_kernel, monkeypatch, capsys):
    nothing = subprocess.CompletedProcess([], 100, "", "E: No packages found")
    monkeypatch.setattr(install.subprocess, "run", lambda *_, **__: nothing)
    install.unpack_guest_kernel()
    assert "no linux-image-cloud-amd64 is to be had here" in capsys.readouterr().out
    assert not no_guest_kernel.exists()


def test_a_guest_kernel_that_cannot_be_fetched_is_an_error(no_guest_kernel, monkeypatch):
    def run(words, **_):
        if words[0] == "apt-cache":
            return subprocess.CompletedProcess(words, 0, "x\n  Depends: linux-image-6.1-cloud\n")
        assert words[-1] == "linux-image-6.1-cloud"
        return subprocess.CompletedProcess(words, 100, stderr=b"E: no network")

    monkeypatch.setattr(install.subprocess, "run", run)
    with pytest.raises(install.Refused, match=r"linux-image-6\.1-cloud failed: E: no network"):
        install.unpack_guest_kernel()
    assert not no_guest_kernel.exists()


def test_a_guest_kernel_that_is_there_is_not_fetched(no_guest_kernel, monkeypatch):
    no_guest_kernel.mkdir()
    monkeypatch.setattr(install.subprocess, "run", lambda *words, **_: pytest.fail(str(words)))
    install.unpack_guest_kernel()


def test_another_programs_file_is_left_alone(tmp_path):
    (tmp_path / "bin").mkdir()
    other = tmp_path / "bin/minicontainer"
    other.write_text("#!/bin/sh\n")
    with pytest.raises(install.Refused, match="not minicontainer's"):
        install.install_launcher(tmp_path)
    with pytest.raises(install.Refused, match="not minicontainer's"):
        install.uninstall(tmp_path)
    assert other.read_text() == "#!/bin/sh\n"


def test_the_launcher_comes_and_goes(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    target = tmp_path / "bin/minicontainer"
    install.install_launcher(tmp_path)
    written = target.stat()
    install.install_launcher(tmp_path)
    assert (target.stat().st_ino, target.stat().st_mode & 0o777) == (written.st_ino, 0o755)
    install.uninstall(tmp_path)
    assert not target.exists()
