"""State: one small directory per living container, so that nothing is ever lost or left behind.

    /run/minicontainer/                MINICONTAINER_RUN
        lock                           held for the moment of claiming and sweeping
        names/NAME -> ID               one container per name
        ID/lock                        held (flock(2)) by the runtime as long as it lives
        ID/state                       what there is to clean and to show: "key value" lines

The kernel drops a lock when its holder dies, however it dies.  So a directory whose lock is free
belongs to a runtime that was killed, and the next command sweeps it: ends what still runs, by pid
*and* start time, for a pid alone may mean someone else by now; removes the cgroup and the upper
directory; and says so.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select

from minicontainer.errors import UsageError
from minicontainer.kernel import cgroup, process
from minicontainer.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GONE = ".gone"  # a directory that is being removed


def run_root() -> str:
    """Where the state lies: MINICONTAINER_RUN, or /run/minicontainer (gone after a reboot)."""
    return os.environ.get("MINICONTAINER_RUN") or "/run/minicontainer"


def data_root() -> str:
    """Where images and upper directories lie: MINICONTAINER_ROOT, or /var/lib/minicontainer."""
    return os.environ.get("MINICONTAINER_ROOT") or "/var/lib/minicontainer"


def scratch(container_id: str) -> str:
    """The directory of what a container writes: its upper directory and what goes with it."""
    return f"{data_root()}/containers/{container_id}"


def start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot: proc_pid_stat(5), field 22; "" if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the second field is the program's name in parentheses, and may hold anything
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Claim:
    """A container's directory under the state root, held by this process until released."""

    def __init__(self, container_id: str, name: str, fd: int) -> None:
        self.id = container_id
        self.name = name
        self.directory = os.path.join(run_root(), container_id)
        self.fd = fd  # the lock: whoever holds a copy keeps the container from being swept

    def write(self, **facts: str) -> None:
        """Append facts that a sweep or an observer needs; a line that was cut off is ignored."""
        append(self.id, **facts)

    def release(self, clean: bool = True) -> None:
        """The container is gone: remove the directory and free the name.

        Not ``clean``: something is left of it.  The directory stays, for the next sweep to try."""
        if clean:
            _forget(self.id, self.name)
        _unlock(self.fd)


def append(container_id: str, **facts: str) -> None:
    """Add facts to what is on record of a container; anyone may who has something to tell of it.

    Raises FileNotFoundError if it is gone."""
    lines = "".join(f"{key} {value}\n" for key, value in facts.items())
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    fd = os.open(f"{run_root()}/{container_id}/state", flags, 0o600)
    os.write(fd, lines.encode())
    os.close(fd)


def claim(container_id: str, name: str, say: Callable[[str], None]) -> Claim:
    """Sweep what dead runtimes left, then take the name and make the directory, locked.

    Raises UsageError when a living container has the name or the id."""
    root = run_root()
    os.makedirs(root + "/names", mode=0o711, exist_ok=True)
    everyone = _lock(root + "/lock")
    try:
        sweep(say)
        # The directory first: by it a sweep finds the name of a runtime that was killed here.
        try:
            os.mkdir(f"{root}/{container_id}", 0o700)
        except FileExistsError:
            raise UsageError(
                f"the container id {container_id} is already in use", "end that container first"
            ) from None
        held = Claim(container_id, name, _lock(f"{root}/{container_id}/lock"))
        try:
            if name:
                held.write(name=name)
                _take_name(container_id, f"{root}/names/{name}")
        except BaseException:
            held.release()
            raise
        return held
    finally:
        _unlock(everyone)


def _take_name(container_id: str, link: str) -> None:
    """symlink(2); a link to a container that is no more is in nobody's way."""
    while True:
        try:
            os.symlink(container_id, link)
            return
        except FileExistsError:
            pass
        try:
            other = os.readlink(link)
            if os.path.lexists(f"{run_root()}/{other}"):
                raise UsageError(
                    f'the container name "{os.path.basename(link)}" is already in use by container '
                    + other[:12],
                    "choose another --name, or end that container first",
                )
            os.unlink(link)
        except FileNotFoundError:
            continue  # it ended just now


def sweep(say: Callable[[str], None]) -> None:
    """Clean up after runtimes that were killed; the caller holds the state root's lock."""
    root = run_root()
    for entry in os.listdir(root):
        if entry in ("lock", "names"):
            continue
        if entry.endswith(GONE):
            try:
                remove_tree(os.path.join(root, entry))
            except OSError:
                pass  # whoever put it aside is removing it, too
            continue
        try:
            fd = os.open(f"{root}/{entry}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            if not os.path.lexists(f"{root}/{entry}"):
                continue  # it ended, and was released between our open and our lock
            try:
                _clean(entry)
                say(f"cleaned up after container {entry[:12]}, whose runtime was killed")
            except OSError as uncleaned:  # is something mounted in it?  Others must go on
                say(f"cannot clean up after container {entry[:12]}: {uncleaned}")
        finally:
            os.close(fd)


def read_facts(container_id: str) -> dict[str, str]:
    """What a container's runtime has written so far; empty if there is no such container.

    Of a fact that was written twice, the last counts."""
    facts: dict[str, str] = {}
    try:
        with open(f"{run_root()}/{container_id}/state", errors="replace") as file:
            for line in file:
                if line.endswith("\n"):
                    key, _, value = line[:-1].partition(" ")
                    facts[key] = value
    except FileNotFoundError:
        pass
    return facts


def all_facts(say: Callable[[str], None]) -> dict[str, dict[str, str]]:
    """The facts of every container on record, by id, after a sweep.

    Raises PermissionError for whoever may not read them."""
    root = run_root()
    if not os.path.isdir(root):
        return {}
    everyone = _lock(root + "/lock")
    try:
        sweep(say)  # as every command does
        entries = [e for e in os.listdir(root) if e not in ("lock", "names")]
    finally:
        _unlock(everyone)
    return {e: facts for e in entries if not e.endswith(GONE) and (facts := read_facts(e))}


def _clean(container_id: str) -> None:
    """End and remove all that the state file of a dead runtime names."""
    facts = read_facts(container_id)
    pid, _, started = facts.get("process", "").partition(" ")
    if pid:
        _end(int(pid), started)
    if "cgroup" in facts:
        cgroup.remove(facts["cgroup"])
    if "scratch" in facts:
        remove_tree(facts["scratch"])
    _forget(container_id, facts.get("name", ""))


def _end(pid: int, started: str) -> None:
    """SIGKILL the process if it is still the one that started then, and sleep until it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Opened first, compared after: from here the descriptor means this very process.
        if start_time(pid) == started:
            process.kill(pidfd)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(10_000)
    finally:
        os.close(pidfd)


def _forget(container_id: str, name: str) -> None:
    root = run_root()
    if name:
        try:
            if os.readlink(f"{root}/names/{name}") == container_id:
                os.unlink(f"{root}/names/{name}")
        except FileNotFoundError:
            pass
    # Put aside first: a sweep must not find it half removed, and take it for one that was killed.
    try:
        os.rename(f"{root}/{container_id}", f"{root}/{container_id}{GONE}")
    except FileNotFoundError:
        return
    remove_tree(f"{root}/{container_id}{GONE}")


def _unlock(fd: int) -> None:
    """flock(2) LOCK_UN: a process that was forked from ours meanwhile may have a copy of ``fd``."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _lock(path: str) -> int:
    """Open (and make) a file and hold it: flock(2)."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd
