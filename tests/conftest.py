"""Fixtures for every test; what they hand out is in support.py.

cli             minicontainer of this checkout, with directories of its own, and nothing in them
alpine          the same with the real Alpine imported: ``alpine("run", "--rm", "alpine", ...)``
busybox         the same with the image made from this machine's static busybox
leaves_nothing  fails a test that leaves mounts, cgroups, processes, descriptors or files behind
forked          call a function in a child with its own mounts
propagation     runs a test twice: where ``/`` is private, and where it is shared
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer import libc
from tests import support
from tests.support import Cli, Host

pytest_plugins = ["pytester", "tests.skips", "tests.guest.plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


def pytest_configure() -> None:
    """Whoever started us in the background, or by nohup(1), had these ignored; a child inherits
    that through execve(2), and no Ctrl-C would ever reach a program under test."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sigaction = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
    default = libc.ffi.new("uint64_t[4]")
    for number in (32, 33):  # the C library's own: runc and crun let these through to the container
        libc.C.system_call(sigaction, number, libc.address(default), 0, 8, 0, 0)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("requires_root") and os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(autouse=True)
def same_process() -> Iterator[None]:
    """A test that calls the runtime in this process leaves it as it was: a signal that stays
    blocked or ignored would be inherited by every program of every later test."""
    before = support.inheritance()
    yield
    assert support.inheritance() == before


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command ``minicontainer``, running the code of this checkout."""
    return support.write_launcher(tmp_path_factory.mktemp("bin") / "minicontainer")


@pytest.fixture
def cli(launcher: Path, tmp_path: Path) -> Iterator[Cli]:
    """minicontainer with an empty data root and an empty run directory."""
    command = Cli(launcher, tmp_path / "data", tmp_path / "run")
    yield command
    command.close()


@pytest.fixture(scope="session")
def alpine_data(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds the real Alpine, from an archive folder or else the network."""
    return filled_root(launcher, tmp_path_factory.mktemp("alpine"), "alpine")


@pytest.fixture(scope="session")
def busybox_data(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds the busybox image: there on every machine that is installed."""
    return filled_root(launcher, tmp_path_factory.mktemp("busybox"), "busybox")


def filled_root(launcher: Path, place: Path, image: str) -> Path:
    """Let minicontainer itself bring an image into a fresh data root."""
    command = Cli(launcher, place / "data", place / "run")
    done = command("run", "--rm", image, "true", timeout=300)
    unavailable = done.status == 125 and "minicontainer run busybox" in done.err
    # A named archive folder that does not serve is a failure, not a reason to skip.
    if unavailable and not os.environ.get("MINICONTAINER_IMAGES"):
        pytest.skip(f"no {image} image: no archive folder was named, and no network is here")
    assert done.status == 0, done.err
    return command.root


@pytest.fixture
def alpine(launcher: Path, alpine_data: Path, tmp_path: Path) -> Iterator[Cli]:
    """minicontainer with ``alpine`` in its store; layers are shared between tests."""
    command = Cli(launcher, alpine_data, tmp_path / "run")
    yield command
    command.close()


@pytest.fixture
def busybox(launcher: Path, busybox_data: Path, tmp_path: Path) -> Iterator[Cli]:
    """minicontainer with ``busybox`` in its store; layers are shared between tests."""
    command = Cli(launcher, busybox_data, tmp_path / "run")
    yield command
    command.close()


@pytest.fixture
def leaves_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """The host before and after the test; a difference fails it."""
    places = [tmp_path]
    for name in ("alpine_data", "busybox_data"):
        if name in request.fixturenames:
            places.append(request.getfixturevalue(name))
    host = Host(*places)
    yield host
    assert host.leftovers() == []


@pytest.fixture
def forked() -> Callable[..., object]:
    """Call a function in a forked child with a mount namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return support.forked


@pytest.fixture(params=["private", "shared"])
def propagation(request: pytest.FixtureRequest) -> str:
    """How ``/`` propagates mounts: machines differ, so what mounts is tested with both."""
    return str(request.param)


@pytest.fixture
def base_python() -> list[str]:
    """The interpreter and flags that the launcher uses."""
    return [os.path.realpath(sys._base_executable), "-IS"]


def pytest_report_header() -> str:
    """What the machine is like, as far as results depend on it."""
    oracles = [name for name in ("runc", "crun", "podman") if shutil.which(name)]
    images = os.environ.get("MINICONTAINER_IMAGES") or "none"
    return f"kernel {os.uname().release}; oracles: {' '.join(oracles) or 'none'}; images: {images}"
