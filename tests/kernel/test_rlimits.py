"""kernel/rlimits.py, read back by Python's resource module and by /proc/PID/limits."""

from __future__ import annotations

import resource

import pytest

from minicontainer.errors import KernelError
from minicontainer.kernel import capabilities, rlimits
from minicontainer.step import CONTAINER, HOST
from tests.kernel.room import Paused, Room
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root
FILES, CORE = resource.RLIMIT_NOFILE, resource.RLIMIT_CORE


def test_the_numbers_are_the_kernels():
    known = {name: getattr(resource, name, None) for name in rlimits.NUMBERS}
    assert {k: v for k, v in known.items() if v is not None} == {
        k: n for k, n in rlimits.NUMBERS.items() if known[k] is not None
    }
    assert sorted(rlimits.NUMBERS.values()) == [*range(16)]


def check_own(module=rlimits):
    def inside():
        step = module.SetResourceLimits(
            (("RLIMIT_NOFILE", 64, 128), ("RLIMIT_CORE", 0, 0), ("RLIMIT_FSIZE", -1, -1))
        )
        assert step.side == CONTAINER
        step.run(Room())
        kinds = (FILES, CORE, resource.RLIMIT_FSIZE)
        return [resource.getrlimit(kind) for kind in kinds]

    unlimited = resource.RLIM_INFINITY
    assert forked(inside) == [(64, 128), (0, 0), (unlimited, unlimited)]


def check_from_outside(module=rlimits):
    own = resource.getrlimit(FILES)
    with Paused() as pid:
        context = Room()
        context.pid = pid
        step = module.SetResourceLimitsFromOutside((("RLIMIT_NOFILE", 32, 33),))
        assert step.side == HOST
        step.run(context)
        assert resource.prlimit(pid, FILES) == (32, 33)
        with open(f"/proc/{pid}/limits") as file:
            line = next(line for line in file if line.startswith("Max open files"))
        assert line.split()[3:5] == ["32", "33"]
    assert resource.getrlimit(FILES) == own, "ours stay"


def test_own_limits():
    check_own()


def test_another_process():
    check_from_outside()


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_own, '{"soft": soft & UNLIMITED, "hard"', '{"soft": hard & UNLIMITED, "hard"'),
        (check_own, '"hard": hard & UNLIMITED}', '"hard": soft & UNLIMITED}'),
        (check_own, '"RLIMIT_CORE": 4', '"RLIMIT_CORE": 5'),
        (check_from_outside, "prlimit(context.pid, kind", "prlimit(0, kind"),
    ],
)
def test_the_checks_can_fail(check, old, new):
    # in a child: the last mutant lowers the limits of whoever runs it
    fails(forked, lambda: check(mutant(rlimits, old, new)))


def test_what_the_kernel_refuses():
    with pytest.raises(KernelError, match=r"prlimit\(.*RLIMIT_NOFILE.*EINVAL.*above the hard one"):
        forked(lambda: rlimits.prlimit(0, "RLIMIT_NOFILE", 10, 5))

    def raise_it():
        capabilities.capset(0, 0, 0)
        rlimits.prlimit(0, "RLIMIT_CORE", 0, 0)
        rlimits.prlimit(0, "RLIMIT_CORE", 0, 1)

    with pytest.raises(KernelError, match=r"EPERM.*CAP_SYS_RESOURCE"):
        forked(raise_it)
