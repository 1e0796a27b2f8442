"""minicontainer: a container is just a process, in code you can read in an afternoon.

As a library:

    from minicontainer import Container, Process, Root, Spec

    spec = Spec(process=Process(args=("echo", "hello")), root=Root(layers=("/srv/rootfs",)))
    with Container(spec) as container:
        status = container.wait()

``run(spec)`` does the same in the foreground, with signals and a terminal.  ``image(name)`` finds
an image and gives its layers.  The names below are loaded when they are first used, because
importing everything would cost the command line its speed.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOMES = {
    "Container": "runtime",
    "run": "runtime",
    "plan": "plan",
    "Place": "plan",
    "MinicontainerError": "errors",
    **dict.fromkeys(
        ("Spec", "Process", "Root", "Mount", "Linux", "Namespace", "User", "Capabilities", "Rlimit",
         "IdMap", "Device", "DeviceRule", "File", "Seccomp", "TimeOffset"),
        "spec",
    ),
    **dict.fromkeys(
        ("Resources", "Memory", "Cpu", "BlockIO", "DeviceNumber", "HugepageLimit"), "resources"
    ),
}  # fmt: skip

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import a public name from its home the first time it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minicontainer' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"minicontainer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
