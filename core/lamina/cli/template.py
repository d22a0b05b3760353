"""`--format`: Go's text/template as Docker's users type it, over plain JSON documents. It isn't Go's own: there are no types.

    render("{{.State.Pid}} {{json .Config.Env}}", document)

Docker evaluates a template against Go structs and, if that fails, against the JSON. Here there is only the JSON, so what Docker
knows by type is known by name: `_DICTIONARIES` are the objects whose keys are data and may be absent, `_LISTS` the fields where
null is an empty list. Any other absent key is an error, as in Docker. Objects print as maps: only a struct knows its fields' order.

Reading is in `template_parse` and `template_tree`, the functions in `template_functions`, Go's way to write values in
`template_print`.
"""

from collections.abc import Mapping, Sequence
from typing import NoReturn

from lamina.cli.template_functions import FUNCTIONS, Function, is_true
from lamina.cli.template_parse import parse
from lamina.cli.template_print import MISSING, Dictionary, Missing, NullList, Record, encode, show, type_name
from lamina.cli.template_tree import (
    Action,
    Branch,
    Chain,
    Command,
    Dot,
    Field,
    Invoke,
    Jump,
    Literal,
    Name,
    Nil,
    Node,
    Operand,
    Pipe,
    TemplateError,
    TemplateSyntaxError,
    Text,
    Variable,
    locate,
    one_line,
    quote,
)

__all__ = ["Template", "TemplateError", "TemplateSyntaxError", "render", "unescape"]

# Docker's map-typed fields, with what `index` gives for a key that isn't there.
_DICTIONARIES: dict[str, object] = {
    **dict.fromkeys(("Labels", "Options", "DriverOpts", "StorageOpt", "Sysctls", "Tmpfs", "Annotations"), ""),
    **dict.fromkeys(("Networks", "EndpointsConfig"), None),
    **dict.fromkeys(("Ports", "PortBindings", "ExposedPorts", "Volumes", "Data", "Containers"), MISSING),
}
_LISTS = frozenset(
    {
        "Args",
        "Aliases",
        "Binds",
        "CapAdd",
        "CapDrop",
        "Cmd",
        "DeviceCgroupRules",
        "DeviceRequests",
        "Devices",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "Entrypoint",
        "Env",
        "ExecIDs",
        "ExtraHosts",
        "GroupAdd",
        "Layers",
        "Links",
        "MaskedPaths",
        "Mounts",
        "OnBuild",
        "ReadonlyPaths",
        "RepoDigests",
        "RepoTags",
        "SecondaryIPAddresses",
        "SecondaryIPv6Addresses",
        "SecurityOpt",
        "Shell",
        "Ulimits",
        "VolumesFrom",
    }
)
# Fields that Docker's JSON leaves out when they are empty, and its templates know all the same: `{{if .State.Health}}` is common.
_OPTIONAL: dict[str, object] = {
    **dict.fromkeys(("Health", "Healthcheck", "Init", "StopTimeout"), None),
    **dict.fromkeys(("Annotations", "Mounts", "Shell", "StorageOpt", "Sysctls", "Tmpfs"), None),
    **dict.fromkeys(("Domainname", "MacAddress", "StopSignal", "VolumeDriver"), ""),
}

_KINDS: dict[str, tuple[type[object] | tuple[type[object], ...], str]] = {
    "s": (str, "string"),
    "i": (int, "integer"),
    "l": ((list, tuple), "[]string"),
}


def render(text: str, data: object) -> str:
    """Evaluate a template once. Raises `TemplateError`."""
    return Template(text).render(data)


