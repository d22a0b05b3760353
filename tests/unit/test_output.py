"""Lists: the layouts that a real Docker client prints, and what metadata may not do to a terminal."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cli.output import Column, align, display_width, ellipsis, label_header, printable, render_rows, short_id
from lamina.cli.template import TemplateError, TemplateSyntaxError

COLUMNS = [
    Column(field="ID", header="CONTAINER ID"),
    Column(field="Image", header="IMAGE"),
    Column(field="Command", header="COMMAND"),
    Column(field="RunningFor", header="CREATED"),
    Column(field="Status", header="STATUS"),
    Column(field="Ports", header="PORTS"),
    Column(field="Names", header="NAMES"),
    Column(field="Labels", header="LABELS", in_table=False),
    Column(field="Label", header=label_header, in_table=False),
]
ROW = {
    "ID": "364913b7c54a",
    "Image": "tmplfmt:probe",
    "Command": '"/bin/echo hello wor…"',
    "RunningFor": "About a minute ago",
    "Status": "Created",
    "Ports": "",
    "Names": "tmplfmt-probe",
    "Labels": 'a=one,h=<x>&"y"',
    "Label": lambda name: {"a": "one"}.get(name, ""),
}


def printed(*rows, template=None, **options):
    return "".join(f"{text}\n" for text in render_rows(rows, columns=COLUMNS, template=template, **options))


def test_the_plain_table_is_dockers():
    assert printed(ROW) == (
        "CONTAINER ID   IMAGE           COMMAND                  CREATED              STATUS    PORTS     NAMES\n"
        '364913b7c54a   tmplfmt:probe   "/bin/echo hello wor…"   About a minute ago   Created             tmplfmt-probe\n'
    )


def test_a_plain_table_does_without_the_evaluator_of_templates():
    code = """
