"""Controllers: what can be limited below a cgroup is what its parent hands down.

memory, cpu, io, pids, cpuset, hugetlb: each controller is a part of the kernel that counts
something and can say no.  It costs a little wherever it is active, so it is off by default, and a
cgroup has the files of a controller only if its parent wrote the name to cgroup.subtree_control:

    cgroup.controllers       what this cgroup has been given: its own files, memory.max and so on
    cgroup.subtree_control   what it gives on to its children; at most what it has itself

So to limit /minicontainer/ID, first the root must give "memory" to minicontainer, then that to ID.

The kernel insists on one more thing: a cgroup that gives controllers on has no processes of its
own ("no internal processes", EBUSY), because a parent's processes would compete with its children,
and for memory nobody could say by which rule.  The real root is excepted.  The root that one sees
in a container is not: there, somebody has to move the processes that live in it into a leaf.

Documentation/admin-guide/cgroup-v2.rst, "Controlling Controllers"; cgroups(7).
By hand:   cat /sys/fs/cgroup/cgroup.controllers
           mkdir /sys/fs/cgroup/box ; echo +pids > /sys/fs/cgroup/cgroup.subtree_control
See it:    ls /sys/fs/cgroup/box
"""

from __future__ import annotations

import errno
import os

from minicontainer.cgrouptree import whereabouts, words, write
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.step import HOST, Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary

ASIDE = "runtime"  # the leaf for our own process where it stood in the way
_CONTROLLERS = "cgroup.controllers"
_SUBTREE_CONTROL = "cgroup.subtree_control"

# ---- verbs


def withheld(cgroup_fd: int, above: str, wanted: tuple[str, ...]) -> list[str]:
    """Those of the controllers that the cgroup at ``above`` ("../../") does not give on, yet.

    Raises MinicontainerError for one that it does not have itself; cgroups(7)."""
    given = words(cgroup_fd, above + _SUBTREE_CONTROL)
    new = [name for name in wanted if name not in given]
    have = words(cgroup_fd, above + _CONTROLLERS) if new else []
    if missing := [name for name in new if name not in have]:
        why, hint = whereabouts(missing[0])
        raise MinicontainerError(f"there is no way to limit {', '.join(missing)} here: {why}", hint)
    return new


def inhabitants(cgroup_fd: int, above: str) -> list[str]:
    """The processes that stand in the way at ``above``; none do in the real root: cgroups(7).

    Asked for, because the kernel's EBUSY is for memory and io only.  For cpu and pids it would
    say yes, and make the cgroup a "threaded" one, in whose children no container can be born."""
    try:
        words(cgroup_fd, above + "cgroup.type")
    except FileNotFoundError:
        return []  # only the real root has no type
    return words(cgroup_fd, above + "cgroup.procs")


def step_aside(cgroup_fd: int, above: str) -> None:
    """Move this process, and no other, from the cgroup at ``above`` into a leaf; cgroups(7)."""
    try:
        os.mkdir(above + ASIDE, dir_fd=cgroup_fd)
    except FileExistsError:
        pass
    write(cgroup_fd, f"{above}{ASIDE}/cgroup.procs", "0")  # 0 is whoever writes it


# ---- steps


class EnableControllers(Step):
    """A cgroup has the files of a controller only if every cgroup above it hands it down, from the
    root on.  Where all do already, which is so for all but the first container, nothing is
    written."""

    side: ClassVar[str] = HOST
    name = "controllers"
    without = "the cgroup may have no file in which a limit could be written"

    path: str  # of the cgroup, below the root of the tree or our part of it
    controllers: tuple[str, ...]

    def title(self) -> str:
        """In a few words."""
        return f"have {', '.join(self.controllers)} handed down to that cgroup"

    def shell(self) -> str:
        """echo, from the top."""
        wanted = " ".join(f"+{name}" for name in self.controllers)
        return "\n".join(
            f'echo "{wanted}" > "${{CGROUP%{"/*" * depth}}}/{_SUBTREE_CONTROL}"'
            for depth in range(self._depth(), 0, -1)
        )

    def run(self, context: Context) -> None:
        """write(2) to the cgroup.subtree_control of each cgroup above, where needed."""
        cgroup_fd = context.cgroup_fd
        if cgroup_fd < 0:
            raise MinicontainerError(
                f"the container has no cgroup, so nothing can limit its {self.controllers[0]}",
                "run without limits, or find out above why it has none",
            )
        if set(self.controllers) <= set(words(cgroup_fd, _CONTROLLERS)):
            return
        for depth in range(self._depth(), 0, -1):
            above = "../" * depth
            if new := withheld(cgroup_fd, above, self.controllers):
                living = inhabitants(cgroup_fd, above)
                if living == [str(os.getpid())]:
                    step_aside(cgroup_fd, above)
                elif living:
                    raise self._crowded(cgroup_fd, above, len(living))
                write(cgroup_fd, above + _SUBTREE_CONTROL, " ".join(f"+{name}" for name in new))

    def _depth(self) -> int:
        return self.path.rstrip("/").count("/")

    def _crowded(self, cgroup_fd: int, above: str, living: int) -> KernelError:
        """What the kernel would say, with the place by name and the way out."""
        place = os.path.normpath(f"{os.readlink(f'/proc/self/fd/{cgroup_fd}')}/{above}")
        return KernelError(
            "write", f'"{place}/{_SUBTREE_CONTROL}"', errno.EBUSY,
            f"processes live in {place} itself ({living} of them), and a cgroup that gives "
            "controllers on may have none of its own; it is not for us to move them",
            f"move them into a leaf: mkdir {place}/init; for p in $(cat {place}/cgroup.procs); "
            f"do echo $p > {place}/init/cgroup.procs; done",
        )  # fmt: skip


class CountResources(EnableControllers):
    """What nobody limits can still be counted: for `stats`, and to know in the end whether it was
    the OOM killer.  A wish only: who stands in the way is not moved, and a machine that has these
    controllers elsewhere is left as it is."""

    name = "accounting"
    without = "nobody can say what the container uses, or whether the OOM killer ended it"

    controllers: tuple[str, ...] = ("memory", "cpu", "io", "pids")

    def shell(self) -> str:
        """echo, from the top, one by one: a controller that is not there is no reason to stop."""
        return "\n".join(
            f"for c in {' '.join(self.controllers)}; do "
            f'echo "+$c" > "${{CGROUP%{"/*" * depth}}}/{_SUBTREE_CONTROL}" || :\ndone 2> /dev/null'
            for depth in range(self._depth(), 0, -1)
        )

    def run(self, context: Context) -> None:
        """write(2) to the cgroup.subtree_control of each cgroup above, where that can be done."""
        cgroup_fd = context.cgroup_fd
        if cgroup_fd < 0 or set(self.controllers) <= set(words(cgroup_fd, _CONTROLLERS)):
            return
        for depth in range(self._depth(), 0, -1):
            above = "../" * depth
            given = words(cgroup_fd, above + _SUBTREE_CONTROL)
            have = words(cgroup_fd, above + _CONTROLLERS)
            new = [name for name in self.controllers if name in have and name not in given]
            if not new:
                continue
            if inhabitants(cgroup_fd, above):
                return
            try:
                write(cgroup_fd, above + _SUBTREE_CONTROL, " ".join(f"+{name}" for name in new))
            except KernelError:
                return
