"""Nothing outside the target is ever made or changed, whatever the tar."""

from __future__ import annotations

import os
import tarfile
import warnings
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minicontainer.errors import ImageError
from minicontainer.image import layers
from tests.image.evil import EVIL, SMALL, Evil, stage
from tests.image.tars import DIR, FIFO, FILE, HARD, SYM, entry, extract, tar, tgz, tree


def naive(data: bytes, target: Path) -> None:
    """What many programs do, and every Python before 3.14 did."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with tarfile.open(fileobj=BytesIO(data)) as archive:
            trusting = getattr(tarfile, "fully_trusted_filter", None)
            archive.extractall(target, **({"filter": trusting} if trusting else {}))


def escaped(place: Path, before: dict[str, tuple[object, ...]]) -> list[str]:
    """What is different outside the target."""
    after = tree(place, skip=str(place / "target"))
    return sorted(path for path in before | after if before.get(path) != after.get(path))


@pytest.mark.parametrize("name", EVIL)
def test_it_stays_inside(name: str, tmp_path: Path):
    evil = EVIL[name]
    if evil.root and os.geteuid() != 0:
        pytest.skip("needs root")
    target = stage(tmp_path)
    before = tree(tmp_path, skip=str(target))
    data = evil.build(str(tmp_path / "outside"))
    try:
        extract(data, target, limits=SMALL)
    except ImageError as error:
        assert evil.refused, f"refused: {error.message}"
        assert evil.refused in error.message
    else:
        assert not evil.refused, "unpacked"
    assert escaped(tmp_path, before) == []


@pytest.mark.requires_root
def test_the_naive_extraction_escapes(tmp_path: Path):
    """The mutant: with tarfile's own extraction the same corpus does what it wants to do."""
    got_out = set()
    for number, (name, evil) in enumerate(EVIL.items()):
        if evil.ours_alone or (evil.root and os.geteuid() != 0):
            continue
        place = tmp_path / str(number)
        target = stage(place)
        before = tree(place, skip=str(target))
        try:
            naive(evil.build(str(place / "outside")), target)
        except (OSError, tarfile.TarError, ValueError, KeyError, RecursionError):
            pass  # it may fail after the harm is done
        if escaped(place, before):
            got_out.add(name)
    assert {name for name, evil in EVIL.items() if evil.escapes} - got_out == set()
    assert len(got_out) > 15


def test_paths_without_a_root_escape(tmp_path: Path, monkeypatch):
    """The mutant of our own: the parent opened by its path, as joined to the target's."""
    target = stage(tmp_path)
    before = tree(tmp_path, skip=str(target))

    def by_path(root_fd: int, path: str, mode: int = 0o755) -> int:
        os.makedirs(target / path, mode, exist_ok=True)
        return os.open(target / path, os.O_PATH | os.O_DIRECTORY)

    monkeypatch.setattr(layers, "make_directory", by_path)
    extract(EVIL["link as parent"].build(str(tmp_path / "outside")), target)
    assert escaped(tmp_path, before) == [str(tmp_path / "outside/pwned")]


def test_devices_can_be_refused(tmp_path: Path):
    with pytest.raises(ImageError, match="device node"):
        extract(EVIL["a disk"].build(""), tmp_path, devices=False)


def test_the_corpus_is_large():
    assert len(EVIL) >= 50
    assert all(isinstance(evil, Evil) for evil in EVIL.values())


# ---- fuzzing

WORDS = st.sampled_from(
    ["a", "b", "c", "..", ".", "", "outside", "secret", "open", ".wh.a", ".wh..", ".wh...",
     ".wh..wh..opq", "x\ny", "é", "\udcff"]
)  # fmt: skip
NAMES = st.lists(WORDS, min_size=1, max_size=4).map("/".join)
TARGETS = st.one_of(
    NAMES, NAMES.map(lambda name: f"/{name}"), st.sampled_from(["../outside", "/", ".", "OUT"])
)
ENTRIES = st.tuples(
    NAMES, st.sampled_from([FILE, DIR, SYM, SYM, HARD, FIFO]), TARGETS,
    st.integers(0, 0o7777), st.binary(max_size=3),
)  # fmt: skip
QUICK = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@QUICK
@given(st.lists(ENTRIES, max_size=10))
@example([("a", SYM, "OUT", 0, b""), ("a/secret", FILE, "", 0o644, b"x")])
def test_no_sequence_of_entries_gets_out(tmp_path_factory, steps):
    place = tmp_path_factory.mktemp("fuzz")
    target = stage(place)
    before = tree(place, skip=str(target))
    made = [
        entry(
            name.replace("OUT", str(place / "outside")),
            kind,
            content if kind == FILE else b"",
            link.replace("OUT", str(place / "outside")) if kind in (SYM, HARD) else "",
            mode=mode,
        )
        for name, kind, link, mode, content in steps
    ]
    try:
        extract(tar(*made), target, limits=SMALL)
    except ImageError:
        pass  # refusing is always right; what matters is below
    assert escaped(place, before) == []


HONEST = tar(
    entry("./", DIR), entry("bin", DIR), entry("bin/sh", content=b"#!" * 300),
    entry("bin/ash", SYM, target="/bin/sh"), entry("bin/hard", HARD, target="bin/sh"),
    entry("x" * 120, content=b"long", pax={"mtime": "1.5"}),
)  # fmt: skip


@QUICK
@given(
    st.sampled_from([HONEST, tgz(HONEST)]),
    st.lists(st.tuples(st.integers(0, len(HONEST) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(HONEST)),
)
def test_no_damage_gets_out_or_crashes(tmp_path_factory, data, changes, length):
    place = tmp_path_factory.mktemp("fuzz")
    target = stage(place)
    before = tree(place, skip=str(target))
    damaged = bytearray(data)
    for offset, value in changes:
        damaged[offset % len(damaged)] = value
    try:
        extract(bytes(damaged[: length if length % 3 else None]), target, limits=SMALL)
    except ImageError:
        pass  # any other exception is a crash, and fails the test
    assert escaped(place, before) == []
