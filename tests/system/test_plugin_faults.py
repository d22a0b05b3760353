"""Plugins that are broken, each in its way: the error names plugin and hook, nothing is left, and all that can do without goes on.

The plugins are installed as pip would: a directory with a module and a `dist-info`, found through PYTHONPATH.
"""

import os
from pathlib import Path

import leaks
import pytest
from cases import Lamina, wait_until

from lamina.engine import Engine

SOURCE = """
import os
from lamina.api.hookspecs import hookimpl
from lamina.api.types import *
from lamina.model.mount import Mount
from lamina_vfs.driver import VfsDriver

FAULT = os.environ.get("FAULT", "")

class Driver(VfsDriver):
    name = "broken"

{methods}

plugin = Driver()
"""

FAULTY = """
    @hookimpl
    def {hook}(self, {arguments}):
        {body}
"""

ARGUMENTS = {
    "storage_probe": "home",
    "storage_prepare": "home, key, parents, options",
    "storage_mounts": "home, key, readonly",
    "storage_before_mount": "home, key",
    "storage_apply": "home, key",
    "storage_seal": "home, key",
    "storage_discard": "home, key",
    "storage_keys": "home",
    "storage_after_unmount": "key",
}


class Site:
    """A directory on PYTHONPATH that plugins are installed in."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, module: str, code: str, *entries: str) -> None:
        (self.path / f"{module}.py").write_text(code)
        folder = self.path / f"{module}-1.0.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("[lamina]\n" + "".join(f"{entry}\n" for entry in entries))

    def install_faulty(self, hook: str, body: str) -> None:
        """The vfs driver, named `broken`, with another body for one hook; `super()` in it is the whole one."""
        method = FAULTY.format(hook=hook, arguments=ARGUMENTS[hook], body=body)
        self.install("broken", SOURCE.format(methods=method), "storage.broken = broken:plugin")


@pytest.fixture
def driver() -> str:
    return "overlay"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return Site(path)


def left_of(lamina: Lamina, driver: str) -> list[object]:
    found: list[object] = list(
        leaks.rows(lamina.root, f"SELECT key, state FROM layers WHERE driver = '{driver}' AND state != 'sealed'")
    )
    found += leaks.rows(lamina.root, f"SELECT id FROM containers WHERE driver = '{driver}'")
    found += leaks.rows(lamina.root, "SELECT * FROM operations")
    sealed = {row[0] for row in leaks.rows(lamina.root, f"SELECT key FROM layers WHERE driver = '{driver}'")}
    for folder in ("dir", "tmp", "ro", "trash"):
        place = lamina.root / driver / folder
        found += [f"{folder}/{name}" for name in (os.listdir(place) if place.is_dir() else []) if name not in sealed]
    return found


ASKING = (("ps", "-a"), ("info",), ("system", "df"))
"""Commands that open the store, and those of them that ask each driver something."""
MORE = (("images",), ("volume", "ls"), ("network", "ls"), ("version",))
"""To a plugin that can be loaded these are as `ps`."""


def everything_else_works(lamina: Lamina, commands: tuple[tuple[str, ...], ...] = (*ASKING, *MORE)) -> None:
    """Each command that doesn't need the plugin ends well, and says nothing of it on standard output."""
    assert lamina("run", "--rm", "busybox", "echo", "hi") == "hi"
    for words in commands:
        assert lamina(*words)
    name = lamina("create", "busybox", "true")
    assert lamina("inspect", "--format", "{{.Driver}}", name) == "overlay"
    lamina("rm", name)


UNLOADABLE = {
    "it doesn't import": ("import no_such_module_at_all", "can't be loaded from 'broken:plugin': ModuleNotFoundError"),
    "it exits": ("raise SystemExit(3)", "can't be loaded from 'broken:plugin': SystemExit: 3"),
    "another version's contract": (SOURCE.format(methods="    api_version = 99"), "is written for version 99 of the contract"),
    "another's name": (
        SOURCE.format(methods="").replace('"broken"', '"overlay"'),
        "claims the name 'overlay', which is another plugin's",
    ),
    "a required hook is missing": (
        SOURCE.format(methods="    storage_discard = None"),
        "doesn't implement the hook 'storage_discard'",
    ),
    "an argument that no hook has": (
        SOURCE.format(methods="    @hookimpl\n    def storage_seal(self, colour): return True"),
        "implements a hook wrongly",
    ),
}


