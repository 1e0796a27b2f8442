"""What a seccomp profile says, and how it is read from JSON: OCI's, docker's and podman's.

Three formats share one shape.  OCI's (config-linux.md, "Seccomp") has a default action,
architectures, and syscalls with names, an action and conditions.  docker's ``--security-opt
seccomp=FILE`` adds ``archMap`` and, on each rule, ``includes`` and ``excludes`` (capabilities,
architectures, minKernel); podman's, errnos by name.  Every error names the JSON path it means.

The actions are seccomp(2)'s.  Only SCMP_ACT_NOTIFY is refused: it needs an agent that answers.
"""

from __future__ import annotations

import errno

from minicontainer.errors import UsageError
from minicontainer.kernel import bpf
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# ---- vocabulary

# Without it, kernels before 5.16 slow filtered programs down by their guard against speculative
# store bypass; runc sets it too where a profile does not say (linux/seccomp.h).
SPEC_ALLOW = 4


class Arg(Record):
    """A condition on argument ``index`` (0 to 5): ``op`` is one of ``== != < <= > >=`` against
    ``value``, or ``&==`` (``&!=``): the bits in the mask ``value`` are (are not) ``value_two``."""

    index: int
    op: str
    value: int
    value_two: int = 0


class When(Record):
    """Where a rule holds: capabilities (CAP_*), architectures in Go's words (amd64), the first
    kernel version.  What is empty holds everywhere."""

    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    min_kernel: tuple[int, int] | None = None


class Rule(Record):
    """``names`` get ``verdict`` if all ``args`` hold; ``includes`` and ``excludes`` say where."""

    names: tuple[str, ...]
    verdict: int
    args: tuple[Arg, ...] = ()
    includes: When = When()
    excludes: When = When()


class Profile(Record):
    """A whole profile.  Calls that no rule names get ``default``; ``architectures`` (SCMP_ARCH_*),
    or those ``arch_map`` has for this machine, are filtered besides its own and others killed;
    ``flags`` are SECCOMP_FILTER_FLAG_* of seccomp(2)."""

    default: int
    rules: tuple[Rule, ...]
    architectures: tuple[str, ...] = ()
    arch_map: tuple[tuple[str, tuple[str, ...]], ...] = ()
    flags: int = SPEC_ALLOW


_ACTIONS = {
    "SCMP_ACT_KILL": bpf.KILL_THREAD, "SCMP_ACT_KILL_THREAD": bpf.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": bpf.KILL_PROCESS, "SCMP_ACT_TRAP": bpf.TRAP,
    "SCMP_ACT_ERRNO": bpf.ERRNO, "SCMP_ACT_TRACE": bpf.TRACE, "SCMP_ACT_LOG": bpf.LOG,
    "SCMP_ACT_ALLOW": bpf.ALLOW,
}  # fmt: skip
_OPERATORS = {
    "SCMP_CMP_NE": "!=", "SCMP_CMP_LT": "<", "SCMP_CMP_LE": "<=", "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=", "SCMP_CMP_GT": ">", "SCMP_CMP_MASKED_EQ": "&==",
}  # fmt: skip
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # "all threads": the child has one
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": SPEC_ALLOW,
}
_ARCHITECTURES = {
    f"SCMP_ARCH_{name}": f"SCMP_ARCH_{name}"
    for name in (
        "X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64",
        "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390",
        "S390X", "PARISC", "PARISC64", "RISCV64", "SH", "SHEB",
    )
}  # fmt: skip


# ---- reading


def parse_profile(text: str, path: str = "linux.seccomp") -> Profile:
    """The profile that JSON ``text`` describes; ``path`` is where it stands in its file.

    Raises UsageError naming the JSON path of what is wrong or unsupported.
    """
    import json

    try:
        top = _Json(json.loads(text), path)
    except (ValueError, RecursionError) as wrong:
        raise UsageError(f"{path}: not JSON: {wrong}") from wrong
    listed = tuple(one.word(_ARCHITECTURES) for one in top["architectures"].items())
    by_machine = tuple(
        (
            entry["architecture"].word(_ARCHITECTURES),
            tuple(one.word(_ARCHITECTURES) for one in entry["subArchitectures"].items()),
        )
        for entry in top["archMap"].items()
    )
    if listed and by_machine:
        top["archMap"].fail("cannot stand beside architectures: use one of them")
    flags = SPEC_ALLOW if top["flags"].value is None else 0
    for flag in top["flags"].items():
        flags |= flag.word(_FLAGS)
    rules: list[Rule] = []
    for entry in top["syscalls"].items():
        rules += _rules(entry)
    default = _verdict(top, "defaultAction", "defaultErrnoRet", "defaultErrno")
    return Profile(default, tuple(rules), listed, by_machine, flags)


