"""The store: shared layers, names, removal, and kill -9 at any moment."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from minicontainer.errors import ImageError, UsageError
from minicontainer.image import change, removal
from minicontainer.image.change import Change, add
from minicontainer.image.config import Image, ImageConfig
from minicontainer.image.removal import remove, sweep
from minicontainer.image.store import Store
from tests.image.evil import EVIL
from tests.image.tars import DIR, entry, tar, tgz

SMALL = tar(entry("bin", DIR), entry("bin/sh", content=b"#!", mode=0o755))
OTHER = tar(entry("bin", DIR), entry("bin/sh", content=b"other", mode=0o755))
CONFIG = ImageConfig(cmd=("sh",), env=("A=1",), architecture="amd64")


def put(store: Store, name: str, data: bytes = SMALL, config: ImageConfig = CONFIG) -> Image:
    return add(store, name, io.BytesIO(data), config)


def contents(store: Store) -> dict[str, list[str]]:
    """The whole store, by its directories."""
    return {
        name: sorted(os.listdir(path))
        for name in ("refs", "images", "layers", "tmp")
        for path in [getattr(store, name)]
    }


def test_what_goes_in_comes_out(store: Store):
    image = put(store, "alpine")
    assert store.get("alpine") == store.get("alpine:latest") == image
    assert store.get("docker.io/library/alpine") == image
    assert (image.name, image.size, image.config.cmd) == ("alpine:latest", 2, ("sh",))
    assert image.config.created == "2001-09-09T01:46:40Z"
    assert [Path(layer, "bin/sh").read_bytes() for layer in image.layers] == [b"#!"]
    assert store.get("alpine:3") is None
    assert store.get("nothing") is None


def test_an_empty_place_is_an_empty_store(tmp_path: Path):
    store = Store(str(tmp_path / "none"))
    assert store.get("alpine") is None
    assert store.all() == []
    sweep(store, pytest.fail)
    assert not (tmp_path / "none").exists()


def test_where_the_store_is(monkeypatch):
    monkeypatch.delenv("MINICONTAINER_ROOT", raising=False)
    assert Store().root == "/var/lib/minicontainer"
    monkeypatch.setenv("MINICONTAINER_ROOT", "/elsewhere")
    assert Store().root == "/elsewhere"


def test_the_id_is_the_digest_of_the_configuration(store: Store):
    from hashlib import sha256

    image = put(store, "a")
    assert image.id == "sha256:" + sha256(store.config_json(image)).hexdigest()
    assert [f"sha256:{Path(layer).name}" for layer in image.layers] == [
        "sha256:" + sha256(SMALL).hexdigest()
    ]


def test_the_same_archive_is_the_same_image(store: Store, tmp_path: Path):
    """On every machine and every day; how it was compressed does not matter."""
    assert put(store, "a").id == put(Store(str(tmp_path / "x")), "a", tgz(SMALL)).id


def test_equal_layers_are_stored_once(store: Store):
    one, two = put(store, "one"), put(store, "two", config=CONFIG.replace(cmd=("ash",)))
    assert one.id != two.id
    assert one.layers == two.layers
    assert len(contents(store)["layers"]) == 1
    assert put(store, "three").layers == one.layers
    assert remove(store, "one") == ["Untagged: one:latest"], "three is the same image"
    assert remove(store, "three") == ["Untagged: three:latest", f"Deleted: {one.id}"]
    assert os.path.isdir(two.layers[0])
    assert remove(store, "two")[-1] == f"Deleted: sha256:{Path(two.layers[0]).name}"
    assert contents(store) == {"refs": [], "images": [], "layers": [], "tmp": []}


def test_only_root_looks_into_images(store: Store):
    """CVE-2021-41091: a set-user-id program of an image is not for the users of the host."""
    old = os.umask(0)
    try:
        put(store, "a")
    finally:
        os.umask(old)
    for path in ("refs", "images", "layers", "tmp"):
        mode = stat.S_IMODE(os.stat(f"{store.root}/{path}").st_mode)
        assert mode == 0o700, path
    assert stat.S_IMODE(os.stat(store.root).st_mode) == 0o711
    assert stat.S_IMODE(os.stat(store.lock_path()).st_mode) == 0o600


def test_a_name_that_moves_on_leaves_its_image(store: Store):
    """Containers may be running from it."""
    first = put(store, "a")
    second = put(store, "a", OTHER)
    assert store.get("a") == second
    assert store.get(first.id) == first.replace(name="")
    assert sorted(image.name for image in store.all()) == ["", "a:latest"]
    put(store, "b")
    assert [image.name for image in store.all() if image.id == first.id] == ["b:latest"]
    remove(store, "b")
    remove(store, "a")
    assert contents(store)["images"] == []


def test_an_image_without_a_name(store: Store):
    image = put(store, "")
    assert image.name == ""
    assert store.get(image.id) == store.get(image.id[7:]) == store.get(image.id[7:19]) == image
    assert put(store, "").id == image.id
    assert remove(store, image.id[7:19])[0] == f"Deleted: {image.id}"


def test_ids_may_be_shortened_but_not_ambiguous(store: Store):
    found = [put(store, "", config=ImageConfig(user=str(user))) for user in range(40)]
    short = [image.id[7:11] for image in found]
    assert store.get(found[0].id[7:20]) == found[0]
    assert store.get(found[0].id[7:10]) is None, "three digits are too few"
    os.mkdir(f"{store.images}/{short[0]}{'0' * 60}")
    with pytest.raises(ImageError, match="begins the ids of 2"):
        store.get(short[0])


def test_removal_says_no(store: Store):
    with pytest.raises(ImageError, match="no such image"):
        remove(store, "alpine")
    with pytest.raises(UsageError):
        remove(store, "../../etc")
    image = put(store, "one")
    put(store, "two")
    with pytest.raises(ImageError, match="several names: one:latest, two:latest"):
        remove(store, image.id)
    assert remove(store, image.id, force=True)[:2] == [
        "Untagged: one:latest", "Untagged: two:latest",
    ]  # fmt: skip


def test_an_image_in_use_stays(store: Store):
    image = put(store, "used")
    shares = put(store, "shares", config=ImageConfig(user="1"))
    in_use = set(image.layers)
    assert remove(store, "shares", in_use)[-1] == f"Deleted: {shares.id}", "its layer stays"
    put(store, "again")
    assert remove(store, "again", in_use) == ["Untagged: again:latest"]
    before = contents(store)
    with pytest.raises(ImageError, match="used is in use"):
        remove(store, "used", in_use)
    assert contents(store) == before
    assert remove(store, "used", {"/some/other/layer"})[-1].startswith("Deleted")


def test_a_refused_archive_leaves_nothing(store: Store):
    put(store, "good")
    before = contents(store)
    for data in (EVIL["dot-dot"].build(""), EVIL["cut between files"].build(""), b"no tar"):
        with pytest.raises(ImageError):
            put(store, "bad", data)
    with pytest.raises(UsageError):
        put(store, "Bad")
    with pytest.raises(UsageError, match="a digest is found out"):
        put(store, "a@sha256:" + "0" * 64)
    with pytest.raises(ImageError, match="not NAME=VALUE"):
        put(store, "bad", config=ImageConfig(env=("x",)))
    with pytest.raises(ImageError, match="docker save"):
        put(store, "bad", tar(entry("manifest.json"), entry("oci-layout")))
    with pytest.raises(ImageError, match="changed while"):
        add(store, "bad", io.BytesIO(SMALL), CONFIG, digest="sha256:" + "0" * 64)
    assert contents(store) == before


def test_a_missing_ready_is_made_up_for(store: Store):
    image = put(store, "a")
    path = f"{store.images}/{image.id[7:]}/ready"
    for text in ("", "minicontainer-ready=0\0"):
        Path(path).write_text(text)
        assert store.get("a") == image.replace(size=0)


def test_a_damaged_store_is_told_and_cured(store: Store):
    import shutil

    image = put(store, "a")
    shutil.rmtree(f"{store.images}/{image.id[7:]}")
    with pytest.raises(ImageError, match="damaged"):
        store.get("a")
    assert store.all() == []
    assert put(store, "a") == image
    assert store.get("a") == image


# ---- interruptions


def run_and_die(action, at: int) -> bool:
    """Run ``action`` in a child that kills itself at its ``at``-th change of the disk.

    True if it died; false if it had fewer changes to make, and finished."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def deadly(call):
            def instead(*args, **kwargs):
                nonlocal count
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return instead

        for name in ("mkdir", "rename", "unlink", "rmdir", "fsync", "link", "symlink", "fchmod"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return os.WIFSIGNALED(status)


ACTIONS = {
    "import": lambda store: put(store, "new", OTHER),
    "import what is there": lambda store: put(store, "new", SMALL),
    "replace": lambda store: put(store, "old", OTHER),
    "remove": lambda store: remove(store, "old"),
    "remove one of two": lambda store: remove(store, "twin"),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_any_moment(tmp_path: Path, name: str):
    """After a kill at each change: old images are whole, or gone; a sweep leaves no rubbish."""
    at, died = 0, True
    while died:
        at += 1
        store = Store(str(tmp_path / str(at)))
        put(store, "old")
        put(store, "twin", config=ImageConfig(user="twin"))
        died = run_and_die(lambda: ACTIONS[name](store), at)  # noqa: B023 - called here
        for image in store.all():  # at once, before any sweep
            assert os.path.isfile(image.layers[0] + "/bin/sh"), f"at change {at}"
        said: list[str] = []
        sweep(store, said.append)
        assert not died or not said or any("interrupted" in line for line in said)
        left = contents(store)
        assert left["tmp"] == []
        reachable = {image.id[7:] for image in store.all()}
        assert set(left["images"]) == reachable, f"at change {at}"
        layers = {Path(layer).name for image in store.all() for layer in image.layers}
        assert set(left["layers"]) == layers, f"at change {at}"
        assert (store.get("twin") is not None) or name == "remove one of two"
        sweep(store, pytest.fail)
        ACTIONS[name](store) if died and store.get("old") and store.get("twin") else None
    assert at > 5


def test_a_store_without_sweep_keeps_rubbish(tmp_path: Path, monkeypatch):
    """The mutant: the test above is able to fail."""
    monkeypatch.setattr(removal, "_collect", lambda change: [])
    with pytest.raises(AssertionError):
        test_killed_at_any_moment(tmp_path, "import")


def test_what_is_being_made_is_not_swept(store: Store):
    with Change(store) as living:
        sweep(store, pytest.fail)
        assert os.path.isdir(living.path)
        os.mkdir(store.tmp + "/ruin")
        said: list[str] = []
        sweep(store, said.append)
        assert said == ["removed what an interrupted command left in the store: tmp/ruin"]
        assert os.path.isdir(living.path)
    assert os.listdir(store.tmp) == []


def test_imports_at_the_same_time(store: Store):
    """Four processes import the same and different content; all of it is there once."""
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                put(store, f"n{number}", SMALL if number % 2 else OTHER)
                os._exit(0)
            except BaseException:
                os._exit(1)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    assert len(store.all()) == 4
    assert len(contents(store)["layers"]) == 2
    assert contents(store)["tmp"] == []


def test_who_holds_the_store_is_waited_for(store: Store):
    image = put(store, "a")
    held = store.hold()
    with pytest.raises(BlockingIOError):
        store.lock(fcntl.LOCK_EX | fcntl.LOCK_NB)
    removal_ = threading.Thread(target=remove, args=(store, "a"))
    removal_.start()
    removal_.join(0.2)
    assert removal_.is_alive()
    assert store.get("a") == image
    os.close(held)
    removal_.join(10)
    assert store.get("a") is None


def test_the_layer_is_on_disk_before_its_name(store: Store, monkeypatch):
    """syncfs(2) first, then the renames, the ref last."""
    calls = []
    real_syscall, real_rename = change.syscall, os.rename
    monkeypatch.setattr(change, "syscall", lambda *a: calls.append(a[0]) or real_syscall(*a))
    monkeypatch.setattr(
        os, "rename", lambda a, b: calls.append(os.path.basename(os.path.dirname(b))
                                                if "sha256" not in b else b.split("/")[-3])
        or real_rename(a, b)
    )  # fmt: skip
    put(store, "a")
    assert calls == ["syncfs", "layers", "images", "refs"]
