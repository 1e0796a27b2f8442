"""``minicontainer run``: the whole way from a command line to a container, on one page.

    read the flags      every bad value is found here, before anything is fetched or made
    find the image      in the store, in an archive, by recipe
    compose             image + flags -> Spec
    perform             Spec -> plan -> processes; or only show the plan

What goes wrong is raised, and ``cli/main.py`` prints it.
"""

from __future__ import annotations

import os
import sys

from minicontainer.cli.output import say
from minicontainer.cli.request import Request, read
from minicontainer.errors import ImageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from minicontainer.spec import Spec


def run_command(words: Sequence[str]) -> int:
    """Run the words after ``run``; the exit status.  Raises MinicontainerError and its kin."""
    container_id = os.urandom(32).hex()
    request = read(words, container_id, os.environ)
    if request.help:
        from minicontainer.cli.runflags import RUN

        print(RUN.help(), end="")
        return 0
    check_here(request)
    spec, held = (bundle_spec if request.bundle else image_spec)(request, container_id)
    if request.make_sources and not (request.dry_run or request.as_shell):
        from minicontainer.host import make_sources

        make_sources(request.make_sources)
    with CidFile(request.cidfile, container_id) as cidfile:

        def started() -> None:
            """The container runs and is on record: its id stays, its layers are safe."""
            cidfile.keep()
            if held >= 0:
                os.close(held)

        return perform(request, spec, container_id, started)


def check_here(request: Request) -> None:
    """What only this machine and this terminal can tell, still before anything is made.

    Raises UsageError."""
    if not request.bundle:
        from minicontainer.image.reference import parse

        parse(request.image)
    if request.need_sources:
        from minicontainer.host import check_sources

        check_sources(request.need_sources)
    if request.cidfile and os.path.lexists(request.cidfile):
        raise UsageError(
            "container ID file found, make sure the other container isn't running or delete "
            + request.cidfile
        )
    if request.dry_run or request.as_shell:
        return
    if request.interactive and request.options.terminal:
        from minicontainer.console import require_terminal

        require_terminal()
    if os.geteuid() != 0:
        raise UsageError("run needs root", "sudo minicontainer run ...")


def image_spec(request: Request, container_id: str) -> tuple[Spec, int]:
    """The Spec of a container made from the image that was named, and the store's lock: until it
    is closed, `rmi` takes no layer away.  Raises ImageError."""
    from minicontainer.compose import compose
    from minicontainer.image.sources import find
    from minicontainer.image.store import Store

    quiet, store = request.quiet, Store()
    image = find(
        store, request.image, pull=request.pull, platform=request.platform,
        say=(lambda text: None) if quiet else say,
    )  # fmt: skip
    held = store.hold()
    if not all(os.path.isdir(layer) for layer in image.layers):
        raise ImageError(f"{request.image} was removed from the store just now", "try again")
    host = None
    if "host" in (request.options.network, request.options.uts):
        from minicontainer.host import read_host

        host = read_host()
    spec = compose(image, request.options, container_id, host)
    if not (request.network_given or quiet or request.dry_run or request.as_shell):
        say(
            "no network but loopback: bridges are not supported yet "
            "(use --network none to silence this)"
        )
    return spec, held


def bundle_spec(request: Request, container_id: str) -> tuple[Spec, int]:
    """The Spec in an OCI bundle's config.json.  Raises UsageError that names the JSON path."""
    from minicontainer.oci import spec_from_bundle

    return spec_from_bundle(request.bundle, container_id, warn), -1


def perform(request: Request, spec: Spec, container_id: str, started: Callable[[], None]) -> int:
    """Run the container, or show how it would be made; the exit status.

    THE one place where the command line meets the runtime."""
    from minicontainer.runtime import plan_for, run

    if request.dry_run or request.as_shell:
        stdio = (0 if request.interactive else -1, 1, 2)
        plan = plan_for(spec, container_id, stdio, request.without, request.i_know)
        if request.as_shell:
            from minicontainer.asshell import script as show
        else:
            from minicontainer.story import render as show
        sys.stdout.write(show(plan))
        return 0
    narrator = None
    if request.explain is not None or request.pause:
        from minicontainer.narrate import make_explainer

        level = 1 if request.explain is None else request.explain
        narrator = make_explainer(level, request.pause, request.explain_format)
    name = request.name
    if not name:
        from minicontainer.cli.names import name_for

        name = name_for(container_id)
    return run(
        spec, container_id=container_id, name=name, image=request.image or request.bundle,
        interactive=request.interactive, without=request.without, i_know=request.i_know, warn=warn,
        narrator=narrator, started=started, ended=say,
    )  # fmt: skip


class CidFile:
    """docker's --cidfile: the id in a file that was not there before; removed again unless the
    container has started.  An empty path is no file."""

    def __init__(self, path: str, container_id: str) -> None:
        self.path = path
        self.id = container_id
        self.kept = False

    def keep(self) -> None:
        """The container runs: the file stays."""
        self.kept = True

    def __enter__(self) -> CidFile:
        if self.path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                fd = os.open(self.path, flags, 0o644)
            except OSError as error:
                raise UsageError(
                    f"failed to create the container ID file {self.path}: {error.strerror}"
                ) from None
            os.write(fd, self.id.encode())
            os.close(fd)
        return self

    def __exit__(self, *error: object) -> None:
        if self.path and not self.kept:
            os.unlink(self.path)


def warn(text: str) -> None:
    """Something is not quite as asked for, and not an error."""
    say(f"warning: {text}")