@pytest.mark.parametrize("why", UNLOADABLE)
def test_a_plugin_that_cannot_be_loaded_is_said_and_stops_nothing_else(lamina: Lamina, site: Site, why: str):
    code, message = UNLOADABLE[why]
    site.install("broken", code, "storage.broken = broken:plugin")
    for words in (("run", "busybox", "true"), ("create", "busybox", "true")):
        line = lamina.error(*words, driver="broken", code=125 if words[0] == "run" else 1)
        assert "plugin 'storage.broken'" in line
        assert message in line
    rows = {
        row.split("\t")[0]: row.split("\t")[1:]
        for row in lamina("driver", "ls", "--format", "{{.Name}}\t{{.Usable}}\t{{.Reason}}").splitlines()
    }
    assert rows["broken"][0] == "no"
    assert message in rows["broken"][1]
    assert rows["overlay"][0] == rows["vfs"][0] == "yes"
    assert message in lamina("driver", "inspect", "broken")
    assert left_of(lamina, "broken") == []
    everything_else_works(lamina)


def test_a_driver_that_nobody_has_is_said_with_those_that_are_there(lamina: Lamina, site: Site):
    line = lamina.error("run", "busybox", "true", driver="nope", code=125)
    assert "storage driver 'nope' is not installed" in line
    assert "overlay" in line
    assert "'nope' is not installed" in lamina.error("driver", "inspect", "nope", code=1)


RAISES = "raise RuntimeError('boom')"
FAILING = {
    "probe": ("storage_probe", RAISES),
    "probe answers nonsense": ("storage_probe", "return 'yes'"),
    "prepare of the first layer": ("storage_prepare", RAISES),
    "prepare, half way": ("storage_prepare", "os.makedirs(f'{home}/tmp/{key}/a/b'); raise RuntimeError('boom')"),
    "prepare, when all is done": (
        "storage_prepare",
        "super().storage_prepare(home, key, parents, options); raise RuntimeError('boom')",
    ),
    "prepare of the container's layer": (
        "storage_prepare",
        "super().storage_prepare(home, key, parents, options)\n        if parents: raise RuntimeError('boom')\n        return True",
    ),
    "prepare answers nothing": ("storage_prepare", "super().storage_prepare(home, key, parents, options)"),
    "apply": ("storage_apply", RAISES),
    "apply answers nonsense": ("storage_apply", "return 'done'"),
    "seal": ("storage_seal", RAISES),
    "before mount": ("storage_before_mount", RAISES),
    "mounts": ("storage_mounts", RAISES),
    "mounts answers nothing": ("storage_mounts", "return None"),
    "mounts answers a path": ("storage_mounts", "return '/'"),
    "mounts answers a view without a root": ("storage_mounts", "return View(root=None)"),
    "mounts answers a relative place": ("storage_mounts", "return View(root='merged')"),
    "mounts answers what are no mounts": ("storage_mounts", "return View(root=f'{home}/dir/{key}', mounts=('-t overlay',))"),
    "mounts answers an option that is no text": (
        "storage_mounts",
        "return View(root=home, mounts=(Mount(type='tmpfs', target=home, options=(('size', 3),)),))",
    ),
}


@pytest.mark.parametrize("what", FAILING)
def test_a_hook_that_fails_is_named_with_its_plugin_and_leaves_nothing(lamina: Lamina, site: Site, what: str):
    hook, body = FAILING[what]
    site.install_faulty(hook, body)
    line = lamina.error("run", "--rm", "busybox", "true", driver="broken", code=125)
    assert "plugin 'storage.broken'" in line
    assert f"'{hook}'" in line
    if hook != "storage_mounts":  # with such a driver nothing can be unmounted to be removed: the row stays for recovery
        assert left_of(lamina, "broken") == []
    everything_else_works(lamina, ASKING)
    site.install_faulty("storage_seal", "return True")  # repaired: the next command puts right what could not be
    assert lamina("run", "--rm", "busybox", "echo", "well", driver="broken") == "well"
    wait_until(lambda: not left_of(lamina, "broken"), "nothing left")


