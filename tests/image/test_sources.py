"""Where images come from: which rung serves, what is said, and what a failure sounds like."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from minicontainer.errors import ImageError, UsageError
from minicontainer.image import download, recipes
from minicontainer.image.config import ImageConfig, host_architecture
from minicontainer.image.download import fetch
from minicontainer.image.recipes import Download
from minicontainer.image.sources import find
from minicontainer.image.store import Store
from tests.image.evil import EVIL
from tests.image.tars import entry, tar, tgz

ROOT_FS = tgz(tar(entry("bin/sh", content=b"#!", mode=0o755)))
DIGITS = sha256(ROOT_FS).hexdigest()
MACHINE = os.uname().machine

TINY = Download(
    name="tiny", tags=("latest", "1"), config=ImageConfig(cmd=("/bin/tiny",)),
    server="http://127.0.0.1:9", mirror="TINY_MIRROR", directory="v1/{machine}",
    file="tiny-1-{machine}.tar.gz", sha256=((MACHINE, DIGITS), ("pdp11", DIGITS)),
)  # fmt: skip


class Server(ThreadingHTTPServer):
    """Serves what ``paths`` has: bytes, a status, or a function that does it itself."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: dict[str, object] = {}
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = urlsplit(self.path).path  # a proxy is asked for the whole address
        answer = self.server.paths.get(path, 404)
        if callable(answer):
            answer(self)
            return
        self.send_response(answer if isinstance(answer, int) else 200)
        body = answer if isinstance(answer, bytes) else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def tiny(monkeypatch, server: Server) -> Server:
    """A recipe called tiny, and a server that has it."""
    known = recipes.load
    monkeypatch.setattr(recipes, "load", lambda name: TINY if name == "tiny" else known(name))
    monkeypatch.setenv("TINY_MIRROR", server.url)
    monkeypatch.delenv("MINICONTAINER_IMAGES", raising=False)
    server.paths[f"/v1/{MACHINE}/tiny-1-{MACHINE}.tar.gz"] = ROOT_FS
    return server


# ---- the ladder


def test_the_recipe_serves_and_says_so(store: Store, tiny: Server):
    said: list[str] = []
    image = find(store, "tiny", say=said.append)
    url = f"{tiny.url}/v1/{MACHINE}/tiny-1-{MACHINE}.tar.gz"
    assert said == [f"tiny: fetching {url}", f"tiny: fetched from {url} (sha256 verified)"]
    assert (image.name, image.rung, image.config.cmd) == ("tiny:latest", "recipe", ("/bin/tiny",))
    assert image.config.architecture == host_architecture()
    assert Path(image.layers[0], "bin/sh").read_bytes() == b"#!"
    assert os.listdir(store.tmp) == []


def test_the_store_serves_first_and_in_silence(store: Store, tiny: Server):
    image = find(store, "tiny")
    assert find(store, "tiny", say=pytest.fail) == image.replace(rung="store")
    assert find(store, image.id, say=pytest.fail).id == image.id
    assert len(tiny.asked) == 1


def test_archive_folders_serve_before_the_network(
    store: Store, tiny: Server, tmp_path, monkeypatch
):
    path = tmp_path / f"tiny-1-{MACHINE}.tar.gz"
    path.write_bytes(ROOT_FS)
    monkeypatch.setenv("MINICONTAINER_IMAGES", f"/nonexistent:{tmp_path}")
    said: list[str] = []
    image = find(store, "tiny:1", say=said.append)
    assert said == [f"tiny: unpacked from the archive {path} (sha256 verified)"]
    assert (image.rung, image.config.cmd) == ("archive", ("/bin/tiny",))
    assert tiny.asked == []
    monkeypatch.delenv("MINICONTAINER_IMAGES")
    assert find(Store(store.root + "2"), "tiny:1").id == image.id, "whoever serves, it is the same"


def test_an_archive_that_is_not_the_pinned_one_is_refused(
    store: Store, tiny: Server, tmp_path, monkeypatch
):
    path = tmp_path / f"tiny-1-{MACHINE}.tar.gz"
    path.write_bytes(tgz(tar(entry("bin/sh", content=b"somebody else's"))))
    monkeypatch.setenv("MINICONTAINER_IMAGES", str(tmp_path))
    image = find(store, "tiny")
    assert (image.rung, len(tiny.asked)) == ("recipe", 1), "the next rung"
    tiny.paths.clear()
    with pytest.raises(ImageError) as refused:
        find(store, "tiny", pull="always")
    assert f"{path}: refused: it has sha256:" in refused.value.message
    assert f"the recipe wants sha256:{DIGITS}" in refused.value.message