def unescape(text: str) -> str:
    """Turn a typed `\\t` and `\\n` into a tab and a line break, as Docker's lists do and its `inspect` doesn't."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


class Template:
    """A template that has been read, to be evaluated any number of times."""

    def __init__(self, text: str, *, functions: Mapping[str, Function] = FUNCTIONS) -> None:
        self._text = text
        self._functions = functions
        try:
            self._bodies = parse(text, functions=functions)
        except RecursionError:
            raise TemplateSyntaxError("template parsing error: template: nested too deeply") from None

    def render(self, data: object) -> str:
        """Evaluate against a document: mappings, lists, strings, numbers, booleans, None, and callables as methods."""
        run = _Run(self._text, self._bodies, self._functions)
        try:
            run.invoke("", data)
            return encode("".join(run.written)).decode("utf-8", "replace")
        except RecursionError:
            run.fail("exceeded maximum template depth")


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    """One evaluation: what was written, the variables in scope, and the node at hand for messages."""

    def __init__(self, text: str, bodies: Mapping[str, tuple[Node, ...]], functions: Mapping[str, Function]) -> None:
        self.written: list[str] = []
        self._text = text
        self._bodies = bodies
        self._functions = functions
        self._variables: list[tuple[str, object]] = []
        self._at: Operand | Command | Invoke = Dot(pos=0)
        self._name = ""

    def fail(self, what: str) -> NoReturn:
        where = locate(self._text, self._at.pos)
        at = f"template: :{where}: executing {quote(self._name)} at <{self._at}>"
        raise TemplateError(one_line(f"template parsing error: {at}: {what}")) from None

    def invoke(self, name: str, dot: object) -> None:
        outer, self._variables = self._variables, [("$", dot)]
        outer_name, self._name = self._name, name
        self._walk(self._bodies[name], dot)
        self._variables, self._name = outer, outer_name

    def _walk(self, nodes: Sequence[Node], dot: object) -> None:
        for node in nodes:
            match node:
                case Text():
                    self.written.append(node.text)
                case Action():
                    value = self._pipe(node.pipe, dot)
                    if not node.pipe.declares:
                        self.written.append("<no value>" if isinstance(value, Missing) else show(value))
                case Branch():
                    scope = len(self._variables)
                    try:
                        self._branch(node, dot)
                    finally:
                        del self._variables[scope:]
                case Jump():
                    raise _Break if node.keyword == "break" else _Continue
                case Invoke():
                    self._at = node
                    if node.name not in self._bodies:
                        self.fail(f"template {quote(node.name)} not defined")
                    self.invoke(node.name, self._pipe(node.pipe, dot) if node.pipe else MISSING)

    def _branch(self, node: Branch, dot: object) -> None:
        value = self._pipe(node.pipe, dot)
        if node.keyword == "range":
            self._range(node, value, dot)
        elif is_true(value):
            self._walk(node.body, value if node.keyword == "with" else dot)
        elif node.otherwise:
            self._walk(node.otherwise, dot)

    def _range(self, node: Branch, value: object, dot: object) -> None:
        pairs: Sequence[tuple[object, object]] | range
        names = node.pipe.declares
        match value:
            case Mapping():
                pairs = [(key, value[key]) for key in sorted(value, key=str)]
            case list() | tuple():
                pairs = list(enumerate(value))
            case int() if not isinstance(value, bool):
                if len(names) > 1:
                    self.fail(f"can't use {value} to iterate over more than one variable")
                pairs = range(value)
            case None | Missing():
                pairs = []
            case _:
                self.fail(f"range can't iterate over {show(value)}")
        if not pairs and node.otherwise:
            self._walk(node.otherwise, dot)
        scope = len(self._variables)
        for pair in pairs:
            key, item = pair if isinstance(pair, tuple) else (pair, pair)
            for name, bound in zip(names, (key, item) if len(names) > 1 else (item,), strict=False):
                self._set(name, bound)
            try:
                self._walk(node.body, item)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self._variables[scope:]

    def _variable(self, name: str) -> object:
        for known, value in reversed(self._variables):
            if known == name:
                return value
        return self.fail(f"undefined variable: {name}")  # assigned in the text where no declaration was reached

    def _set(self, name: str, value: object) -> None:
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._variables[at] = (name, value)
                return
        self.fail(f"undefined variable: {name}")

    def _pipe(self, pipe: Pipe, dot: object) -> object:
        piped: tuple[object, ...] = ()
        for command in pipe.commands:
            piped = (self._command(command, dot, piped),)
        for name in pipe.declares:
            if pipe.assigns:
                self._set(name, piped[0])
            else:
                self._variables.append((name, piped[0]))
        return piped[0]

    def _command(self, command: Command, dot: object, piped: tuple[object, ...]) -> object:
        first, rest = command.words[0], command.words[1:]
        if isinstance(first, Field | Variable | Chain | Name):
            return self._operand(first, dot, command=command, rest=rest, piped=piped)
        self._at = command if isinstance(first, Pipe) else first
        if rest or piped:
            self.fail(f"can't give argument to non-function {first}")
        if isinstance(first, Nil):
            self.fail("nil is not a command")
        return self._operand(first, dot, command=command)

    def _operand(
        self,
        node: Operand,
        dot: object,
        *,
        command: Command | None = None,
        rest: tuple[Operand, ...] = (),
        piped: tuple[object, ...] = (),
    ) -> object:
        self._at = node
        match node:
            case Literal():
                return node.value
            case Dot():
                return dot
            case Nil():
                return MISSING
            case Pipe():
                return self._pipe(node, dot)
            case Name():
                return self._function(node, command or node, rest, piped, dot)
            case Field():
                return self._fields(node.names, dot, rest, piped, dot)
            case Chain():
                return self._fields(node.names, self._pipe(node.pipe, dot), rest, piped, dot)
            case Variable():
                value = self._variable(node.name)
                if node.names:
                    return self._fields(node.names, value, rest, piped, dot)
                if rest or piped:
                    self.fail(f"can't give argument to non-function {node}")
                return value

    def _fields(
        self, names: Sequence[str], value: object, rest: tuple[Operand, ...], piped: tuple[object, ...], dot: object
    ) -> object:
        """Follow a chain of fields; only the last may be a method, and only a method takes arguments."""
        receiver_type = type_name(value)
        for at, name in enumerate(names):
            is_last = at == len(names) - 1
            value = self._field(value, name, receiver_type)
            receiver_type = "interface {}"
            if callable(value):
                arguments = [self._argument(word, dot) for word in rest] if is_last else []
                try:
                    value = value(*arguments, *(piped if is_last else ()))
                except TypeError:
                    self.fail(f"wrong number or type of args for {name}: got {len(rest) + len(piped)}")
            elif is_last and (rest or piped):
                self.fail(f"{name} is not a method but has arguments")
        return value

    def _field(self, receiver: object, name: str, receiver_type: str) -> object:
        if isinstance(receiver, Missing):
            return MISSING
        if receiver is None or isinstance(receiver, NullList):
            self.fail(f"nil pointer evaluating interface {{}}.{name}")
        if not isinstance(receiver, Mapping):
            self.fail(f"can't evaluate field {name} in type {receiver_type}")
        if name not in receiver:
            if isinstance(receiver, Dictionary):
                return MISSING
            if name not in _OPTIONAL or isinstance(receiver, Record):
                self.fail(f"map has no entry for key {quote(name)}")
        value: object = receiver.get(name, _OPTIONAL.get(name))
        if value is None and name in _LISTS:
            return NullList()
        if name in _DICTIONARIES and (value is None or isinstance(value, Mapping)) and not isinstance(receiver, Dictionary):
            return Dictionary(value, zero=_DICTIONARIES[name])
        return value

    def _argument(self, word: Operand, dot: object) -> object:
        value = self._operand(word, dot)
        return None if isinstance(value, Missing) else value

    def _function(
        self, node: Name, command: Command | Name, words: tuple[Operand, ...], piped: tuple[object, ...], dot: object
    ) -> object:
        function, given = self._functions[node.name], len(words) + len(piped)
        if given < function.fewest or (given > function.fewest and not function.is_variadic):
            wanted = f"at least {function.fewest}" if function.is_variadic else str(function.fewest)
            self.fail(f"wrong number of args for {node.name}: want {wanted} got {given}")
        if node.name in {"and", "or"}:
            return self._decide(words, piped, dot, until=node.name == "or")
        arguments: list[object] = []
        for at, word in enumerate(words):
            arguments.append(self._checked(self._operand(word, dot), function.kind(at), word))
        for value in piped:
            arguments.append(self._checked(value, function.kind(len(words)), None))
        self._at = command
        if node.name == "call" and words and not callable(arguments[0]) and arguments[0] is not None:
            self.fail(f"error calling call: non-function {words[0]} of type {type_name(arguments[0])}")
        try:
            return function.call(*arguments)
        except (ValueError, TypeError) as error:
            self.fail(f"error calling {node.name}: {error}")

    def _decide(self, words: tuple[Operand, ...], piped: tuple[object, ...], dot: object, *, until: bool) -> object:
        """Evaluate `and` and `or`: no further than the word that decides."""
        value: object = None
        for word in words:
            value = self._operand(word, dot)
            if is_true(value) is until:
                return value
        return piped[0] if piped else value

    def _checked(self, value: object, kind: str, word: Operand | None) -> object:
        """See that an argument is of the kind that the function takes; `word` is how it was written, None if it was piped in."""
        if kind == "m":
            return value
        if kind == "a":
            return None if isinstance(value, Missing) else value
        wanted, shown = _KINDS[kind]
        if isinstance(value, wanted) and not isinstance(value, bool):
            return value
        if kind == "l" and (value is None or isinstance(value, Missing)):
            return []
        if isinstance(word, Literal | Dot | Nil) and kind == "l":
            self.fail(f"can't handle {word} for arg of type {shown}")
        if isinstance(word, Literal):
            self.fail(f"expected {shown}; found {word}")
        if isinstance(value, Missing) and isinstance(word, Field):
            self.fail(f"map has no entry for key {quote(word.names[-1])}")
        if value is None or isinstance(value, Missing):
            self.fail(f"invalid value; expected {shown}")
        return self.fail(f"wrong type for value; expected {shown}; got {type_name(value)}")
