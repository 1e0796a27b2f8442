"""kernel/overlay.py: layers stay as they are; what a container writes is its own."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import KernelError
from minicontainer.kernel import overlay
from minicontainer.kernel.overlay import PAGE, escape, overlay_options
from tests.kernel.room import Room
from tests.support import forked
from tests.unit.mutants import fails, mutant

root_only = pytest.mark.requires_root


def layer(path: Path, **files: str) -> str:
    """A directory with files."""
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return str(path)


def stacked(layers, scratch: Path, action, module=overlay):
    """Make, stack, act on the root in a child; undo here."""
    make = module.MakeUpper(str(scratch))

    def inside():
        room = Room()
        make.run(room)
        module.StackLayers(tuple(layers), str(scratch)).run(room)
        os.chdir("/")
        return action(Path(f"/proc/self/fd/{room.fds['root']}"))

    return forked(inside)


# ---- options


@given(st.lists(st.text(st.characters(exclude_characters="\0/"), min_size=1), min_size=1))
def test_no_name_breaks_out_of_the_option_string(names):
    """Take the string apart as overlayfs does: at every colon or comma without a backslash."""
    paths = tuple("/" + name for name in names)
    options = overlay_options(paths, "/up", "/work")
    fields = split(options, ",")
    assert fields[1:] == ["upperdir=/up", "workdir=/work"]
    parts = split(fields[0].removeprefix("lowerdir="), ":")
    assert [re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts] == [*reversed(paths)]


def split(text: str, separator: str) -> list[str]:
    """At separators that no backslash stands before."""
    parts, quoted = [""], False
    for letter in text:
        if letter == separator and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
        quoted = letter == "\\" and not quoted
    return parts


def test_escape():
    assert escape("/a:b,c\\d") == "/a\\:b\\,c\\\\d"


# ---- the stack


def check_copy_on_write(tmp_path, module=overlay):
    """Upper layers hide lower ones; writing copies up, deleting leaves a whiteout."""
    low = layer(tmp_path / "low", both="low", low="low", doomed="low")
    high = layer(tmp_path / "high", both="high")

    def action(root):
        seen = {name: (root / name).read_text() for name in sorted(os.listdir(root))}
        with (root / "low").open("a") as file:
            file.write(" and more")
        (root / "doomed").unlink()
        (root / "new").write_text("new")
        return seen, sorted(os.listdir(root))

    seen, after = stacked((low, high), tmp_path / "c", action, module)
    assert seen == {"both": "high", "doomed": "low", "low": "low"}
    assert after == ["both", "low", "new"]
    assert (Path(low) / "low").read_text() == "low", "the layer is untouched"
    assert (Path(low) / "doomed").exists()
    upper = tmp_path / "c/upper"
    assert (upper / "low").read_text() == "low and more"
    whiteout = os.stat(upper / "doomed")
    assert stat.S_ISCHR(whiteout.st_mode)
    assert whiteout.st_rdev == 0
    assert sorted(os.listdir(upper)) == ["doomed", "low", "new"]
    assert stat.S_IMODE(os.stat(tmp_path / "c").st_mode) == 0o700
    assert stat.S_IMODE(os.stat(upper).st_mode) == 0o755
    module.MakeUpper(str(tmp_path / "c")).undo(Room())
    assert not (tmp_path / "c").exists()


@root_only
def test_copy_on_write(tmp_path):
    check_copy_on_write(tmp_path)


@root_only
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("for path in reversed(lower))", "for path in lower)"),
        ("        remove_tree(self.directory)", "        pass"),
        ('upperdir={escape(upper)},workdir={escape(work)}', "x=y"),
        ("os.mkdir(self.directory, 0o700)", "os.mkdir(self.directory, 0o755)"),
    ],
)  # fmt: skip
def test_the_check_on_copy_on_write_can_fail(tmp_path, old, new):
    fails(check_copy_on_write, tmp_path, mutant(overlay, old, new))


def check_odd_paths(tmp_path, module=overlay):
    names = ("a:b", "a,b", "a\\b", "a\\:b,c", "\u00e9 space", "a\nb", "x,ro")
    for number, name in enumerate(names):
        one = layer(tmp_path / str(number) / name / "one", one="1")
        two = layer(tmp_path / str(number) / name / "two", two="2")
        scratch = tmp_path / str(number) / name / "c"
        found = stacked((one, two), scratch, lambda root: sorted(os.listdir(root)), module)
        assert found == ["one", "two"], name


@root_only
def test_colons_commas_and_backslashes_in_paths(tmp_path):
    check_odd_paths(tmp_path)


@root_only
@pytest.mark.parametrize("character", [r'"\\", "\\\\"', '":", "\\\\:"', '",", "\\\\,"'])
def test_the_check_on_paths_can_fail(tmp_path, character):
    fails(check_odd_paths, tmp_path, mutant(overlay, f".replace({character})", ""))


def check_many(tmp_path, module=overlay):
    """A hundred layers with docker's long names: more than a page of options."""
    base = tmp_path / ("long" * 20)
    layers = [layer(base / f"{n:02}-" / "d", **{f"f{n}": "", "top": str(n)}) for n in range(100)]
    assert len(overlay_options(tuple(layers), "", "")) > PAGE

    def action(root):
        return len(os.listdir(root)), (root / "top").read_text()

    assert stacked(layers, tmp_path / "c", action, module) == (101, "99")


@root_only
def test_more_layers_than_fit_into_a_page(tmp_path):
    check_many(tmp_path)


@root_only
def test_the_check_on_many_layers_can_fail(tmp_path):
    fails(check_many, tmp_path, mutant(overlay, "if len(options) < PAGE:", "if True:"))


@root_only
def test_one_layer_and_a_link_as_layer(tmp_path):
    low = layer(tmp_path / "low", file="x")
    assert stacked([low], tmp_path / "c", os.listdir) == ["file"]


@root_only
def test_an_upper_directory_is_never_used_twice(tmp_path):
    """What is there may be a living container's, or an attacker's link."""
    step = overlay.MakeUpper(str(tmp_path / "c"))
    step.run(Room())
    with pytest.raises(FileExistsError):
        step.run(Room())
    (tmp_path / "link").symlink_to(tmp_path / "c")
    with pytest.raises(FileExistsError):
        overlay.MakeUpper(str(tmp_path / "link")).run(Room())
    step.undo(Room())
    step.undo(Room())


@root_only
def test_a_missing_layer_is_the_kernels_error(tmp_path):
    with pytest.raises(KernelError, match=r"mount.*overlay.*ENOENT"):
        stacked([str(tmp_path / "gone")], tmp_path / "c", os.listdir)


@root_only
def test_the_owner_of_the_upper_directory(tmp_path):
    """In a user namespace root is another id out here."""

    def inside():
        room = Room()
        overlay.MakeUpper(str(tmp_path / "c"), owner=1000000, layers=2).run(room)
        found = {name: os.stat(tmp_path / "c" / name).st_uid for name in os.listdir(tmp_path / "c")}
        return found, os.stat(tmp_path / "c").st_uid, os.path.sameopenfile(
            room.fds["scratch"], os.open(tmp_path / "c", os.O_PATH)
        )  # fmt: skip

    names = ("upper", "work", "root", "lower0", "lower1")
    assert forked(inside) == (dict.fromkeys(names, 1000000), 1000000, True)