def test_a_mount_that_the_kernel_refuses_is_the_kernels_error_with_the_place(lamina: Lamina, site: Site):
    site.install_faulty(
        "storage_mounts",
        "view = super().storage_mounts(home, key, readonly)\n"
        "        return view if readonly else View(root=view.root, mounts=(Mount(type='no-such-fs', target=view.root),))",
    )
    line = lamina.error("run", "--rm", "busybox", "true", driver="broken", code=125)
    assert "no-such-fs" in line
    assert left_of(lamina, "broken") == []


def test_a_discard_that_fails_leaves_the_layer_to_recovery_which_warns_until_it_is_repaired(lamina: Lamina, site: Site):
    site.install_faulty("storage_discard", RAISES)
    name = lamina("create", "busybox", "true", driver="broken")
    assert "'storage_discard'" in lamina.error("rm", name, code=1)
    done = lamina.result("ps", "-a")
    assert done.returncode == 0
    assert "warning: " in done.stderr
    assert "plugin 'storage.broken' failed in 'storage_discard'" in done.stderr
    assert lamina("run", "--rm", "busybox", "echo", "hi") == "hi"
    site.install_faulty("storage_seal", "return True")
    assert lamina.result("ps", "-a").stderr == ""
    assert left_of(lamina, "broken") == []


def test_a_driver_that_is_uninstalled_while_it_has_layers_stops_no_other(lamina: Lamina, site: Site):
    site.install_faulty("storage_seal", "return True")
    name = lamina("create", "--name", "orphan", "busybox", "true", driver="broken")
    (site.path / "broken-1.0.dist-info" / "entry_points.txt").write_text("")
    (site.path / "broken-1.0.dist-info").rename(site.path / "elsewhere")
    everything_else_works(lamina)
    assert "orphan" in lamina("ps", "-a")
    assert "storage driver 'broken' is not installed" in lamina.error("rm", "orphan", code=1)
    assert "storage driver 'broken' is not installed" in lamina.error("start", "orphan", code=1)
    (site.path / "elsewhere").rename(site.path / "broken-1.0.dist-info")
    site.install_faulty("storage_seal", "return True")
    lamina("rm", name)
    assert left_of(lamina, "broken") == []


def test_a_half_discarded_layer_of_a_missing_driver_is_a_warning_to_every_command_and_stops_none(lamina: Lamina, site: Site):
    site.install_faulty("storage_seal", "return True")
    lamina("rm", lamina("create", "busybox", "true", driver="broken"))
    with Engine(root_dir=str(lamina.root)) as engine, engine.context.database.transaction() as tx:
        tx.execute("UPDATE layers SET state = 'discarding' WHERE driver = 'broken'")
    (site.path / "broken-1.0.dist-info").rename(site.path / "elsewhere")
    done = lamina.result("images")
    assert done.returncode == 0
    assert "could not be discarded: storage driver 'broken' is not installed" in done.stderr
    everything_else_works(lamina)
    (site.path / "elsewhere").rename(site.path / "broken-1.0.dist-info")
    assert lamina.result("images").stderr == ""
    assert leaks.rows(lamina.root, "SELECT * FROM layers WHERE driver = 'broken'") == []


WATCHER = """
import os
from lamina.api.hookspecs import hookimpl

class Watcher:
    name = "NAME"
    api_version = 1

    @hookimpl
    def container_event(self, event):
        with open(os.environ["SEEN"], "a") as file:
            file.write(f"NAME {event.action} {event.name}\\n")
        BODY

plugin = Watcher()
"""