def _rules(entry: _Json) -> list[Rule]:
    names = tuple(name.text() for name in entry["names"].items())
    if entry["name"].value is not None:  # docker's of old
        if names:
            entry["name"].fail("cannot stand beside names: use one of them")
        names = (entry["name"].text(),)
    if not names:
        entry["names"].fail("must name at least one system call")
    verdict = _verdict(entry, "action", "errnoRet", "errno")
    includes, excludes = _when(entry["includes"]), _when(entry["excludes"])
    args = tuple(
        Arg(
            arg["index"].number(5),
            arg["op"].word(_OPERATORS),
            arg["value"].number(2**64 - 1),
            arg["valueTwo"].number(2**64 - 1, absent=0),
        )
        for arg in entry["args"].items()
    )
    args = tuple(arg for arg in args if arg.value or arg.op != "&==")  # no bits: no condition
    # Conditions mean "and", but two on the same argument mean "or" to runc, whose library cannot
    # say "and" there (runc issue 2735); profiles are written for that.
    same = len({arg.index for arg in args}) < len(args)
    together = [(arg,) for arg in args] if same else [args]
    return [Rule(names, verdict, conditions, includes, excludes) for conditions in together]


def _verdict(node: _Json, action: str, number: str, name: str) -> int:
    if node[action].value == "SCMP_ACT_NOTIFY":
        node[action].fail("SCMP_ACT_NOTIFY is not supported: there is no agent to ask")
    verdict: int = node[action].word(_ACTIONS)
    code = errno.EPERM
    if verdict not in (bpf.ERRNO, bpf.TRACE):
        for given in (node[number], node[name]):
            if given.value is not None:
                given.fail(f"{node[action].value} carries no errno")
        return verdict
    if node[number].value is not None:
        code = node[number].number(4095 if verdict == bpf.ERRNO else 65535)
    if node[name].value is not None:
        code = node[name].word({word: value for value, word in errno.errorcode.items()})
    return verdict | code


def _when(node: _Json) -> When:
    version = None
    if node["minKernel"].value:
        major, _, minor = node["minKernel"].text().partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            node["minKernel"].fail("must be a version such as 4.8")
        version = (int(major), int(minor))
    caps, arches = node["caps"].items(), node["arches"].items()
    return When(tuple(cap.text() for cap in caps), tuple(arch.text() for arch in arches), version)


class _Json:
    """A JSON value that knows its path.  What is absent and what is null are alike, as in Go."""

    def __init__(self, value: Any, path: str) -> None:
        self.value = value
        self.path = path

    def fail(self, what: str) -> NoReturn:
        raise UsageError(f"{self.path}: {what}")

    def __getitem__(self, key: str) -> _Json:
        if self.value is not None and not isinstance(self.value, dict):
            self.fail("must be an object")
        return _Json((self.value or {}).get(key), f"{self.path}.{key}")

    def items(self) -> list[_Json]:
        if self.value is not None and not isinstance(self.value, list):
            self.fail("must be an array")
        return [_Json(one, f"{self.path}[{i}]") for i, one in enumerate(self.value or [])]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value:
            self.fail("is missing" if self.value is None else "must be a string, not empty")
        return self.value

    def number(self, most: int, absent: int | None = None) -> int:
        if self.value is None and absent is not None:
            return absent
        if type(self.value) is not int or not 0 <= self.value <= most:
            self.fail(f"must be a whole number from 0 to {most}")
        return self.value

    def word(self, table: dict[str, Any]) -> Any:
        if self.text() not in table:
            self.fail(f"{self.value!r} is not one of {', '.join(table)}")
        return table[self.value]
