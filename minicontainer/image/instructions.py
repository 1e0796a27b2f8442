"""The instructions of a Dockerfile that change an image's configuration and nothing else.

``import -c 'CMD ["sh"]' -c 'ENV A=1'`` takes them, as docker import and docker commit do.

Reference: https://docs.docker.com/reference/dockerfile/
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.image.config import ImageConfig, check

SHELL = ("/bin/sh", "-c")


def apply(config: ImageConfig, line: str) -> ImageConfig:
    """``config`` changed by one instruction such as ``WORKDIR /srv``.  Raises UsageError."""
    word, _, rest = line.strip().partition(" ")
    name, rest = word.upper(), rest.strip()
    if not rest:
        raise UsageError(f"{line!r}: {name or 'an instruction'} needs a value")
    if name == "CMD":
        changed = config.replace(cmd=_program(rest))
    elif name == "ENTRYPOINT":
        changed = config.replace(entrypoint=_program(rest))
    elif name == "ENV":
        kept = {entry.partition("=")[0]: entry for entry in config.env}
        kept |= {key: f"{key}={value}" for key, value in _pairs(rest)}
        changed = config.replace(env=tuple(kept.values()))
    elif name == "LABEL":
        changed = config.replace(
            labels=tuple({**dict(config.labels), **dict(_pairs(rest))}.items())
        )
    elif name == "WORKDIR":
        changed = config.replace(working_dir=rest)
    elif name == "USER":
        changed = config.replace(user=rest)
    elif name == "STOPSIGNAL":
        changed = config.replace(stop_signal=rest)
    elif name == "VOLUME":
        volumes = _list(rest) or tuple(rest.split())
        changed = config.replace(volumes=tuple(dict.fromkeys(config.volumes + volumes)))
    elif name == "EXPOSE":
        ports = tuple(port if "/" in port else f"{port}/tcp" for port in rest.split())
        changed = config.replace(exposed_ports=tuple(dict.fromkeys(config.exposed_ports + ports)))
    else:
        raise UsageError(
            f"{line!r}: {name} is not an instruction that can be given here",
            "CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR can",
        )
    return check(changed)


def _program(text: str) -> tuple[str, ...]:
    """A JSON list of words is the program itself; anything else is a line for a shell."""
    return _list(text) or (*SHELL, text)


def _list(text: str) -> tuple[str, ...]:
    """A JSON list of strings; () for what is none."""
    import json

    try:
        words = json.loads(text)
    except ValueError:
        return ()
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return ()
    return tuple(words)


def _pairs(text: str) -> list[tuple[str, str]]:
    """KEY=VALUE words, quoted as for a shell; or the old form: one KEY, the rest is its value."""
    import shlex

    if "=" not in text.partition(" ")[0]:
        key, _, value = text.partition(" ")
        return [(key, value.strip())]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from None
    pairs = [word.partition("=") for word in words]
    if not all(key and equals for key, equals, _ in pairs):
        raise UsageError(f"{text!r}: not KEY=VALUE")
    return [(key, value) for key, _, value in pairs]