@pytest.mark.parametrize(
    ("name", "file"),
    [("mine", "mine.tar"), ("mine", "mine.tar.gz"), ("mine:2", "mine-2.tar.gz"),
     ("alpine:9", "alpine-9.tgz")],
)  # fmt: skip
def test_any_archive_in_a_folder_is_an_image(store: Store, tmp_path, monkeypatch, name, file):
    (tmp_path / file).write_bytes(ROOT_FS)
    monkeypatch.setenv("MINICONTAINER_IMAGES", str(tmp_path))
    said: list[str] = []
    image = find(store, name, say=said.append)
    assert said == [
        f"{name.partition(':')[0]}: unpacked from the archive {tmp_path / file} "
        "(no recipe knows its sha256)"
    ]
    assert image.config.cmd == ("/bin/sh",)


def test_an_evil_archive_is_named(store: Store, tmp_path, monkeypatch):
    (tmp_path / "evil.tar").write_bytes(EVIL["dot-dot"].build(""))
    monkeypatch.setenv("MINICONTAINER_IMAGES", str(tmp_path))
    with pytest.raises(ImageError, match=r"evil\.tar: '\.\./outside/pwned' in the archive"):
        find(store, "evil")


def test_a_failure_tells_all_that_was_tried(store: Store, tiny: Server, monkeypatch):
    tiny.paths.clear()
    with pytest.raises(ImageError) as failed:
        find(store, "tiny")
    first, *tried = failed.value.message.splitlines()
    assert first == "cannot find the image 'tiny:latest'; tried:"
    assert tried[:2] == [
        f"  - the store {store.root} does not have it",
        "  - archive folders: MINICONTAINER_IMAGES names none",
    ]
    assert "the recipe rootfs/tiny.py" in tried[2] and "HTTP 404" in tried[2]
    assert "minicontainer run busybox sh" in failed.value.hint
    assert store.all() == []


def test_other_tags_and_machines_are_not_passed_off(store: Store, tiny: Server):
    with pytest.raises(ImageError, match="the recipe makes latest, 1, not 2"):
        find(store, "tiny:2")
    with pytest.raises(ImageError, match="no checksum is pinned for s390x, only for"):
        find(store, "tiny", platform="linux/s390x")
    find(store, "tiny")
    with pytest.raises(ImageError, match=f"has it for {host_architecture()}"):
        find(store, "tiny", platform="linux/s390x", pull="never")


def test_pull(store: Store, tiny: Server):
    with pytest.raises(ImageError, match="nothing else, for --pull never"):
        find(store, "tiny", pull="never")
    assert tiny.asked == []
    find(store, "tiny", pull="always")
    find(store, "tiny", pull="always")
    assert len(tiny.asked) == 2
    tiny.paths.clear()
    with pytest.raises(ImageError, match="the store: passed over"):
        find(store, "tiny", pull="always")
    with pytest.raises(UsageError):
        find(store, "tiny", pull="perhaps")
    with pytest.raises(UsageError):
        find(store, "../etc")


def test_an_unknown_image(store: Store, monkeypatch):
    monkeypatch.delenv("MINICONTAINER_IMAGES", raising=False)
    with pytest.raises(ImageError, match="there is none for it, only for alpine, busybox, debian"):
        find(store, "nobody/knows")


def test_what_a_killed_command_left_is_swept(store: Store, tiny: Server):
    store.make()
    os.mkdir(store.tmp + "/ruin")
    said: list[str] = []
    find(store, "tiny", say=said.append)
    assert said[0] == "removed what an interrupted command left in the store: tmp/ruin"


# ---- downloads


def get(url: str, digits: str = DIGITS, **options: int) -> bytes:
    into = io.BytesIO(b"what was there before")
    fetch(url, into, "sha256:" + digits, **options)
    return into.read()


def test_a_download(server: Server):
    server.paths["/x"] = ROOT_FS

    def redirect(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "/x")
        handler.end_headers()

    server.paths["/moved"] = redirect
    assert get(f"{server.url}/x") == ROOT_FS
    assert get(f"{server.url}/moved") == ROOT_FS


def test_a_download_that_was_changed_on_the_way(server: Server):
    server.paths["/x"] = ROOT_FS + b"!"
    with pytest.raises(ImageError, match="not what it should be, and was thrown away: expected"):
        get(f"{server.url}/x")


