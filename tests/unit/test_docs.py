"""The documentation is true as far as a program can tell: links, hooks, commands, steps and names of the code."""

import ast
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pluggy
import pytest

from lamina.api import hookspecs
from lamina.api.host import REQUIRED
from lamina.api.types import Attachment, NetworkNamespace
from lamina.cli.main import GROUPS, TOP_COMMANDS
from lamina.model.container import ContainerConfig
from lamina.model.mount import Mount
from lamina.runtime.cgroup_steps import PlannedCgroup
from lamina.runtime.confinement import Confined
from lamina.runtime.plan import PlannedMount, plan

TOP = Path(__file__).parents[2]
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")])
SOURCES = sorted([*TOP.glob("core/**/*.py"), *TOP.glob("plugins/**/*.py")])
CODE_ROOTS = [TOP, TOP / "core" / "lamina", *TOP.glob("plugins/*/lamina_*")]


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The page's headings as a link names them."""
    titles = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def code_words(page: Path) -> set[str]:
    """What stands in backquotes outside of blocks."""
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text(page), flags=re.DOTALL | re.MULTILINE)))


def hooks() -> list[str]:
    return [name for name, value in vars(hookspecs).items() if getattr(value, "lamina_spec", None) is not None]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_internal_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            broken.append(link)
    assert broken == []


def test_every_page_is_listed_in_the_table_of_contents() -> None:
    listed = {(TOP / "docs" / link).resolve() for link in re.findall(r"\]\(([^)#]+)", text(TOP / "docs/README.md"))}
    assert [page for page in TOP.glob("docs/**/*.md") if page.name != "README.md" and page not in listed] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_the_code_that_a_page_names_is_there(page: Path) -> None:
    own = set(re.findall(r"^`([\w./-]+)`:$", text(page), re.MULTILINE))  # files that the page itself has its reader write
    paths = [word for word in code_words(page) - own if re.fullmatch(r"[\w./-]+\.py", word)]
    assert [path for path in paths if not any((root / path).exists() for root in CODE_ROOTS)] == []


def defined_names() -> Iterator[str]:
    """Every `Class.attribute` of the code."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(text(source))):
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        yield f"{node.name}.{inner.name}"
                    elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                        yield f"{node.name}.{inner.target.id}"


@pytest.mark.parametrize("page", ["architecture.md", "life-of-a-container.md"])
def test_every_method_that_a_page_names_is_there(page: str) -> None:
    known = set(defined_names()) | {"GraphDriver.Data"}
    named = {word for word in code_words(TOP / "docs" / page) if re.fullmatch(r"[A-Z]\w+\.[a-z_]\w*", word)}
    assert named
    assert sorted(named - known) == []


def test_every_hook_is_in_the_list_of_hooks() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| .* \| (.*)\|$", text(TOP / "docs/architecture.md"), re.MULTILINE)
    listed = {name: note.strip() for name, note in rows if name.split("_")[0] in {"storage", "network", "volume", "container"}}
    assert sorted(listed) == sorted(hooks())
    assert sorted(name for name, note in listed.items() if note == "required") == sorted(sum(REQUIRED.values(), ()))


def test_every_hook_has_a_contract() -> None:
    manager = pluggy.PluginManager("lamina")
    manager.add_hookspecs(hookspecs)
    assert len(hooks()) == len(vars(manager.hook))
    assert [name for name in hooks() if len((inspect.getdoc(getattr(hookspecs, name)) or "").split()) < 8] == []


def test_the_readme_types_only_commands_that_there_are() -> None:
    commands = re.findall(r"(?:\$ |`|\$\()(?:sudo )?lamina((?: -[\w-]+| [A-Za-z.-]+)+)", text(TOP / "README.md"))
    unknown = []
    for command in commands:
        words = re.sub(r"--?(storage-driver|s|root|run-dir) \S+", "", command).split()
        words = [word for word in words if not word.startswith("-")]
        name, rest = (words or [""])[0], (words[1:] or [""])[0]
        if name and name not in TOP_COMMANDS and rest not in GROUPS.get(name, ("", {}))[1] and name != "COMMAND":
            unknown.append(command)
    assert len(commands) > 10
    assert unknown == []


def test_every_module_says_what_it_is() -> None:
    assert [str(path.relative_to(TOP)) for path in SOURCES if not ast.get_docstring(ast.parse(text(path)))] == []


def test_every_test_of_the_table_of_attacks_is_there() -> None:
    """Each row has an attack, a defence, tests as `FILE` `NAME`, …, and a result."""
    table = text(TOP / "docs/security.md").partition("## Attacks, defences, tests")[2]
    rows = [row for row in re.findall(r"^\| (.*) \|$", table, re.MULTILINE) if not row.startswith(("*", "attack |"))]
    assert len(rows) > 40
    missing = []
    for row in rows:
        _attack, _defence, tests, result = row.split(" | ")
        assert result in {"refused", "confined", "bounded"}, row
        named = [(file, re.findall(r"`(\w+)`", names)) for file, names in re.findall(r"`([\w/]+\.py)` ([^;]+)", tests)]
        assert named and all(names for _, names in named), row
        for file, names in named:
            there = set(re.findall(r"def test_(\w+)\(", text(TOP / file)))
            missing += [f"{file} {name}" for name in names if name not in there]
    assert missing == []


def test_the_life_of_a_container_tells_every_step_in_its_order() -> None:
    told = re.findall(r"^\| `([A-Z]\w+)` \|", text(TOP / "docs/life-of-a-container.md"), re.MULTILINE)
    steps = plan(
        root="/root-to-be",
        config=ContainerConfig(image="busybox", command=("sh",), tty=True, read_only=True),
        container_id="0" * 64,
        attachment=Attachment(namespace=NetworkNamespace.NEW),
        mounts=[PlannedMount(target="/data", mount=Mount(type="bind", source="/srv/data", target=""), read_only=False)],
        files=[("/host/hosts", "/etc/hosts")],
        cgroup=(PlannedCgroup(name="", directory="/sys/fs/cgroup/lamina/0", entrance="/sys/fs/cgroup/lamina/0/cgroup.procs"),),
        devices=(("/dev/fuse", 0o020666, os.makedev(10, 229), 0, 0),),
        confined=Confined(has_system_paths=False, apparmor="asked-for"),
    )
    happening: list[str] = []
    for step in steps:
        name = type(step).__name__
        if not happening or happening[-1] != name or name == "BindInRoot":  # a row may be about several steps of a kind
            happening.append(name)
    assert told == happening
