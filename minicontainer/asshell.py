"""asshell: the same container by hand, as a script for sh(1), unshare(1), mount(8), setpriv(1).

``run --as-shell`` prints it.  It is made of what each Step says of itself: ``shell`` (lines),
``shell_prefix`` (a command that goes in front of what comes later) and ``shell_undo``; nothing here
knows what any step does.  The parts stand where ``launch.py`` would run them:

    the host's lines                              before the clone
    unshare ... sh -c "$inside"                   the clone; all its prefixes as one command
    the host's lines, in the background           while the child waits for GO
    the container's lines, kept in $inside
    exec PREFIX... PROGRAM                        the last step

A shell lacks two things.  It has no openat2(2), so the script refuses to follow a link out of the
new root.  And behind pivot_root(8) its tools are gone, for the image may have none: copies of the
host's, with the libraries they need, wait in a directory that stays open as descriptor 9.
"""

from __future__ import annotations

from minicontainer.libc import SYSCALLS
from minicontainer.step import Plan, Step, quote
from minicontainer.story import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# Several of these in a row do the same as one with all the flags.
_ONE = ("unshare", "setpriv")

# The last link of the chain does what `env -i` does.  env(1) itself would have to be found through
# descriptor 9, and a program that still has it open must not be given the image's LD_PRELOAD.
_LAST = (
    f"syscall({SYSCALLS['close_range']}, 3, 0xffffffff, 4) and die qq(close_range: $!\\n); "
    "%ENV = (); while (@ARGV and $ARGV[0] =~ /^([^=]*)=(.*)/s) { $ENV{$1} = $2; shift } "
    "exec { $ARGV[0] } @ARGV; $e = $! + 0; print STDERR qq(exec $ARGV[0]: $!\\n); "
    "exit($e == 2 ? 127 : 126)"
)

_START = """\
#!/bin/sh
# The container that minicontainer would make, by hand.  Run it as root.
# The comments are the steps of the plan; "minicontainer run --explain" tells why each is there.
set -eu
umask 022
export LC_ALL=C
[ "$(id -u)" = 0 ] || { echo "this needs root: sudo sh $0" >&2; exit 125; }
TOOLS=$(mktemp -d); export TOOLS
reached=0 child= helper=
undo() {
status=$?
trap - EXIT INT TERM HUP
set +e
[ -z "$child$helper" ] || kill -KILL $child $helper 2> /dev/null
%s
rm -rf "$TOOLS"
exit $status
}
trap undo EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Behind pivot_root no name leads to the host's tools: these come along, with their libraries.
chmod 755 "$TOOLS"
for tool in mount umount pivot_root mkdir chown hostname domainname setsid prlimit setpriv env perl
do
  path=$(command -v $tool) || continue
  cp -L "$path" "$TOOLS/$tool"
  for library in $(ldd "$path" | grep -o '/[^ ]*'); do
    case $library in
      */ld[-.]* | */ld64*) cp -L "$library" "$TOOLS/ld.so" ;;
      *) cp -L "$library" "$TOOLS/" ;;
    esac
  done
done
# 8: our input, which a shell takes from what it runs in the background; 9: the way to the tools
exec 8<&0 9< "$TOOLS"
"""

_INSIDE = """\
set -eu
T=/proc/self/fd/9
L="$T/ld.so --library-path $T"
# No symbolic link of the image may lead what we make or mount out of the new root.
stay_inside() {
  for last; do :; done
  case $last in "${ROOT:-/nowhere}"/*) ;; *) return 0 ;; esac
  case $(realpath -m -- "$last") in
    "$(realpath -- "$ROOT")"/*) ;;
    *) echo "$last leads out of the new root: refused" >&2; exit 125 ;;
  esac
}
for tool in mount umount pivot_root mkdir chown hostname domainname; do
  eval "$tool() { stay_inside \\"\\$@\\"; $L $T/$tool \\"\\$@\\"; }"
done
for tool in touch mknod ln; do
  eval "$tool() { stay_inside \\"\\$@\\"; command $tool \\"\\$@\\"; }"
done
"""

