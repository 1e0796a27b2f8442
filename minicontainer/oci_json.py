"""JSON that knows where it is: every complaint about a config.json names the path it means.

    Json(value, "process.args").texts()     ("sh", "-c", "id"), or UsageError:
                                            config.json: process.args must be a list of strings

What is absent and what is null are alike, as they are to the Go programs that write these files.
A value of the wrong type is never bent into the right one: "1" is no number, 1 is no boolean.

Specs: RFC 8259 (JSON); runtime-spec, config.md.
"""

from __future__ import annotations

from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from typing import Any, NoReturn

LAST_ID = 0xFFFFFFFE  # the id after it, -1, means "leave unchanged" to chown(2) and setresuid(2)


class Json:
    """A value of the file, and its path: ``Json(value, "linux")["devices"]`` is "linux.devices".

    Every method raises UsageError, naming the path, for a value that is not what it returns."""

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self.path = path

    @classmethod
    def parse(cls, text: str) -> Json:
        """The whole of a config.json."""
        import json

        def refuse(word: str) -> NoReturn:
            raise ValueError(f"{word} is no JSON number")

        try:
            value = json.loads(text, parse_constant=refuse)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"config.json: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise UsageError("config.json: must hold an object: {...}")
        return cls(value)

    def fail(self, what: str, hint: str = "") -> NoReturn:
        """Raise UsageError about this value."""
        raise UsageError(f"config.json: {self.path} {what}", hint)

    @property
    def absent(self) -> bool:
        """Is it not there, or null?"""
        return self.value is None

    def __getitem__(self, key: str) -> Json:
        if self.value is None:
            return Json(None, self._below(key))
        if not isinstance(self.value, dict):
            self.fail("must be an object")
        return Json(self.value.get(key), self._below(key))

    def members(self) -> Iterator[tuple[str, Json]]:
        """An object's members with their names; none if it is absent."""
        if self.value is not None and not isinstance(self.value, dict):
            self.fail("must be an object")
        for key, value in (self.value or {}).items():
            if not _is_plain(key):
                self.fail("has a name in it that is not valid text")
            yield key, Json(value, self._below(key))

    def items(self, of: str = "objects") -> list[Json]:
        """A list's items; none if it is absent."""
        if self.value is not None and not isinstance(self.value, list):
            self.fail(f"must be a list of {of}")
        return [Json(item, f"{self.path}[{n}]") for n, item in enumerate(self.value or ())]

    def text(self, default: str | None = None, among: Container[str] = ()) -> str:
        """A string, one of ``among`` if that is not empty; absent: ``default``, if there is one."""
        if self.value is None and default is not None:
            return default
        if self.value is None:
            self.fail("is missing")
        if not isinstance(self.value, str):
            self.fail("must be a string")
        if not _is_plain(self.value):
            self.fail("must not hold a NUL byte or half a character")
        if among and self.value not in among:
            self.fail(f"is {self.value!r}, which is none of: {', '.join(sorted(among))}")  # type: ignore[call-overload]
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of strings; absent: ()."""
        items = self.items("strings")
        if not all(isinstance(item.value, str) for item in items):
            self.fail("must be a list of strings")
        return tuple([item.text() for item in items])

    def boolean(self) -> bool:
        """true or false; absent: False."""
        if self.value is not None and not isinstance(self.value, bool):
            self.fail("must be true or false")
        return bool(self.value)

    def integer(self, low: int, high: int, default: int | None = None) -> int:
        """A whole number from ``low`` to ``high``; absent: ``default``, if there is one."""
        if self.value is None and default is not None:
            return default
        if self.value is None:
            self.fail("is missing")
        # true is an int to Python, and 1.0 equals 1; neither is a whole number in JSON's eyes
        if type(self.value) is not int:
            self.fail("must be a whole number")
        if not low <= self.value <= high:
            self.fail(f"is {self.value}, which is not in [{low}, {high}]")
        return self.value

    def identifier(self, default: int | None = None) -> int:
        """A user or group id."""
        return self.integer(0, LAST_ID, default)

    def absolute(self) -> str:
        """A path that begins with "/", made plain: no "//", ".", ".." (as text)."""
        import os

        path = self.text()
        if not path.startswith("/"):
            self.fail(f"must be an absolute path, not {path!r}")
        return os.path.normpath("/" + path.lstrip("/"))

    def refuse_what_it_says(self) -> None:
        """Refuse the first thing below that asks for something: zeros and empties ask nothing."""
        if isinstance(self.value, dict):
            for _, member in self.members():
                member.refuse_what_it_says()
        elif not says_nothing(self.value):
            self.fail("is not supported yet")

    def _below(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def says_nothing(value: Any) -> bool:
    """Is it null, 0, false, "" or holds nothing but such?  Go programs write these for "unset"."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return all(says_nothing(item) for item in value)
    return not value


def _is_plain(text: str) -> bool:
    """Can C and the kernel take it?  JSON can spell NUL and halves of surrogate pairs."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
