"""Names of images, by Docker's grammar and with Docker's short forms. Not their resolution to an image.

    reference = [domain "/"] path [":" tag] ["@" digest]

`busybox` is short for `docker.io/library/busybox:latest`. What stands before the first slash is a domain if it has a dot, a colon
or an upper-case letter, or is `localhost`; otherwise the name is Docker Hub's.
"""

import re
from typing import Self

from lamina.dataclasses import dataclass, replace
from lamina.errors import UsageError
from lamina.model.digest import Digest, is_hex

HUB = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME_CHARACTERS = 255

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
_DOMAIN = rf"(?:{_HOST}|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PATH_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_TAG_CHARACTERS = _PATH_CHARACTERS | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_.-")
_MAX_TAG_CHARACTERS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A checked name. `domain` and `path` are always there, `library/` included where Docker Hub means it."""

    domain: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: str | None = DEFAULT_TAG) -> Self:
        """Read a name as a person types it; one with neither tag nor digest gets `default_tag`. Raise UsageError."""
        if len(text) == 64 and is_hex(text):
            raise _invalid(text, "64 hexadecimal digits are an image id, not a name")
        rest, at, digest_text = text.partition("@")
        digest = None
        if at:
            try:
                digest = Digest(digest_text)
            except UsageError as error:
                raise _invalid(text, error.message) from None
        tag = None
        colon = rest.rfind(":")
        if colon > rest.rfind("/"):
            rest, tag = rest[:colon], rest[colon + 1 :]
            if not _is_tag(tag):
                raise _invalid(text, f"{tag[:160]!r} is not a tag", "a tag is up to 128 letters, digits, '_', '.' and '-'")
        domain, path = _split_domain(rest)
        if domain != HUB and not re.fullmatch(_DOMAIN, domain):
            raise _invalid(text, f"{domain[:160]!r} is not a host name with an optional port")
        if path != path.lower():
            raise _invalid(text, "the repository name must be lowercase", f"did you mean '{text.lower()}'?")
        for part in path.split("/"):
            if not _is_path_part(part):
                raise _invalid(text, f"{part[:160]!r} can't be part of a name" if part else "a part of the name is empty")
        if len(domain) + 1 + len(path) > MAX_NAME_CHARACTERS:
            raise _invalid(text[:40] + "…", f"the name has more than {MAX_NAME_CHARACTERS} characters")
        if tag is None and digest is None:
            tag = default_tag
        return cls(domain=domain, path=path, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """The full name without tag and digest: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as short as it may be, without tag and digest: `busybox`."""
        if self.domain != HUB:
            return self.name
        first, slash, rest = self.path.partition("/")
        return rest if first == "library" and slash and "/" not in rest else self.path

    @property
    def canonical(self) -> str:
        """The full form, by which the store knows it: `docker.io/library/busybox:latest`."""
        return self.name + self._suffix

    @property
    def familiar(self) -> str:
        """The form that people see: `busybox:latest`."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag is not None else "") + (f"@{self.digest}" if self.digest is not None else "")

    def with_tag(self, tag: str) -> Self:
        """Give the same repository's name with another tag and no digest."""
        if not _is_tag(tag):
            raise _invalid(f"{self.familiar_name}:{tag}", f"{tag[:160]!r} is not a tag")
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        return self.familiar


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= _MAX_TAG_CHARACTERS and text[0] not in ".-" and _TAG_CHARACTERS.issuperset(text)


def _is_path_part(text: str) -> bool:
    """Letters and digits, parted by a dot, one or two underscores, or hyphens; to compile a pattern for it takes 0.2 ms."""
    between = "".join("/" if char in _PATH_CHARACTERS else char for char in text).split("/")
    parted = all(each in {".", "_", "__"} or not each.strip("-") for each in between)
    return len(between) > 1 and between[0] == between[-1] == "" and parted


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        domain, path = HUB, name
    else:
        domain, path = first, rest
    if domain == "index.docker.io":  # what Docker Hub was called first; old archives have it
        domain = HUB
    if domain == HUB and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _invalid(text: str, why: str, hint: str = "a name is [HOST[:PORT]/]PATH[:TAG][@DIGEST], such as busybox:1.36") -> UsageError:
    shown = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text[:300])
    return UsageError(f"invalid image name '{shown}': {why}", hint=hint)