def test_a_watcher_hears_of_everything_and_its_failure_stops_nothing(
    lamina: Lamina, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = tmp_path / "seen"
    monkeypatch.setenv("SEEN", str(seen))
    for name, body in (("bad", "raise RuntimeError('boom')"), ("good", "pass"), ("awful", "raise KeyError('k')")):
        site.install(name, WATCHER.replace("NAME", name).replace("BODY", body), f"watch.{name} = {name}:plugin")
    done = lamina.result("run", "--rm", "--name", "seen", "busybox", "echo", "hi")
    assert (done.returncode, done.stdout) == (0, "hi\n")
    lines = seen.read_text().splitlines()
    for name in ("bad", "good", "awful"):
        heard = [line.split(" ")[1] for line in lines if line.startswith(f"{name} ")]
        assert heard == ["created", "starting", "started", "exited", "removed"]
    assert "warning: plugin 'watch.bad' failed in 'container_event': RuntimeError: boom" in done.stderr
    assert "warning: plugin 'watch.awful' failed in 'container_event'" in done.stderr
    assert "'watch.good'" not in done.stderr


def test_a_watcher_hears_of_a_background_containers_end_too(
    lamina: Lamina, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = tmp_path / "seen"
    monkeypatch.setenv("SEEN", str(seen))
    site.install("good", WATCHER.replace("NAME", "good").replace("BODY", "pass"), "watch.good = good:plugin")
    lamina("run", "-d", "--rm", "--name", "away", "busybox", "true")
    wait_until(lambda: "good removed away" in seen.read_text(), "the end of a container that nobody waits for")


TIMING = """
import os
from lamina.api.hookspecs import hookimpl

def note(text):
    with open(os.environ["SEEN"], "a") as file:
        file.write(text + "\\n")

class Timing:
    name = "timing"
    api_version = 1

    @hookimpl(wrapper=True)
    def storage_prepare(self, home, key):
        note(f"new {os.path.basename(home)}")
        answer = yield
        return answer

    @hookimpl(hookwrapper=True)
    def storage_mounts(self, home):
        note(f"old {os.path.basename(home)}")
        yield

plugin = Timing()
"""


def test_a_wrapper_is_around_whichever_driver_is_chosen(
    lamina: Lamina, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = tmp_path / "seen"
    monkeypatch.setenv("SEEN", str(seen))
    site.install("timing", TIMING, "watch.timing = timing:plugin")
    site.install_faulty("storage_prepare", RAISES)  # another driver, which must not be called
    for name in ("overlay", "aufs", "vfs"):
        seen.write_text("")
        assert lamina("run", "--rm", "busybox", "echo", "hi", driver=name) == "hi"
        assert set(seen.read_text().splitlines()) == {f"new {name}", f"old {name}"}


def test_a_wrapper_that_fails_is_an_error_in_one_line_and_leaves_nothing(
    lamina: Lamina, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    site.install("timing", TIMING.replace("answer = yield", "answer = yield; 1 / 0"), "watch.timing = timing:plugin")
    line = lamina.error("run", "--rm", "busybox", "true", code=125)
    assert "'storage_prepare'" in line
    assert "ZeroDivisionError" in line
    assert left_of(lamina, "overlay") == []


NETWORK = """
from lamina.api.hookspecs import hookimpl
from lamina.api.types import *

class Net:
    name = "net"
    api_version = 1

    @hookimpl
    def network_attach(self):
        ATTACH

    @hookimpl
    def network_detach(self):
        DETACH

plugin = Net()
"""


def test_a_network_that_answers_nonsense_starts_nothing(lamina: Lamina, site: Site):
    code = NETWORK.replace("ATTACH", "return Attachment(namespace='new')").replace("DETACH", "pass")
    site.install("net", code, "network.net = net:plugin")
    line = lamina.error("run", "--rm", "--net", "net", "busybox", "true", code=125)
    assert "plugin 'network.net' answered 'network_attach' with nonsense" in line
    assert left_of(lamina, "overlay") == []


def test_a_network_that_cannot_let_go_is_a_warning_and_the_container_ends(lamina: Lamina, site: Site):
    code = NETWORK.replace("ATTACH", "return Attachment(namespace=NetworkNamespace.NEW)").replace("DETACH", RAISES)
    site.install("net", code, "network.net = net:plugin")
    done = lamina.result("run", "--rm", "--net", "net", "busybox", "echo", "hi")
    assert (done.returncode, done.stdout) == (0, "hi\n")
    assert "warning: plugin 'network.net' failed in 'network_detach'" in done.stderr
    assert left_of(lamina, "overlay") == []
