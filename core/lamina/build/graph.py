"""Which stages a build needs, and what each waits for. Pure: nothing is looked up but the Dockerfile."""

from collections.abc import Iterator

from lamina.build.variables import Arguments
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import Copy, Dockerfile, Run, Stage
from lamina.errors import UsageError


def target_stage(dockerfile: Dockerfile, target: str) -> int:
    """Find the stage that is wanted: by name, by number, or the last one."""
    if not target:
        return len(dockerfile.stages) - 1
    for stage in reversed(dockerfile.stages):
        if stage.base.stage_name == target.lower():
            return stage.index
    if target.isascii() and target.isdigit() and int(target) < len(dockerfile.stages):
        return int(target)
    names = ", ".join(f"'{stage.name}'" for stage in dockerfile.stages)
    raise UsageError(f"there is no stage '{target}' in {dockerfile.file_name}", hint=f"its stages are {names}")


def base_stage(dockerfile: Dockerfile, image: str, *, before: int) -> int | None:
    """Find the earlier stage that FROM names; None if it is an image. Numbers are no names here."""
    for stage in reversed(dockerfile.stages[:before]):
        if stage.base.stage_name and stage.base.stage_name == image.lower():
            return stage.index
    return None


def source_stage(dockerfile: Dockerfile, name: str, *, before: int, line: int, instruction: str) -> int | None:
    """Find the earlier stage that `--from` or a mount's `from` names; None if it is an image.

    Raises `DockerfileError` for a number that is no earlier stage's, or the name of this one or a later one.
    """
    found = base_stage(dockerfile, name, before=before)
    if found is not None:
        return found
    where = {"file_name": dockerfile.file_name, "instruction": instruction}
    if name.isascii() and name.isdigit():
        if int(name[:9]) < before:
            return int(name)
        raise DockerfileError(f"there is no stage '{name[:20]}' before this one", line=line, hint="stages count from 0", **where)
    if any(stage.base.stage_name == name.lower() for stage in dockerfile.stages[before:]):
        raise DockerfileError(f"the stage '{name}' doesn't come before this one", line=line, hint="move its FROM up", **where)
    return None


def needed_stages(dockerfile: Dockerfile, arguments: Arguments, target: int) -> list[int]:
    """List the target and every stage that it stands on or takes from, in the order of the file."""
    needed: set[int] = set()
    todo = [target]
    while todo:
        index = todo.pop()
        if index not in needed:
            needed.add(index)
            todo += _direct(dockerfile, arguments, dockerfile.stages[index])
    return sorted(needed)


def _direct(dockerfile: Dockerfile, arguments: Arguments, stage: Stage) -> Iterator[int]:
    base = base_stage(dockerfile, arguments.expanded(stage.base, arguments.globals).image, before=stage.index)
    if base is not None:
        yield base
    for instruction in stage.instructions:
        names = []
        if isinstance(instruction, Copy):
            names = [instruction.from_]
        elif isinstance(instruction, Run):
            names = [mount.from_ for mount in instruction.mounts]
        for name in filter(None, names):
            found = source_stage(dockerfile, name, before=stage.index, line=instruction.line, instruction=instruction.name)
            if found is not None:
                yield found


def has_place(dockerfile: Dockerfile, stage: Stage) -> str:
    """What stands before a step's number: the stage's name, or nothing in a file of one stage without a name."""
    if stage.base.stage_name:
        return f"{stage.base.stage_name} "
    return f"stage-{stage.index} " if len(dockerfile.stages) > 1 else ""
