"""kernel/capabilities.py: what the thread has afterwards, by /proc and by python-prctl."""

from __future__ import annotations

from pathlib import Path

import prctl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import KernelError
from minicontainer.kernel import capabilities as caps
from minicontainer.spec import DEFAULT_CAPABILITIES
from tests.kernel.room import Room, status
from tests.support import forked
from tests.unit.mutants import fails, mutant

FEW = ("CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def the_sets() -> dict[str, tuple[str, ...]]:
    """The five sets by /proc."""
    return {
        word: caps.names(int(status(word), 16))
        for word in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    }


def by_prctl(kind) -> set[str]:
    """A set by python-prctl's own names."""
    all_names = [name for name in dir(prctl) if name.startswith("CAP_") and name in caps.NAMES]
    return {name for name in all_names if getattr(kind, name.removeprefix("CAP_").lower())}


# ---- names and bits


@given(st.sets(st.sampled_from(caps.NAMES)))
def test_names_and_bits_are_the_same(names):
    bits = caps.mask(tuple(names))
    assert set(caps.names(bits)) == names
    assert bits.bit_count() == len(names)
    assert list(caps.names(bits)) == sorted(names, key=caps.NAMES.index)


def test_the_numbers_are_the_kernels():
    known = {name: getattr(prctl, name) for name in caps.NAMES if hasattr(prctl, name)}
    assert len(known) >= 38
    assert {name: caps.NAMES.index(name) for name in known} == known
    assert caps.mask(("CAP_CHOWN",)) == 1
    assert caps.mask(("CAP_CHECKPOINT_RESTORE",)) == 1 << 40


def test_without_a_device_filter_there_is_no_mknod():
    context = Room()
    assert caps.wanted(("CAP_MKNOD", "CAP_CHOWN"), context) == 1 | 1 << 27
    context.unfiltered = True
    assert caps.wanted(("CAP_MKNOD", "CAP_CHOWN"), context) == 1


# ---- the kernel


def check_bounding(module=caps):
    def inside():
        module.DropBoundingCapabilities(FEW).run(Room())
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
        by_number = [bit for bit in range(last + 1) if prctl.capbset_read(bit)]
        return the_sets(), by_number, prctl.capbset.kill, prctl.capbset.sys_admin

    sets, by_number, kill, sys_admin = forked(inside)
    assert sets["CapBnd"] == FEW
    assert by_number == [caps.NAMES.index(name) for name in FEW]
    assert (kill, sys_admin) == (True, False)
    assert set(sets["CapPrm"]) > set(FEW), "the working sets are still whole"


def check_sets(module=caps):
    def inside():
        context = Room()
        module.SetCapabilities(FEW[:2], FEW, FEW[1:], FEW[2:]).run(context)
        kinds = (prctl.cap_effective, prctl.cap_permitted, prctl.cap_inheritable)
        return the_sets(), [by_prctl(kind) for kind in kinds], context.said

    sets, told, said = forked(inside)
    assert sets["CapEff"] == FEW[:2]
    assert sets["CapPrm"] == FEW
    assert sets["CapInh"] == FEW[1:]
    assert sets["CapAmb"] == FEW[2:]
    assert told == [set(FEW[:2]), set(FEW), set(FEW[1:])]
    assert said == []


def check_lacking(module=caps):
    """This root may have less than all: what it lacks is left out, and said."""

    def inside():
        effective, permitted, inheritable = caps.capget()
        fewer = permitted & ~caps.mask(("CAP_KILL",))
        caps.capset(effective & fewer, fewer, inheritable & fewer)
        context = Room()
        module.SetCapabilities(FEW, FEW).run(context)
        return the_sets(), context.said

    sets, said = forked(inside)
    assert sets["CapPrm"] == sets["CapEff"] == ("CAP_CHOWN", "CAP_NET_BIND_SERVICE")
    assert said == ["this host's root lacks CAP_KILL: left out of the container"]


def check_ambient_is_emptied(module=caps):
    def inside():
        effective, permitted, _ = caps.capget()
        caps.capset(effective, permitted, 1 | 1 << 5)
        caps.ambient_raise(0)
        before = the_sets()["CapAmb"]
        module.SetCapabilities(FEW, FEW, FEW).run(Room())
        return before, the_sets()["CapAmb"]

    assert forked(inside) == (("CAP_CHOWN",), ())


CHECKS = [check_bounding, check_sets, check_lacking, check_ambient_is_emptied]


@pytest.mark.requires_root
@pytest.mark.parametrize("check", CHECKS)
def test_the_sets(check):
    check()


@pytest.mark.requires_root
@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_bounding, "                capbset_drop(bit)", "                pass"),
        (check_bounding, "if not keep >> bit & 1:", "if not keep >> bit & 1 and bit < 32:"),
        (check_sets, "        capset(effective, permitted, inheritable)\n", ""),
        (check_sets, "effective >> shift & 0xFFFFFFFF", "permitted >> shift & 0xFFFFFFFF"),
        (check_sets, "                ambient_raise(NAMES.index(name))", "                pass"),
        (check_lacking, "        permitted &= have\n", ""),
        (check_lacking, "lacking = permitted & ~have", "lacking = 0"),
        (check_ambient_is_emptied, "        ambient_clear()\n", ""),
    ],
)
def test_the_checks_on_the_sets_can_fail(check, old, new):
    fails(check, mutant(caps, old, new))


@pytest.mark.requires_root
def test_a_dropped_capability_never_comes_back_by_execve():
    """A set-user-ID root program gains what the bounding set allows, and no more."""
    import subprocess

    def inside():
        caps.DropBoundingCapabilities(FEW).run(Room())
        done = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True)
        return next(line for line in done.stdout.splitlines() if line.startswith("CapPrm"))

    assert int(forked(inside).split()[1], 16) == caps.mask(FEW)


@pytest.mark.requires_root
def test_a_set_cannot_grow():
    def inside():
        caps.capset(0, 0, 0)
        caps.capset(1, 1, 0)

    with pytest.raises(KernelError, match=r"capset.*0x1.*EPERM.*can only shrink"):
        forked(inside)


@pytest.mark.requires_root
def test_dropping_from_the_bounding_set_needs_the_right_to():
    def inside():
        caps.capset(0, 0, 0)
        caps.capbset_drop(21)

    with pytest.raises(KernelError, match=r"CAP_SYS_ADMIN.*CAP_SETPCAP is needed"):
        forked(inside)


def test_dockers_fourteen():
    assert caps.mask(DEFAULT_CAPABILITIES) == 0xA80425FB
    assert caps.only(("CAP_SYS_ADMIN", "CAP_KILL")) == "-all,+sys_admin,+kill"
