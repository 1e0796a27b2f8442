"""trees.py: what a container wrote is removed, however it wrote it, and nothing else is."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from minicontainer import trees
from minicontainer.trees import remove_tree
from tests.unit.mutants import fails, mutant


def test_everything_in_it_goes(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "a/closed").mkdir(mode=0)
    (tree / "caf\udce9\n").write_text("x")
    os.mkfifo(tree / "fifo")
    (tree / "dangling").symlink_to("nowhere")
    remove_tree(str(tree))
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_a_link_goes_too(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    remove_tree(str(tmp_path / "file"))
    remove_tree(str(tmp_path / "link"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["gone", "gone/too", "gone/too/far"])
def test_gone_is_fine(tmp_path, path):
    remove_tree(str(tmp_path / path))


def test_links_are_not_followed(tmp_path, module=trees):
    host = tmp_path / "host"
    host.mkdir(exist_ok=True)
    (host / "precious").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "relative").symlink_to("../host")
    (tree / "absolute").symlink_to(host)
    module.remove_tree(str(tree))
    assert (host / "precious").read_text() == "x"
    assert not tree.exists()


def deep(tmp_path, levels: int = 2100) -> str:
    """A tree no path can name: far longer than PATH_MAX, and deeper than Python recurses."""
    tree = tmp_path / "deep"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        os.close(os.open("file", os.O_CREAT, 0o600, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return str(tree)


def test_a_tree_too_deep_for_paths_descriptors_and_recursion(tmp_path):
    """Any program in a container can make one; it must not stay on the host for ever."""
    path = deep(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        remove_tree(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        left = os.path.lexists(path)
        subprocess.run(["rm", "-rf", path], check=True)  # pytest's own cleanup would choke on it
    assert not left


def test_a_directory_swapped_for_a_link_leads_nowhere(tmp_path, module=trees):
    """Between "it is not empty" and the opening of it, a container may put a link in its place."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "precious").write_text("x")
    (tmp_path / "tree").symlink_to(host)
    parent = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(NotADirectoryError):
            os.close(module._open(parent, "tree"))
    finally:
        os.close(parent)


def test_the_check_on_links_can_fail(tmp_path):
    broken = mutant(trees, "| os.O_NOFOLLOW", "")
    fails(test_a_directory_swapped_for_a_link_leads_nowhere, tmp_path, broken)


def test_no_descriptor_stays_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    remove_tree(deep(tmp_path, 20))
    assert os.listdir("/proc/self/fd") == before