def test_an_unverified_download_would_be_taken(server: Server, monkeypatch):
    """The mutant: it is the comparison that refuses, and nothing else would."""
    server.paths["/x"] = ROOT_FS + b"!"
    changed = sha256(ROOT_FS + b"!").hexdigest()
    assert get(f"{server.url}/x", changed) == ROOT_FS + b"!"


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "no such file"), (403, "refuses"), (401, "login"), (418, "HTTP 418"), (503, "HTTP 503")],
)
def test_the_server_says_no(server: Server, status: int, words: str, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0)
    server.paths["/x"] = status
    with pytest.raises(ImageError, match=words):
        get(f"{server.url}/x")
    assert len(server.asked) == (3 if status == 503 else 1), "an overload may pass, a no does not"


def test_a_connection_that_breaks_is_tried_again(server: Server):
    breaks = [True, True]

    def half(handler: Handler) -> None:
        broken = bool(breaks and breaks.pop())
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(ROOT_FS)))
        handler.end_headers()
        handler.wfile.write(ROOT_FS[:50] if broken else ROOT_FS)

    server.paths["/x"] = half
    assert get(f"{server.url}/x") == ROOT_FS
    assert len(server.asked) == 3
    breaks.extend([True] * 3)
    with pytest.raises(ImageError, match="the connection broke 3 times"):
        get(f"{server.url}/x")


def test_a_download_without_end(server: Server):
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(bytes(1 << 16))
        except OSError:
            pass  # the client has hung up, as it should

    server.paths["/x"] = endless
    with pytest.raises(ImageError, match="more than 1000000 bytes"):
        get(f"{server.url}/x", max_bytes=1_000_000)


def test_nobody_there(server: Server):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and not listening
        port = unused.getsockname()[1]
        with pytest.raises(ImageError, match="no connection to the host: Connection refused"):
            get(f"http://127.0.0.1:{port}/x")
    with pytest.raises(ImageError, match="cannot be resolved: no network, or no DNS"):
        get("http://host.invalid/x")
    with pytest.raises(ImageError, match="not an address"):
        get("file:///etc/passwd")


def test_a_server_that_does_not_speak_tls():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            with listening.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 400 speak up\r\n\r\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(ImageError, match="the host cannot prove who it is"):
            get(f"https://127.0.0.1:{listening.getsockname()[1]}/x")


def test_a_server_that_falls_silent(monkeypatch):
    monkeypatch.setattr(download, "READ_SECONDS", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,  # and never accepts
        pytest.raises(ImageError, match="the connection broke 3 times"),
    ):
        get(f"http://127.0.0.1:{listening.getsockname()[1]}/x")


def test_proxies_of_the_environment(server: Server, monkeypatch):
    server.paths["/x"] = ROOT_FS
    monkeypatch.setenv("http_proxy", server.url)
    assert get("http://host.invalid/x") == ROOT_FS
    assert server.asked == ["http://host.invalid/x"]
    monkeypatch.setenv("no_proxy", "host.invalid")
    with pytest.raises(ImageError, match="cannot be resolved"):
        get("http://host.invalid/x")
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(ImageError, match="proxy"):
        get("http://host.invalid/x")


# ---- the recipes themselves


@pytest.mark.requires_root
def test_alpine_from_a_mirror(store: Store, server: Server, alpine_archive: Path, monkeypatch):
    """The real recipe, the real archive, a server on loopback."""
    monkeypatch.delenv("MINICONTAINER_IMAGES", raising=False)
    monkeypatch.setenv("MINICONTAINER_ALPINE_MIRROR", server.url + "/")
    server.paths[f"/v3.20/releases/x86_64/{alpine_archive.name}"] = alpine_archive.read_bytes()
    image = find(store, "alpine", platform="linux/amd64")
    assert Path(image.layers[0], "etc/alpine-release").read_text() == "3.20.3\n"
    assert (image.config.cmd, image.config.architecture) == (("/bin/sh",), "amd64")
    found = recipes.load("alpine")
    assert isinstance(found, Download)
    assert found.url("x86_64").endswith(
        "v3.20/releases/x86_64/alpine-minirootfs-3.20.3-x86_64.tar.gz"
    )


