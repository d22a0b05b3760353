"""The catalogue of `compare`: enough questions, each with its sentence; and the record of aufs fits both."""

import ast
import json
from pathlib import Path

from lamina.compare import probes
from lamina.compare.catalogue import MODULES, catalogue
from lamina.compare.recorded import records
from lamina.compare.report import GROUPS

PROBE_FILES = sorted(Path(probes.__file__).parent.glob("*.py"))
OPERATIONS = {each["op"] for each in json.loads((Path(__file__).parents[1] / "data" / "aufs-observed.json").read_text())["ops"]}


def test_there_are_many_probes_and_each_has_its_own_name() -> None:
    names = [probe.id for probe in catalogue()]
    assert len(names) >= 100
    assert len(set(names)) == len(names)


def test_every_probe_says_in_one_sentence_why_it_matters() -> None:
    for probe in catalogue():
        assert probe.why.endswith("."), probe.id
        assert probe.why[0].isupper() or probe.why.split()[0].strip("`").islower(), probe.id
        assert 6 <= len(probe.why.split()) <= 40, probe.id
        assert probe.title and probe.plain, probe.id


def test_every_module_of_probes_is_in_the_catalogue_and_every_group_has_a_title() -> None:
    assert sorted(path.stem for path in PROBE_FILES if path.stem != "__init__") == sorted(MODULES)
    assert {probe.group for probe in catalogue()} == set(GROUPS)


def test_what_runs_in_a_container_imports_nothing_there() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in PROBE_FILES
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert found == []


def test_the_record_of_aufs_answers_probes_that_there_are_by_operations_that_were_observed() -> None:
    (record,) = records()
    names = {probe.id for probe in catalogue()}
    assert record.beside == "aufs"
    assert len(record.answers) >= 70
    assert set(record.answers) <= names
    assert set(record.operations.values()) <= OPERATIONS


def test_the_record_knows_what_aufs_is_known_for() -> None:
    (record,) = records()
    told = {
        "whiteout-name": "EPERM", "longest-name": "242 bytes", "rename-directory": "EXDEV", "rename-empty-directory": "ok",
        "open-cost": "copies nothing", "write-one-name": "all names see it", "whiteout-on-disk": "a file .wh.f1",
    }  # fmt: skip
    assert {name: record.answers[name] for name in told} == told