_HELPER = """\
mkfifo "$TOOLS/pid" "$TOOLS/go"
(
trap 'echo "${go-STOP}" > "$TOOLS/go"' EXIT
read -r PID < "$TOOLS/pid"
%s
go=GO
) &
helper=$!
"""

# What the child does meanwhile; /proc is still the host's, so "self" is the host's number.
_WAIT = """\
read -r pid rest < /proc/self/stat; echo $pid > "$TOOLS/pid"
read -r go < "$TOOLS/go"; [ "$go" = GO ] || exit 125; exec "$@"\
"""

_CLONE = """\
(
%s
exec %s \\
  sh -c "$inside"
) <&8 8<&- &
child=$!
wait $child && status=0 || status=$?
child=
exit $status
"""


def script(plan: Plan) -> str:
    """The script that makes the plan's container; for sh(1) as POSIX has it, run by root.

    Raises UsageError for a seccomp profile that cannot be meant."""
    number = {id(step): f"[{index}/{len(plan)}]" for index, step in enumerate(plan, 1)}

    def told(steps: list[Step]) -> str:
        """The steps' lines, each under its title."""
        return "\n".join(_told(step, number[id(step)]) for step in steps)

    before, clone, inside = plan.before_clone(), plan.clone(), plan.container()
    # A script's child shares no memory with it, so the host need not do anything later than here.
    after = [*plan.after_clone(), *plan.before_program()]
    # A prefix before the container's first own line concerns that line too.
    first = next((i for i, step in enumerate(inside) if step.shell()), len(inside) - 1)
    entrance = joined(step.shell_prefix() for step in (*before, *clone))
    helper = ""
    if any(step.shell() for step in after):
        helper = _HELPER % told(after)
        entrance.append(quote("sh", "-c", _WAIT, "sh"))
    entrance += joined(step.shell_prefix() for step in inside[:first])
    chain = [f"$L $T/{prefix}" for prefix in joined(s.shell_prefix() for s in inside[first:-1])]
    program = inside[-1].shell_prefix().removeprefix("env -i ")
    chain.append(f"$L $T/perl -e {quote(_LAST)} -- \\\n  {program}")
    exec_ = "exec \\\n  " + " \\\n  ".join(chain)

    undo = ""
    for index, step in reversed([*enumerate((*before, *after), 1)]):
        if lines := step.shell_undo():
            undo += f'if [ "$reached" -ge {index} ]; then\n{lines}\nfi\n'
    start = _START % undo.rstrip()
    return "\n".join(
        (
            start,
            "# ---- on the host",
            *(f"{told([step])}\nreached={index}" for index, step in enumerate(before, 1)),
            "",
            "# ---- in the container: run by the shell that the clone below starts",
            here_document("inside", f"{_INSIDE}\n{told(inside)}\n{exec_}"),
            "",
            "# ---- on the host, while the child waits" if helper else "",
            helper,
            "# ---- the clone",
            _CLONE % (told(clone), " \\\n  ".join(entrance)),
        )
    )


def _told(step: Step, number: str) -> str:
    """A step's title as a comment, and its lines."""
    title = f"# {number} {printable(step.title())}"
    lines, prefix = step.shell(), step.shell_prefix()
    if prefix:
        title += f": {prefix.split()[0]}, below"
    elif not lines:
        title += " (no command does this)"
    return f"{title}\n{lines}" if lines else title


def joined(prefixes: Iterable[str]) -> list[str]:
    """The prefixes in order; several unshares (or setprivs) as one, at the place of the last."""
    chain: list[str] = []
    for prefix in filter(None, prefixes):
        command, _, flags = prefix.partition(" ")
        if command in _ONE:
            same = [link for link in chain if link.startswith(command + " ")]
            chain = [link for link in chain if link not in same]
            prefix = " ".join((*same, flags)) if same else prefix
        chain.append(prefix)
    return chain


def here_document(variable: str, text: str) -> str:
    """Shell lines that set ``variable`` to ``text``, which no line of the text can cut short."""
    end = variable.upper()
    while end in text.split("\n"):
        end += "_"
    return f"{variable}=$(cat << '{end}'\n{text}\n{end}\n)"
