"""``minicontainer VERB ...``: find the verb, run it, report what went wrong; once, last.

Only the module of the verb that was typed is imported: what the others need costs nothing.

Exit status, as docker-run(1): the program's own; 125 when minicontainer failed or was called
wrongly (docker answers 1 to an unknown verb; we keep to one number for "not your program's doing");
126 and 127 when the program cannot be executed or is not there; 128+n for signal n.
"""

from __future__ import annotations

import os
import sys

from minicontainer.cli.output import say
from minicontainer.errors import EXIT_RUNTIME_FAILED, MinicontainerError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HELP = """\
Usage:  minicontainer VERB ...

A container is just a process.

Verbs:
  run      Run a program in a new container made from an image
  ps       List the containers
  inspect  All about containers, as JSON
  stats    What containers use: memory, CPU, I/O, and how long they wait
  top      The processes of a container
  pause    Stop all processes of containers where they stand
  unpause  Let paused containers go on
  update   Change limits of running containers
  kill     Send a signal to containers, or end them
  cgroup   Which devices a container may use
  images   List the images in the store
  import   Make an image from an archive of a root file system
  rmi      Remove images from the store
  version  Print the version
  help     Print this

'minicontainer VERB --help' says more.  To begin with:

  minicontainer run -it alpine sh
  minicontainer run --explain alpine true
"""
VERBS = (
    "run", "ps", "inspect", "stats", "top", "pause", "unpause", "update", "kill", "cgroup",
    "images", "import", "rmi", "version", "help",
)  # fmt: skip


def entry() -> None:
    """The console script: run what was typed, and leave with its status."""
    status = main(sys.argv[1:])
    # Everything is written and closed: taking the interpreter apart would be a millisecond more.
    os._exit(status)


def main(argv: Sequence[str]) -> int:
    """Run one command line; its exit status.  Prints, and raises nothing."""
    try:
        status = command(argv)(argv[1:])
        if sys.stdout:  # None where descriptor 1 was closed before we began
            sys.stdout.flush()
        return status
    except MinicontainerError as error:
        report(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        # Whoever read our output is gone.  Say no more, least of all in Python's last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except KeyboardInterrupt:
        return 128 + 2
    except OSError as error:
        report(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return EXIT_RUNTIME_FAILED
    except Exception as error:
        import traceback

        traceback.print_exc()
        report(f"{type(error).__name__}: {error}", "this is a bug in minicontainer; please tell us")
        return EXIT_RUNTIME_FAILED


def command(argv: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """The function behind a verb.  Raises UsageError for one that does not exist."""
    verb = argv[0] if argv else "help"
    if verb == "run":
        from minicontainer.cli.run import run_command

        return run_command
    if verb in ("ps", "top"):
        from minicontainer.cli import ps

        return ps.ps_command if verb == "ps" else ps.top_command
    if verb == "inspect":
        from minicontainer.cli.inspect import inspect_command

        return inspect_command
    if verb == "stats":
        from minicontainer.cli.stats import stats_command

        return stats_command
    if verb in ("pause", "unpause", "kill"):
        from minicontainer.cli import control

        commands = {"pause": control.pause_command, "unpause": control.unpause_command}
        return commands.get(verb, control.kill_command)
    if verb == "update":
        from minicontainer.cli.update import update_command

        return update_command
    if verb == "cgroup":
        from minicontainer.cli.cgroup import cgroup_command

        return cgroup_command
    if verb == "images":
        from minicontainer.cli.images import images_command

        return images_command
    if verb == "import":
        from minicontainer.cli.images import import_command

        return import_command
    if verb == "rmi":
        from minicontainer.cli.images import rmi_command

        return rmi_command
    if verb in ("version", "--version", "-v"):
        return version_command
    if verb in ("help", "--help", "-h"):
        return help_command
    import difflib

    from minicontainer.cli import missing

    what, meanwhile = missing.verb(verb)
    if what:
        raise UsageError(
            f"{verb} is not supported yet: {what}", meanwhile or "see 'minicontainer --help'"
        )
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    what = "unknown flag" if verb.startswith("-") else "unknown command"
    raise UsageError(
        f"{what}: minicontainer {verb}", f"{hint}See 'minicontainer --help' for the commands"
    )


def version_command(words: Sequence[str]) -> int:
    """``minicontainer version``: ours, Python's and the kernel's."""
    from minicontainer import __version__

    system = os.uname()
    print(
        f"minicontainer {__version__} (python {sys.version.split()[0]}, "
        f"{system.sysname.lower()} {system.release} {system.machine})"
    )
    return 0


def help_command(words: Sequence[str]) -> int:
    """``minicontainer help [VERB]``."""
    if words and words[0] in VERBS and words[0] not in ("help", "version"):
        return command(words[:1])(["--help"])
    print(HELP, end="")
    return 0


def report(message: str, hint: str = "") -> None:
    """An error, and what to do about it, on standard error."""
    say(message + (f"\n  hint: {hint}" if hint else ""))
