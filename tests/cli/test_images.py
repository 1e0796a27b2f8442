"""``images``, ``import`` and ``rmi`` on the command line: docker's output and exit codes."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from minicontainer.cli.images import layers_in_use
from minicontainer.cli.imagetable import human_duration, human_size
from minicontainer.image.change import add
from minicontainer.image.config import ImageConfig
from minicontainer.image.store import Store
from tests.image.evil import EVIL
from tests.image.tars import entry, tar, tgz
from tests.support import Cli

SMALL = tar(entry("bin/sh", content=b"#!" * 800_000, mode=0o755))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "small.tar.gz"
    path.write_bytes(tgz(SMALL))
    return path


def test_import_images_rmi(cli: Cli, archive: Path):
    done = cli("import", archive, "someone/tool:1")
    assert (done.status, done.err) == (0, "")
    image_id = done.out.strip()
    assert image_id.startswith("sha256:") and len(image_id) == 71

    listed = cli("images")
    heading, line = listed.out.splitlines()
    assert heading.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert line.split() == [
        "someone/tool", "1", image_id[7:19], *line.split()[3:6], "1.6MB",
    ]  # fmt: skip
    assert line.split()[4:6] == ["years", "ago"]
    assert heading.index("IMAGE ID") == line.index(image_id[7:19])

    gone = cli("rmi", "someone/tool:1")
    layer = gone.out.splitlines()[-1]
    assert gone.out.splitlines()[:2] == ["Untagged: someone/tool:1", f"Deleted: {image_id}"]
    assert layer.startswith("Deleted: sha256:")
    assert (
        cli("images").out.splitlines() == [heading.replace("     ", "")] or "REPOSITORY" in heading
    )
    assert cli("images", "-q").out == ""


def test_import_reads_standard_input(cli: Cli, archive: Path):
    with archive.open("rb") as file:
        done = subprocess.run(
            cli.argv("import", "-", "piped"),
            env=cli.env,
            stdin=file,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert "piped" in cli("images").out


def test_import_changes_the_configuration(cli: Cli, archive: Path):
    """docker import's -c, before and after the words."""
    flags = ["-c", 'CMD ["a", "b"]', "--change", "ENV A=1 B=2", "--change=WORKDIR /srv"]
    assert cli("import", *flags, archive, "x", "-m", "from a test").status == 0
    store = Store(str(cli.root))
    image = store.get("x")
    assert image is not None
    assert image.config.cmd == ("a", "b")
    assert image.config.env == ("A=1", "B=2")
    assert image.config.working_dir == "/srv"
    assert json.loads(store.config_json(image))["history"] == [{"created_by": "from a test"}]
    assert cli("import", "--platform", "linux/arm64", archive, "y").status == 0
    assert Store(str(cli.root)).get("y").config.architecture == "arm64"


def test_images_in_other_forms(cli: Cli, archive: Path):
    for name in ("one", "two:2", "two:3"):
        cli("import", archive, name)
    short, full = cli("images", "-q").out.split(), cli("images", "-q", "--no-trunc").out.split()
    assert (len(short), len(full)) == (1, 1), "three names of one image"
    assert full[0].startswith("sha256:" + short[0])
    for flags in (["--json"], ["--format", "json"]):
        rows = [json.loads(line) for line in cli("images", *flags).out.splitlines()]
        assert {(row["Repository"], row["Tag"], row["ID"]) for row in rows} == {
            ("one", "latest", short[0]), ("two", "2", short[0]), ("two", "3", short[0]),
        }  # fmt: skip
        assert rows[0]["CreatedAt"] == "2001-09-09 01:46:40 +0000 UTC"
    assert "DIGEST" in cli("images", "--digests").out
    assert len(cli("images", "two").out.splitlines()) == 3
    assert len(cli("images", "two:3").out.splitlines()) == 2
    assert len(cli("images", "three").out.splitlines()) == 1


