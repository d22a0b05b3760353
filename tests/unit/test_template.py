"""Templates: against what a real Docker client printed, and where Lamina's documents differ from Docker's structs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.cli.template import Template, TemplateError, TemplateSyntaxError, render, unescape

DOCKER = json.loads((Path(__file__).parent / "docker_templates.json").read_text(encoding="utf-8"))
CONTAINER = DOCKER["container"]


@pytest.mark.parametrize(("template", "exit_code", "text"), DOCKER["cases"], ids=[repr(case[0]) for case in DOCKER["cases"]])
def test_a_template_gives_what_docker_gives(template: str, exit_code: int, text: str):
    if exit_code == 0:
        assert render(template, CONTAINER) == text
        return
    with pytest.raises(TemplateError) as caught:
        render(template, CONTAINER)
    assert str(caught.value) == text
    assert caught.value.exit_code == exit_code


def test_the_pid_is_a_number_in_comparisons_and_formats():
    document = {"State": {"Pid": 4711, "Running": True}}
    assert render("{{ .State.Pid}}", document) == "4711"
    assert render('{{if gt .State.Pid 0}}{{printf "%08d" .State.Pid}}{{end}}', document) == "00004711"
    assert render("{{eq .State.Pid 4711}} {{ne .State.Pid 0}}", document) == "true true"


def test_a_field_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(TemplateError, match=r'at <\.State\.Foo>: map has no entry for key "Foo"'):
        render("{{.State.Foo}}", CONTAINER)


def test_a_label_that_is_not_there_is_no_error():
    assert render("{{.Config.Labels.nope}}", CONTAINER) == "<no value>"
    assert render('[{{index .Config.Labels "nope"}}]', CONTAINER) == "[]"
    assert render("{{if .Config.Labels.nope}}y{{else}}n{{end}}", CONTAINER) == "n"


def test_labels_that_are_null_behave_as_an_empty_map_and_stay_null_in_json():
    document = {"Config": {"Labels": None, "Entrypoint": None}}
    assert render('{{.Config.Labels}}|{{index .Config.Labels "x"}}|{{.Config.Labels.x}}', document) == "map[]||<no value>"
    assert render("{{json .Config.Labels}} {{len .Config.Labels}}", document) == "null 0"
    assert render("{{.Config.Entrypoint}} {{json .Config.Entrypoint}} {{json .Config}}", document) == (
        '[] null {"Labels":null,"Entrypoint":null}'
    )


def test_a_field_that_docker_leaves_out_when_empty_may_be_asked_for():
    assert render("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", CONTAINER) == "none"
    assert render("{{.State.Health}} {{.HostConfig.Tmpfs}}", CONTAINER) == "<nil> map[]"


def test_a_label_named_like_a_map_is_still_a_label():
    assert render("{{.Labels.Options}}", {"Labels": {"Options": "x"}}) == "x"


def test_json_keeps_the_documents_order_and_escapes_no_html():
    assert render("{{json .}}", {"b": 1, "a": ["<&>", None, 1.0, True], "c": {}}) == '{"b":1,"a":["<&>",null,1,true],"c":{}}'


def test_json_writes_control_characters_as_go_does():
    assert render("{{json .}}", "\x00\x1f\b\f\v\n\u2028\ud800\x7f") == '"\\u0000\\u001f\\b\\f\\u000b\\n\\u2028\\ufffd\x7f"'


def test_objects_print_as_maps_with_sorted_keys():
    assert render("{{.}}", {"b": [1, "x", None], "a": {"z": False}}) == "map[a:map[z:false] b:[1 x <nil>]]"


def test_a_string_is_bytes_to_len_slice_and_truncate():
    assert render('{{len .}} {{slice . 0 2}} {{printf "%q" (slice . 1 2)}} {{index . 0}}', "äb") == r'3 ä "\xa4" 195'
    assert render("{{truncate . 1}}", "äb") == "\ufffd"


def test_methods_of_a_row_take_arguments():
    row = {"Label": lambda name: f"<{name}>"}
    assert render('{{.Label "a"}} {{"b" | .Label}} {{.Label "c" | upper}}', row) == "<a> <b> <C>"
    with pytest.raises(TemplateError, match="wrong number or type of args for Label"):
        render("{{.Label}}", row)


def test_a_template_can_be_rendered_many_times():
    template = Template("{{$x := .}}{{define `t`}}[{{.}}]{{end}}{{template `t` $x}}")
    assert [template.render(n) for n in range(3)] == ["[0]", "[1]", "[2]"]


def test_a_variable_of_a_template_is_not_seen_by_another():
    with pytest.raises(TemplateSyntaxError, match=r'undefined variable "\$x"'):
        Template('{{$x := 1}}{{define "t"}}{{$x}}{{end}}')


def test_break_leaves_only_the_inner_range():
    assert render("{{range .}}{{range .}}{{if eq . 2}}{{break}}{{end}}{{.}}{{end}};{{end}}", [[1, 2, 3], [4]]) == "1;4;"


def test_messages_count_lines_and_bytes_as_go_does():
    with pytest.raises(TemplateError, match=r'^template parsing error: template: :3:4: executing "" at <\.No>'):
        render("a\n\nü{{.No}}", {})
    with pytest.raises(TemplateSyntaxError, match=r"^template parsing error: template: :2: unexpected \{\{end\}\}$"):
        render("a\n{{end}}", {})


@pytest.mark.parametrize("depth", [5_000, 50_000])
def test_a_template_nested_beyond_reason_is_an_error(depth: int):
    with pytest.raises(TemplateError):
        render("{{" + "(" * depth + "1" + ")" * depth + "}}", None)
    with pytest.raises(TemplateError):
        render("{{if 1}}" * depth + "{{end}}" * depth, None)


def test_a_template_that_calls_itself_for_ever_is_an_error():
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        render('{{define "t"}}{{template "t" .}}{{end}}{{template "t" .}}', 1)


def test_a_width_beyond_gos_limit_is_refused_in_gos_way():
    assert render('{{printf "%1000001d|" 1}}', None) == "%!(BADWIDTH)1|"
    assert render('{{printf "%*d|" 1000001 1}}', None) == "%!(BADWIDTH)1|"


def test_a_message_is_one_line_whatever_the_data_holds():
    with pytest.raises(TemplateError, match=r"can't iterate over a\\n\\x1b\[31m$"):
        render("{{range .}}{{end}}", "a\n\x1b[31m")


def test_a_variable_declared_in_the_branch_not_taken_is_an_error():
    with pytest.raises(TemplateError, match=r"undefined variable: \$x"):
        render("{{if .}}{{$x := 1}}{{else}}{{$x}}{{end}}", False)


def test_a_typed_backslash_t_becomes_a_tab():
    assert unescape(r"{{.ID}}\t{{.Names}}\n") == "{{.ID}}\t{{.Names}}\n"


VOCABULARY = """
    . .a .b.c .Labels $ $x := = | ( ) , 0 1 -1 1.5 true nil 'a' `r` "s" "%d" "%-5s" /* */
    if else end range with define template block break continue
    and or not eq lt len index slice print printf html js urlquery call json split join title pad truncate
