"""How a transfer is getting on, as values. What is shown of it is the front end's affair."""

from collections.abc import Callable
from enum import StrEnum

from lamina.dataclasses import dataclass
from lamina.model.digest import Digest


class State(StrEnum):
    """What is happening to a blob, or has happened, in Docker's words."""

    WAITING = "Waiting"
    """Another process of this machine is fetching it."""
    DOWNLOADING = "Downloading"
    DOWNLOADED = "Download complete"
    UNPACKING = "Extracting"
    DONE = "Pull complete"
    PRESENT = "Already exists"
    UPLOADING = "Pushing"
    UPLOADED = "Pushed"
    KNOWN = "Layer already exists"
    MOUNTED = "Mounted from"
    AGAIN = "Retrying"

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes of this blob."""
        return self in {State.DONE, State.PRESENT, State.UPLOADED, State.KNOWN, State.MOUNTED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """News of one blob."""

    digest: Digest
    state: State
    done_bytes: int = 0
    total_bytes: int = 0
    detail: str = ""
    """The repository of a mount, or why it is tried again."""


Report = Callable[[Transferred], None]
"""Called by several threads, one at a time for each blob."""


def tell_nobody(news: Transferred) -> None:
    """Throw the news away."""
    del news