def test_rmi_goes_on_after_a_failure(cli: Cli, archive: Path):
    cli("import", archive, "one")
    done = cli("rmi", "nothing", "one")
    assert done.status == 1
    assert "Untagged: one:latest" in done.out
    assert "no such image: nothing" in done.err
    assert cli("rmi", "--force", "nothing").status == 0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["import"], 125, "needs a file"),
        (["import", "a", "b", "c"], 125, "at most 2"),
        (["import", "/nonexistent", "x"], 1, "/nonexistent: No such file or directory"),
        (["import", "https://example.org/x.tar"], 125, "not addresses"),
        (["import", "-c", "RUN ls", "-"], 125, "RUN is not an instruction"),
        (["import", "--platform", "mars/amd64", "-"], 125, "unknown platform"),
        (["import", "--chang", "x", "-"], 125, "did you mean --change?"),
        (["import", "-", "Bad"], 125, "is not an image name"),
        (["images", "--format", "{{.ID}}"], 125, "table or json"),
        (["images", "a", "b"], 125, "at most 1"),
        (["rmi"], 125, "at least one"),
        (["rmi", "a b"], 125, "is not an image name"),
        (["images", "--help"], 0, ""),
        (["rmi", "--help"], 0, ""),
        (["import", "--help"], 0, ""),
    ],
)
def test_exit_codes(cli: Cli, words: list[str], status: int, says: str):
    done = cli(*words)
    assert done.status == status, done.err
    assert says in done.err
    assert (cli.root / "refs").exists() is False or list((cli.root / "refs").iterdir()) == []


def test_a_bad_archive_leaves_nothing_and_cannot_trick_the_terminal(cli: Cli, tmp_path: Path):
    evil = tar(entry("\x1b[2Jcleared", content=b"x"), entry("../\x1b]0;title\x07"))
    (tmp_path / "evil.tar").write_bytes(evil)
    done = cli("import", tmp_path / "evil.tar", "evil")
    assert done.status == 1
    assert "'..' leads out of it" in done.err
    assert "\x1b" not in done.err + done.out
    assert cli("images", "-q").out == ""
    for name in ("tmp", "layers/sha256", "images/sha256"):
        assert list((cli.root / name).iterdir()) == []


def test_import_on_the_way_out_of_a_pipe_that_breaks(cli: Cli, tmp_path: Path):
    (tmp_path / "cut.tar").write_bytes(EVIL["cut in the middle of a file"].build(""))
    done = cli("import", tmp_path / "cut.tar", "x")
    assert (done.status, done.out) == (1, "")
    assert "cut short" in done.err


def test_an_image_of_a_living_container_stays(cli: Cli, archive: Path, monkeypatch):
    """What runtimes have put on record under the run directory counts."""
    cli("import", archive, "used")
    image = Store(str(cli.root)).get("used")
    assert image is not None
    container = cli.run / ("c" * 64)
    container.mkdir(parents=True)
    (container / "state").write_text(f"name x\nlayers /else:{':'.join(image.layers)}\nscratch /y\n")
    monkeypatch.setenv("MINICONTAINER_RUN", str(cli.run))
    assert layers_in_use() == {"/else", *image.layers}
    done = cli("rmi", "used")
    assert done.status == 1
    assert "used is in use" in done.err
    (container / "state").unlink()
    assert layers_in_use() == set()
    assert cli("rmi", "used").status == 0


def test_what_was_interrupted_is_told(cli: Cli):
    store = Store(str(cli.root))
    add(store, "x", io.BytesIO(SMALL), ImageConfig())
    Path(store.tmp, "ruin").mkdir()
    Path(store.layers, "0" * 64).mkdir()
    done = cli("images")
    assert (
        "minicontainer: removed what an interrupted command left in the store: tmp/ruin" in done.err
    )
    assert not Path(store.layers, "0" * 64).exists()
    assert cli("images").err == ""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (7792915, "7.79MB"), (999_999, "1MB"),
     (140_400_000, "140MB"), (1_230_000_000, "1.23GB"), (5 * 10**12, "5TB")],
)  # fmt: skip
def test_sizes_as_docker_writes_them(size: int, text: str):
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "Less than a second"), (1, "1 second"), (45, "45 seconds"), (60, "About a minute"),
     (150, "2 minutes"), (3600, "About an hour"), (5400, "2 hours"), (47 * 3600, "47 hours"),
     (48 * 3600, "2 days"), (13.9 * 86400, "13 days"), (14 * 86400, "2 weeks"),
     (59 * 86400, "8 weeks"), (61 * 86400, "2 months"), (700 * 86400, "23 months"),
     (731 * 86400, "2 years")],
)  # fmt: skip
def test_times_as_docker_writes_them(seconds: float, text: str):
    assert human_duration(seconds) == text
