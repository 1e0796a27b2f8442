"""What a Spec must not say: wishes that contradict each other or would change the host.

Each field is fine alone; these checks look at several.  Most of them ask the same question: does
the namespace exist that keeps this from the host?  A host name without a uts namespace renames
the host, a sysctl without its namespace turns the host's switch, and a root without a mount
namespace would be the host's new root.

``plan`` calls this first, so it holds for every entrance.  Fields go by their names in
runtime-spec's config.md and config-linux.md.
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.kernel.sysctl import owner
from minicontainer.spec import IdMap, Spec

_LAST_ID = 0xFFFFFFFE


def validate(spec: Spec) -> None:
    """Raise UsageError where ``spec`` contradicts itself or reaches out of the container."""
    own = {namespace.type for namespace in spec.linux.namespaces if not namespace.path}
    joined = {namespace.type for namespace in spec.linux.namespaces if namespace.path}
    if "mount" not in own:
        raise UsageError(
            "linux.namespaces must have one of type mount, without a path",
            "without it the container's mounts and its root would become the host's",
        )
    for kind in ("user", "time"):
        if kind in joined:
            raise UsageError(f"linux.namespaces: joining a {kind} namespace is not supported yet")
    if joined and "user" in own:
        # root of the new user namespace would have no say over those that were there before it
        raise UsageError(
            "linux.namespaces: a user namespace of its own and a path to join "
            f"({', '.join(sorted(joined))}) together are not supported yet"
        )
    _names(spec, own | joined)
    _ids(spec, "user" in own)
    if spec.linux.time_offsets and "time" not in own:
        raise UsageError("linux.timeOffsets needs a time namespace of the container's own")
    for key, _ in spec.linux.sysctl:
        if (kind := owner(key)) not in own | joined:
            raise UsageError(
                f"linux.sysctl: {key} needs a namespace of type {kind}: here it is the host's"
            )
    for field, value in (
        ("apparmorProfile", spec.process.apparmor_profile),
        ("selinuxLabel", spec.process.selinux_label),
    ):
        if value:
            raise UsageError(f"process.{field} is not supported yet")


def _names(spec: Spec, private: set[str]) -> None:
    for field, name in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if name and "uts" not in private:
            raise UsageError(f"{field} needs a namespace of type uts: else it renames the host")
        if len(name.encode()) > 64:  # include/uapi/linux/utsname.h, __NEW_UTS_LEN
            raise UsageError(f"{field}: the kernel's limit is 64 bytes")


def _ids(spec: Spec, user: bool) -> None:
    """The maps, and that the ids of the process are in them."""
    process = spec.process.user
    for field, maps, ids in (
        ("uidMappings", spec.linux.uid_mappings, (process.uid,)),
        ("gidMappings", spec.linux.gid_mappings, (process.gid, *process.additional_gids)),
    ):
        if not user:
            if maps:
                raise UsageError(f"linux.{field} needs a user namespace of the container's own")
            continue
        if not maps:
            raise UsageError(f"linux.{field} is missing: a user namespace needs it")
        _ranges(field, maps)
        if not _maps(maps, 0):
            raise UsageError(
                f"linux.{field} leaves id 0 out, which is not supported yet",
                "the steps that furnish the container are made by its root",
            )
        for number in ids:
            if not process.username and not _maps(maps, number):
                raise UsageError(f"process.user: id {number} is not in linux.{field}")


def _ranges(field: str, maps: tuple[IdMap, ...]) -> None:
    if len(maps) > 340:
        raise UsageError(f"linux.{field}: the kernel takes at most 340 ranges")
    for index, one in enumerate(maps):
        if one.size < 1 or max(one.container_id, one.host_id) + one.size - 1 > _LAST_ID:
            raise UsageError(f"linux.{field}[{index}] is empty or goes beyond id {_LAST_ID}")
        for other in maps[:index]:
            inside = one.container_id - other.container_id
            outside = one.host_id - other.host_id
            if -one.size < inside < other.size or -one.size < outside < other.size:
                raise UsageError(f"linux.{field}[{index}] maps an id a second time")


def _maps(maps: tuple[IdMap, ...], number: int) -> bool:
    return any(0 <= number - one.container_id < one.size for one in maps)
