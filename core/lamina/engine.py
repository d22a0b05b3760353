"""The engine: everything that a front end calls, one method each.

    from lamina.engine import Engine

    with Engine() as engine:
        with engine.containers.run("busybox", ["sleep", "60"]) as container:
            container.exec(["touch", "/new"])
            print(container.diff())

The command line is one front end; a Python program is another. Errors are those of `lamina.errors`; nothing here prints or exits.
All state is on disk: two engines on one root directory, in one process or in several, see the same.

    engine.containers   `ContainersAPI`: create, run, get, all, prune
    engine.images       `ImagesAPI`: pull, push, bootstrap, load, save, import, tag, remove, all, history, prune
    engine.networks     `lamina.usecases.networks.Networks`: create, get, all, remove, connect, disconnect, ports, prune, repair
    engine.volumes      `lamina.usecases.volumes.Volumes`: create, find, all, remove, prune
    engine.system       `lamina.usecases.system.System`: info, disk usage, drivers
"""

import os
import warnings
from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lamina.errors import LaminaError
from lamina.usecases.context import Context
from lamina.usecases.recovery import Recovery
from lamina.usecases.settings import read_settings

if TYPE_CHECKING:  # each is imported by the first who asks for it: a listing starts no container
    from lamina.containers import ContainersAPI
    from lamina.images import ImagesAPI
    from lamina.usecases.adopt import Adopted, Wishes
    from lamina.usecases.content import Content
    from lamina.usecases.control import Control
    from lamina.usecases.create import Creation
    from lamina.usecases.enter import Entering
    from lamina.usecases.networks import Networks
    from lamina.usecases.restarts import Restarts
    from lamina.usecases.start import Starter
    from lamina.usecases.system import System
    from lamina.usecases.volumes import Volumes

Progress = Callable[[int], None]


class Engine:
    """One root directory of images, containers and volumes.

    Arguments left out come from the environment, the configuration file, or are built in (`usecases/settings.py`). `warn` is
    told what a person should know, a line at a time. Opening puts right what killed commands left behind.
    """

    def __init__(
        self, *, root_dir: str = "", run_dir: str = "", storage_driver: str = "", warn: Callable[[str], None] = warnings.warn
    ) -> None:
        if os.geteuid() != 0:
            raise LaminaError("lamina must be run as root", hint="use sudo")
        settings = read_settings(root_dir=root_dir, run_dir=run_dir, storage_driver=storage_driver)
        self.context = Context.open(
            root_dir=settings.root_dir,
            run_dir=settings.run_dir,
            chosen_driver=settings.storage_driver,
            warn=warn,
            pull_policy=settings.pull,
            default_network=settings.network,
            log_driver=settings.log_driver,
            log_options=settings.log_options,
            labels_containers=settings.selinux_enabled,
        )
        Recovery(self.context, self).recover()

    @cached_property
    def containers(self) -> "ContainersAPI":
        """The containers."""
        from lamina.containers import ContainersAPI

        return ContainersAPI(self)

    @cached_property
    def images(self) -> "ImagesAPI":
        """The images."""
        from lamina.images import ImagesAPI

        return ImagesAPI(self)

    @cached_property
    def volumes(self) -> "Volumes":
        """The volumes."""
        from lamina.usecases.volumes import Volumes

        return Volumes(self.context)

    @cached_property
    def creation(self) -> "Creation":
        """What makes containers."""
        from lamina.usecases.create import Creation

        return Creation(self.context, self.volumes)

    @cached_property
    def starter(self) -> "Starter":
        """What starts and settles them."""
        from lamina.usecases.start import Starter

        return Starter(self.context, self.volumes)

    @cached_property
    def control(self) -> "Control":
        """What stops, pauses and removes them."""
        from lamina.usecases.control import Control

        return Control(self.context, self.starter, self.volumes)

    @cached_property
    def entering(self) -> "Entering":
        """What enters running ones."""
        from lamina.usecases.enter import Entering

        return Entering(self.context, self.starter)

    @cached_property
    def content(self) -> "Content":
        """What reads their layers."""
        from lamina.usecases.content import Content

        return Content(self.context, lambda: self.control)

    @cached_property
    def system(self) -> "System":
        """Facts about the whole."""
        from lamina.usecases.system import System

        return System(self.context, self.volumes, self.content)

    @cached_property
    def networks(self) -> "Networks":
        """The networks (`none` and `host` need nothing of it)."""
        from lamina.usecases.networks import Networks

        return Networks(self.context)

    @cached_property
    def restarts(self) -> "Restarts":
        """What starts containers again; imported by the first who asks."""
        from lamina.usecases.restarts import Restarts

        return Restarts(self.context, self.starter, self.control)

    def close(self) -> None:
        """Let go of the database and the journal; the engine can't be used any more."""
        self.context.reap()
        self.context.database.close()
        self.context.journal.close()

    def adopt(
        self,
        path: str,
        wishes: "Wishes | None" = None,
        *,
        step: Callable[[str], None] = lambda _text: None,
        progress: Progress | None = None,
    ) -> "Adopted":
        """Take over the images and containers of a Docker data directory, which is only read."""
        from lamina.usecases.adopt import Adoption, Wishes

        adoption = Adoption(self.context, self.creation, self.volumes)
        return adoption.adopt(path, wishes or Wishes(), step=step, progress=progress or (lambda _bytes: None))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
