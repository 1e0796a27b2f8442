"""OCI bundles: a directory with a config.json and a root file system, as runc and crun run them.

    runc spec --bundle DIR            writes DIR/config.json; the root is DIR/rootfs
    minicontainer run --bundle DIR    the same container, through the same Spec and plan as others

Specs: runtime-spec, bundle.md; the file is read by oci_read.py and written by oci_write.py.
"""

from __future__ import annotations

import os

from minicontainer.errors import UsageError
from minicontainer.oci_read import parse_config
from minicontainer.oci_write import write_config as write_config
from minicontainer.spec import Spec
from minicontainer.validate import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CGROUP_PARENT = "/minicontainer"


def read_bundle(directory: str, warn: Callable[[str], None] = lambda sentence: None) -> Spec:
    """The Spec in ``directory``/config.json, all its paths absolute.

    ``warn`` is called with what is weaker than the file says.  Raises UsageError: no such file,
    or the JSON path of what is wrong, contradictory or not supported yet."""
    directory = os.path.abspath(directory)
    path = os.path.join(directory, "config.json")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UsageError(
            f"open {path}: {reason}", "a bundle is a directory with a config.json: runc spec"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"config.json: not UTF-8: {error.reason} at byte {error.start}") from None
    spec = parse_config(text, directory, warn)
    validate(spec)
    return spec


def spec_from_bundle(
    directory: str, container_id: str, warn: Callable[[str], None] = lambda sentence: None
) -> Spec:
    """The Spec to run a bundle as container ``container_id``.  Raises UsageError.

    A config.json without a cgroupsPath leaves the place to the runtime.  Ours is below the same
    parent as for images (runc takes /ID): so all that is ours is found in one place, and a name
    that someone chose can never be that of a cgroup of the system's."""
    spec = read_bundle(directory, warn)
    if not os.path.isdir(spec.root.path):
        raise UsageError(
            f"config.json: root.path: {spec.root.path} is not a directory",
            "the root file system has to be unpacked there first",
        )
    if spec.linux.cgroups_path:
        return spec
    linux = spec.linux.replace(cgroups_path=f"{CGROUP_PARENT}/{container_id}")
    return spec.replace(linux=linux)
