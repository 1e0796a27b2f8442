"""Image names: what ``alpine`` is short for, and which names are allowed at all.

    alpine                    docker.io/library/alpine:latest
    alpine:3.20               docker.io/library/alpine:3.20
    someone/tool@sha256:...   docker.io/someone/tool, and exactly that content
    localhost:5000/tool       the registry on port 5000 of this machine

The rules are those of the container world (distribution's reference package): the part before
the first slash is a registry if it has a dot or a colon or is ``localhost``; a repository's words
are lower case; a tag has at most 128 characters.  Checked by hand, for ``re`` costs 6 ms.
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.step import Record

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"

LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
WORD = LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
HEX = frozenset("0123456789abcdef")

MAX_NAME = 200  # so that the name, with every "/" written as "%2F", can name a file
MAX_TAG = 128


class Reference(Record):
    """A name taken apart; ``str`` gives it back as short as docker prints it, tag included."""

    domain: str
    path: str  # library/alpine
    tag: str  # "" only when there is a digest
    digest: str = ""  # sha256:<64 hex digits>

    @property
    def repository(self) -> str:
        """The name less tag and digest, as short as it can be: alpine, someone/tool."""
        if self.domain != DEFAULT_DOMAIN:
            return f"{self.domain}/{self.path}"
        return self.path.removeprefix("library/")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return self.repository + tag + digest


def parse(text: str) -> Reference:
    """Take an image name apart.  Raises UsageError for what is not one."""
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _bad(text, "after @ comes sha256: and 64 hexadecimal digits")
    tag = ""
    colon = name.rfind(":")
    if colon > name.rfind("/"):  # else it is a registry's port
        name, tag = name[:colon], name[colon + 1 :]
        if not tag or len(tag) > MAX_TAG or tag[0] in ".-" or not WORD.issuperset(_plain(tag)):
            raise _bad(text, "a tag has letters, digits, _ . - and at most 128 of them")
    if not name:
        raise _bad(text, "it is empty")
    if len(name) > MAX_NAME:
        raise _bad(text[:40] + "...", f"it is longer than {MAX_NAME} characters")

    domain, slash, path = name.partition("/")
    if not slash or not ("." in domain or ":" in domain or domain == "localhost"):
        domain, path = DEFAULT_DOMAIN, name
    elif domain == "index." + DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if not _is_domain(domain):
        raise _bad(text, f"{domain!r} cannot be a registry's address")
    for word in path.split("/"):
        if not _is_path_word(word):
            raise _bad(text, "its words are lower case letters and digits, joined by . _ __ or -")
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return Reference(domain, path, tag or ("" if digest else DEFAULT_TAG), digest)


def is_digest(text: str) -> bool:
    """Whether ``text`` is ``sha256:`` and 64 hexadecimal digits."""
    return len(text) == 71 and text.startswith("sha256:") and HEX.issuperset(text[7:])


def _plain(tag: str) -> str:
    return tag.replace(".", "").replace("-", "")


def _is_domain(domain: str) -> bool:
    host, colon, port = domain.partition(":")
    words = host.lower().split(".")
    return (
        all(w and LOWER.issuperset(w.replace("-", "")) and "-" not in w[0] + w[-1] for w in words)
        and (not colon or (port.isascii() and port.isdigit()))
    )  # fmt: skip


def _is_path_word(word: str) -> bool:
    """Letters and digits, and between them one dot, one or two underlines, or any dashes."""
    if not word or word[0] not in LOWER or word[-1] not in LOWER:
        return False
    # "a.b--c" -> "0.0--0" -> ["", ".", "--", ""]
    between = "".join("0" if letter in LOWER else letter for letter in word).split("0")
    return all(b in ("", ".", "_", "__") or not b.strip("-") for b in between)


def _bad(text: str, why: str) -> UsageError:
    return UsageError(f"{text!r} is not an image name: {why}", "a name looks like alpine:3.20")