def test_alpine_is_pinned():
    found = recipes.load("alpine")
    assert isinstance(found, Download)
    assert found.server == "https://dl-cdn.alpinelinux.org/alpine"
    assert {machine for machine, _ in found.sha256} == {"x86_64", "aarch64"}
    with pytest.raises(ImageError, match="no checksum is pinned for pdp11"):
        found.digest("pdp11")


@pytest.mark.requires_root
def test_busybox_needs_no_network(store: Store, monkeypatch):
    monkeypatch.delenv("MINICONTAINER_IMAGES", raising=False)
    said: list[str] = []
    image = find(store, "busybox", say=said.append)
    assert said[-1].startswith("busybox: built by the recipe rootfs/busybox.py from this machine's")
    layer = Path(image.layers[0])
    assert os.readlink(layer / "bin/sh") == "busybox"
    assert (layer / "etc/passwd").read_text().startswith("root:x:0:0:")
    assert (layer / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert find(Store(store.root + "2"), "busybox").id == image.id, "the same, to the byte"


@pytest.mark.requires_root
def test_busybox_starts_in_a_root_of_its_own(store: Store, forked):
    layer = find(store, "busybox").layers[0]

    def inside() -> int:
        os.chroot(layer)
        os.chdir("/")
        return os.waitstatus_to_exitcode(os.system("/bin/sh -c 'ls / > /dev/null; exit 7' 2>&1"))

    assert forked(inside) == 7


def test_a_dynamic_busybox_is_refused(tmp_path: Path, monkeypatch):
    """What a naive copy would do: /bin/ls needs the host's loader and libc."""
    import shutil
    import sys

    program = shutil.copy(os.path.realpath(sys.executable), tmp_path / "busybox")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = recipes.load("busybox")
    assert found is not None
    with pytest.raises(ImageError, match="is dynamically linked") as refused:
        recipes.follow(found, io.BytesIO(), "latest", MACHINE, print)
    assert "apt install busybox-static" in refused.value.hint
    Path(program).write_text("#!/bin/sh\n")
    with pytest.raises(ImageError, match="not a 64-bit ELF"):
        recipes.follow(found, io.BytesIO(), "latest", MACHINE, print)
    os.unlink(program)
    with pytest.raises(ImageError, match="no busybox on this machine"):
        recipes.follow(found, io.BytesIO(), "latest", MACHINE, print)
    with pytest.raises(ImageError, match="does not run on pdp11"):
        recipes.follow(found, io.BytesIO(), "latest", "pdp11", print)


def test_debian_says_what_it_needs(tmp_path: Path, monkeypatch):
    found = recipes.load("debian")
    assert found is not None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="no mmdebstrap") as refused:
        recipes.follow(found, io.BytesIO(), "latest", MACHINE, print)
    assert refused.value.hint == "apt install mmdebstrap"
    (tmp_path / "mmdebstrap").write_text(
        "#!/bin/sh\necho 'I: hello' >&2\necho 'E: apt-get update failed' >&2\nexit 1\n"
    )
    (tmp_path / "mmdebstrap").chmod(0o755)
    with (
        (tmp_path / "out").open("w+b") as file,
        pytest.raises(ImageError, match="mmdebstrap failed: E: apt-get update failed"),
    ):
        recipes.follow(found, file, "bookworm", MACHINE, print)


def test_debian_s_tar_is_taken(tmp_path: Path, store: Store, monkeypatch):
    """A stand-in for mmdebstrap writes the tar that it would write."""
    monkeypatch.delenv("MINICONTAINER_IMAGES", raising=False)
    with tarfile.open(tmp_path / "made.tar", "w") as archive:
        archive.addfile(*[entry("etc/debian_version")[0]])
    script = f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n/bin/cat {tmp_path}/made.tar\n'
    (tmp_path / "mmdebstrap").write_text(script)
    (tmp_path / "mmdebstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("MINICONTAINER_DEBIAN_MIRROR", "http://mirror.example/debian")
    image = find(store, "debian:12")
    assert image.config.cmd == ("bash",)
    assert (tmp_path / "asked").read_text() == (
        "--variant=minbase --format=tar bookworm - http://mirror.example/debian\n"
    )


@pytest.mark.parametrize("name", ["alpine", "busybox", "debian"])
def test_each_recipe_can_be_read_and_run_by_hand(name: str):
    found = recipes.load(name)
    assert found is not None and found.name == name and "latest" in found.tags
    text = Path(recipes.directory(), f"{name}.py").read_text()
    assert "minicontainer import" in text.partition('"""')[2].partition('"""')[0]
