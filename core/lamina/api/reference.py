"""Writes the reference page of the contract from its source: `python -m lamina.api.reference > docs/plugins/reference.md`.

Every hook of `hookspecs.py` with its signature and contract, every type of `types.py` and `entries.py` with its fields. Read with
`ast`, because the texts below fields are in the source alone. Not used by the engine.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

from lamina.api import entries, hookspecs, networks, types
from lamina.api.host import REQUIRED
from lamina.model import mount, network

KINDS = {
    "storage": "Storage drivers",
    "network": "Networks",
    "volume": "Volume drivers",
    "container": "Watching containers",
}


def reference() -> str:
    """Make the whole page."""
    lines = [
        "# Reference",
        "",
        "Made from `api/hookspecs.py`, `api/types.py`, `api/entries.py`, `api/networks.py`, `model/network.py` and",
        "`model/mount.py` by `python -m lamina.api.reference`: don't edit it.",
        f"It is version {types.API_VERSION} of the contract; [how it may grow](versions.md).",
        "",
        *_prose(inspect.getdoc(hookspecs) or "", code_language="python"),
    ]
    found = list(_hooks())
    for kind, title in KINDS.items():
        lines += ["", f"## {title}"]
        for function in found:
            if function.name.split("_")[0] == kind:
                lines += ["", *_hook(function)]
    lines += ["", "## Types"]
    for module in (types, entries, networks, network, mount):
        for node in _parsed(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                lines += ["", *_type(node, module)]
    return "\n".join(lines) + "\n"


def _parsed(module: ModuleType) -> ast.Module:
    return ast.parse(inspect.getsource(module))


def _hooks() -> Iterator[ast.FunctionDef]:
    for node in _parsed(hookspecs).body:
        if isinstance(node, ast.FunctionDef) and hasattr(getattr(hookspecs, node.name), "lamina_spec"):
            yield node


def _hook(function: ast.FunctionDef) -> Iterator[str]:
    required = any(function.name in hooks for hooks in REQUIRED.values())
    every = not getattr(hookspecs, function.name).lamina_spec["firstresult"]
    yield f"### {function.name}"
    yield ""
    yield "```python"
    yield _signature(function)
    yield "```"
    yield ""
    text = ast.get_docstring(function) or ""
    if "Required" not in text and "Optional" not in text:
        yield "Required." if required else "Every plugin that has it is called." if every else "Optional."
        yield ""
    yield from _prose(text)


def _signature(function: ast.FunctionDef) -> str:
    arguments = ", ".join(
        f"{each.arg}: {_unquoted(each.annotation)}" if each.annotation else each.arg for each in function.args.args
    )
    return f"def {function.name}({arguments}) -> {_unquoted(function.returns)}"


def _unquoted(annotation: ast.expr | None) -> str:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation) if annotation is not None else "None"


def _type(node: ast.ClassDef, module: ModuleType) -> Iterator[str]:
    yield f"### {node.name}"
    yield ""
    yield f"`{module.__name__}.{node.name}`"
    yield ""
    yield from _prose(ast.get_docstring(node) or "")
    rows = list(_members(node))
    if rows:
        yield ""
        yield "| | | |"
        yield "|---|---|---|"
        for row in rows:
            yield "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"


def _members(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Give each field, value or method: name, type or value, text."""
    for place, member in enumerate(node.body):
        following = node.body[place + 1] if place + 1 < len(node.body) else None
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) and isinstance(following.value.value, str):
            text = " ".join(following.value.value.split())
        if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
            default = "" if member.value is None or "field(" in ast.unparse(member.value) else f" = {ast.unparse(member.value)}"
            yield f"`{member.target.id}`", f"`{_unquoted(member.annotation)}{default}`", text
        elif isinstance(member, ast.Assign) and isinstance(member.targets[0], ast.Name):
            yield f"`{member.targets[0].id}`", f"`{ast.unparse(member.value)}`", text
        elif isinstance(member, ast.FunctionDef):
            about = " ".join((ast.get_docstring(member) or "").split())
            is_property = any(ast.unparse(each) == "property" for each in member.decorator_list)
            parameters = ", ".join(each.arg for each in member.args.args[1:])
            yield f"`{member.name}`" if is_property else f"`{member.name}({parameters})`", f"`{_unquoted(member.returns)}`", about


def _prose(text: str, *, code_language: str = "") -> Iterator[str]:
    """Give a docstring's lines; what is indented becomes a block of code."""
    lines = text.splitlines()
    inside = False
    for place, line in enumerate(lines):
        is_code = line.startswith("    ") or (
            inside and not line and any(each.startswith("    ") for each in lines[place + 1 : place + 2])
        )
        if is_code != inside:
            yield f"```{code_language}" if is_code else "```"
            inside = is_code
        yield line.removeprefix("    ") if is_code else line.rstrip()
        if is_code and not line and not lines[place + 1].startswith("     "):
            yield ""  # two between statements at the top, as ruff has it
    if inside:
        yield "```"


if __name__ == "__main__":
    sys.stdout.write(reference())