"""
WORDS_IN_ACTIONS = VOCABULARY.split()
WORDS = st.sampled_from(["{{", "}}", "{{-", "-}}", "\n", *WORDS_IN_ACTIONS])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "Labels", "Env"]) | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


def _render_or_refuse(text: str, data: object) -> None:
    try:
        render(text, data).encode()
    except TemplateError as error:
        assert str(error).isprintable()


@given(text=st.text() | st.lists(WORDS).map(" ".join), data=JSON)
@settings(max_examples=300, deadline=None)
def test_any_text_is_rendered_or_refused_with_a_template_error(text: str, data: object):
    _render_or_refuse(text, data)


@given(actions=st.lists(st.lists(st.sampled_from(WORDS_IN_ACTIONS), max_size=5).map(" ".join), max_size=5), data=JSON)
@settings(max_examples=500, deadline=None)
def test_any_action_is_rendered_or_refused_with_a_template_error(actions: list[str], data: object):
    _render_or_refuse("".join(f"{{{{{action}}}}}" for action in actions), data)


@given(data=JSON, form=st.from_regex(r"%[-+# 0]{0,3}[0-9]{0,2}(\.[0-9]{0,2})?(\[[0-3]\])?[a-zA-Z%]", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_any_value_can_be_printed_with_any_verb(data: object, form: str):
    _render_or_refuse(f"{{{{printf {json.dumps(form)} .}}}}{{{{json .}}}}{{{{.}}}}", data)