import sys
from lamina.cli.output import Column, render_rows
print(*render_rows([{"ID": "x"}], columns=[Column(field="ID", header="H")]), "lamina.cli.template" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "H x False\n"


def test_an_empty_table_is_its_head():
    assert printed() == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    assert printed(template="table") == printed() == printed(template="")


@pytest.mark.parametrize(
    ("template", "text"),
    [  # what docker ps -a --format printed
        (r"table {{.ID}}\t{{.Names}}", "CONTAINER ID   NAMES\n364913b7c54a   tmplfmt-probe\n"),
        (
            r"table {{.ID}} {{json .Names}} {{upper .Image}}\t{{.Ports}}|",
            'CONTAINER ID NAMES IMAGE                     PORTS|\n364913b7c54a "tmplfmt-probe" TMPLFMT:PROBE   |\n',
        ),
        (r'table {{.Label "a"}}\t{{.ID}}', "a         CONTAINER ID\none       364913b7c54a\n"),
        ("table{{.ID}}", "CONTAINER ID\n364913b7c54a\n"),
        ("table foo", "foo\nfoo\n"),
        (r"table {{if .ID}}{{.Names}}{{else}}none{{end}}\t{{.Status}}", "NAMES           STATUS\ntmplfmt-probe   Created\n"),
        (r"table {{len .ID}}\t{{truncate .Names 3}}", "12        NAMES\n12        tmp\n"),
        (r'table {{.ID | printf "%.5s"}}\t{{.Names}}', "CONTA     NAMES\n36491     tmplfmt-probe\n"),
        (
            r"table {{.Names}}\t\t{{.ID}}\t",
            "NAMES                     CONTAINER ID   \ntmplfmt-probe             364913b7c54a   \n",
        ),
        (r"table {{pad .Names 1 1}}\t{{.ID}}", " NAMES            CONTAINER ID\n tmplfmt-probe    364913b7c54a\n"),
        (
            r'table {{title .Names}}\t{{lower .ID}}\t{{join (split .Names "-") "+"}}|',
            "NAMES           CONTAINER ID   NAMES|\nTmplfmt-Probe   364913b7c54a   tmplfmt+probe|\n",
        ),
        (r"{{.ID}}\t{{.Names}}", "364913b7c54a\ttmplfmt-probe\n"),
        ("   table   {{.Names}}  x   ", "table   tmplfmt-probe  x\n"),
        ("TABLE {{.ID}}", "TABLE 364913b7c54a\n"),
        ('{{.Label "a"}} {{.Label "none"}}|', "one |\n"),
        (r"{{.ID}}\n{{.Names}}", "364913b7c54a\ntmplfmt-probe\n"),
    ],
)
def test_a_format_lays_a_list_out_as_docker_does(template: str, text: str):
    assert printed(ROW, template=template) == text


def test_json_is_an_object_per_line_with_sorted_keys_and_escaped_html():
    lines = printed(ROW, ROW, template="json").splitlines()
    assert len(lines) == 2
    assert lines[0].startswith('{"Command":"\\"/bin/echo hello wor…\\"","ID":"364913b7c54a"')
    assert '"Labels":"a=one,h=\\u003cx\\u003e\\u0026\\"y\\""' in lines[0]
    assert json.loads(lines[0]) == {field: value for field, value in ROW.items() if field != "Label"}


def test_a_row_can_be_had_as_json_by_a_template():
    assert json.loads(printed(ROW, template="{{json .}}"))["Names"] == "tmplfmt-probe"


def test_quiet_shows_ids_alone_whatever_the_format():
    assert printed(ROW, ROW, quiet_field="ID", template="table {{.Names}}") == "364913b7c54a\n364913b7c54a\n"


@pytest.mark.parametrize("template", ["table {{.Foo}}", r"table {{.ID}}\t{{.Mounts}}", "table {{.Volumes}}"])
def test_a_table_of_an_unknown_field_is_refused_even_without_rows(template: str):
    with pytest.raises(TemplateError, match="map has no entry for key") as caught:
        printed(template=template)
    assert caught.value.hint.startswith("fields: ID, Image, ")


def test_a_row_has_no_fields_but_its_own():
    with pytest.raises(TemplateError, match='no entry for key "Mounts"'):
        printed(ROW, template="{{.Mounts}}")


def test_a_malformed_format_is_refused_before_a_row_is_asked_for():
    def rows():
        raise AssertionError("a row was asked for")
        yield ROW

    with pytest.raises(TemplateSyntaxError, match="unclosed action"):
        list(render_rows(rows(), columns=COLUMNS, template="{{"))


def test_rows_of_a_plain_format_are_printed_as_they_come():
    def rows():
        yield ROW
        raise AssertionError("a second row was asked for")

    assert next(render_rows(rows(), columns=COLUMNS, template="{{.ID}}")) == "364913b7c54a"


def test_a_value_can_not_drive_the_terminal_or_break_a_table():
    evil = ROW | {"Names": "a\tb\nc\x1b[31m\u202e\x9b"}
    assert printed(evil).splitlines()[1].endswith("   a\\x09b\\x0ac\\x1b[31m\\u202e\\x9b")
    assert printed(evil, template="table {{.Names}}") == "NAMES\na\\x09b\\x0ac\\x1b[31m\\u202e\\x9b\n"
    assert printed(evil, template="{{.Names}}", is_terminal=True) == "a\\x09b\\x0ac\\x1b[31m\\u202e\\x9b\n"
    assert printed(evil, template="{{.Names}}") == "a\tb\nc\x1b[31m\u202e\x9b\n"
    labelled = ROW | {"Label": lambda name: f"{name}\x1b[2J"}
    assert printed(labelled, template='table {{.Label "a"}}') == "a\na\\x1b[2J\n"
    assert printed(labelled, template='{{.Label "a"}}', is_terminal=True) == "a\\x1b[2J\n"
    assert json.loads(printed(evil, template="json", is_terminal=True))["Names"] == evil["Names"]
    assert "\u202e" not in printed(evil, template="json", is_terminal=True)


@given(st.text())
def test_what_is_printable_has_no_control_character(text: str):
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in printable(text))
    printable(text).encode()


def test_printable_leaves_human_writing_alone():
    assert printable("grüße 日本 été ✓") == "grüße 日本 été ✓"


def test_a_column_ends_where_a_line_has_no_such_cell():
    assert align("aaaaaaaaaaaa\tb\nplain\nc\td") == "aaaaaaaaaaaa   b\nplain\nc         d"
    assert align("a\tlong long cell\tx\nb\ty") == "a         long long cell   x\nb         y"
    assert align("") == ""


def test_wide_characters_take_two_cells():
    assert display_width("日本") == 4
    assert display_width("e\u0301") == 1
    assert align("日本日本日本\tx\nabc\tx") == "日本日本日本   x\nabc            x"


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("/bin/echo hello world", 20, "/bin/echo hello wor…"),
        ("short", 20, "short"),
        ("exact", 5, "exact"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("日本語", 4, "日…"),
        ("日本語", 5, "日本…"),
        ("", 0, ""),
    ],
)
def test_a_cut_text_keeps_within_its_width(text: str, width: int, cut: str):
    assert ellipsis(text, width) == cut


def test_a_short_id_is_twelve_characters_without_the_algorithm():
    digest = "364913b7c54afc1f8a49db97982b5369e652d328b07b6696412c0c6253264b71"
    assert short_id(digest) == short_id(f"sha256:{digest}") == "364913b7c54a"


def test_a_labels_header_is_the_last_part_of_its_name():
    assert label_header("com.example.build-date_utc") == "build date utc"


def test_many_columns_take_no_recursion():
    assert align("\t" * 5000 + "x") == " " * 50000 + "x"
