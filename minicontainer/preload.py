"""Preload: what `run` imports, in one file, in the order in which it can be executed.

An import is more than running a module: folders of the path are searched, dates compared, names
entered in half a dozen tables.  That takes some 300 000 instructions before the module's first line
(callgrind), and `run` imports more than sixty.  So the installer writes their bytecode one behind
the other, each after those it imports, and the launcher executes it from top to bottom: every
``import`` in it then finds what it wants in ``sys.modules``.

That file is a copy.  If one of the sources has another size or date than the one it was made of,
or if there is none, or it cannot be read, nothing is loaded, and imports do their work.

By hand:   rm minicontainer/__pycache__/run.*.preload      (make install brings it back)
Sources:   docs.python.org/3/reference/import.html, docs.python.org/3/library/marshal.html
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

#: whatever these import is in the file; a test compares it with what a real `run` loads
ROOTS = (
    "cli.main", "cli.run", "cli.names", "compose", "image.sources", "image.store", "image.ready",
    "runtime", "signals", "kernel.seccomp_cache", "kernel.limitevents",
)  # fmt: skip

_HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.dirname(_HERE)
#: bytecode is one Python's own, so the file is named after it
FILE = f"{_HERE}/__pycache__/run.{sys.implementation.cache_tag}.preload"


def load(file: str, folder: str) -> bool:
    """Execute the file, unless it is not what an import would find in ``folder``, where the package
    is; was it executed?

    tools/install writes this function into the launcher, word for word: it imports for itself."""
    import marshal
    import os
    import sys

    try:
        with open(file, "rb", 0) as stream:
            entries = marshal.loads(stream.read())
        for _, source, size, date, _, _ in entries:
            status = os.stat(f"{folder}/{source}")
            if (status.st_size, status.st_mtime_ns) != (size, date):
                return False
    except (OSError, ValueError, EOFError, TypeError):
        return False
    modules, new_module, new_spec = sys.modules, type(sys), type(sys.__spec__)
    for name, source, _, _, package, code in entries:
        module, source = new_module(name), f"{folder}/{source}"
        parent, _, last = name.rpartition(".")
        spec = new_spec(name, None, origin=source, is_package=package)
        module.__spec__, module.__file__ = spec, source
        module.__package__ = name if package else parent
        if package:  # other modules of it are found in its folder, as usual
            module.__path__ = spec.submodule_search_locations = [os.path.dirname(source)]
        modules[name] = module
        exec(code, module.__dict__)
        if parent:
            setattr(modules[parent], last, module)
    return True


def write(file: str = FILE) -> None:
    """Make the file.  In a fresh interpreter: what is imported already has lost its order."""
    import marshal
    from importlib import import_module
    from importlib.machinery import SourceFileLoader

    ready = ["minicontainer"]  # and done
    execute = SourceFileLoader.exec_module

    def noting(self: SourceFileLoader, module: ModuleType) -> None:
        execute(self, module)
        ready.append(module.__name__)

    SourceFileLoader.exec_module = noting  # type: ignore
    for root in ROOTS:
        import_module(f"minicontainer.{root}")
    entries = []
    for name in ready:
        spec = sys.modules[name].__spec__
        if name.partition(".")[0] != "minicontainer" or spec is None:
            continue
        assert isinstance(spec.loader, SourceFileLoader) and spec.origin
        status = os.stat(spec.origin)
        package = spec.submodule_search_locations is not None
        code = spec.loader.get_code(name)
        # A checkout may be moved or copied: what counts is what lies beside this very file.
        source = os.path.relpath(spec.origin, FOLDER)
        entries.append((name, source, status.st_size, status.st_mtime_ns, package, code))
    fresh = f"{file}.{os.getpid()}"
    with open(fresh, "wb") as stream:
        stream.write(marshal.dumps(entries))
    os.replace(fresh, file)


if __name__ == "__main__":
    write()
