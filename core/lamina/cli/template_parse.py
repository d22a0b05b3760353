"""Go's text/template as text: from what was typed to a tree of nodes. It evaluates nothing and knows no function's meaning.

    {{if .State.Running}}up{{end}}  ->  [Branch("if", pipe=Pipe([Command([Field(State, Running)])]), body=[Text("up")])]

`parse` splits the text at `{{` and `}}`, cuts each action into tokens, and reads them by recursive descent. The language is that of
https://pkg.go.dev/text/template; the messages follow those of the real `docker inspect --format`.
"""

import re
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, field

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
    TemplateSyntaxError,
    Text,
    Variable,
    locate,
    one_line,
    quote,
)


def parse(text: str, *, functions: Collection[str]) -> dict[str, tuple[Node, ...]]:
    """Read a template; the key "" holds the main text, the others what `define` and `block` named.

    `functions` are the names that may be called. Raises `TemplateSyntaxError`.
    """
    return _Parser(text=text, functions=functions).read()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str  # text, open, close, space, or what _TOKEN calls it
    text: str
    pos: int


_KEYWORDS = frozenset({"block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"})
_SPACE = " \t\r\n"
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]*(?:\.[0-9a-fA-F_]*)?(?:[pP][+-]?[0-9_]+)?
                         |0[bB][01_]+|0[oO][0-7_]+
                         |(?=\.?[0-9])[0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9_]*)?))
      | (?P<field>\.\w+)
      | (?P<dot>\.)
      | (?P<variable>\$\w*)
      | (?P<word>\w+)
      | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
      | (?P<raw>`[^`]*`)
      | (?P<char>'(?:[^'\\\n]|\\[^\n])*')
      | (?P<declare>:=) | (?P<assign>=) | (?P<pipe>\|) | (?P<comma>,) | (?P<left>\() | (?P<right>\))""",
    re.VERBOSE,
)
_TERMINATOR = re.compile(r"[ \t\r\n.,|:)(]|\}\}|\Z")  # what may follow a name
_COMMENT_END = re.compile(r"(?:[ \t\r\n]-)?\}\}")
_MISPLACED_UNDERSCORE = re.compile(r"(?:^|[^0-9a-zA-Z])_|_(?:$|[^0-9a-zA-Z])")  # it may only part digits
_UNFINISHED = {'"': "unterminated quoted string", "`": "unterminated raw quoted string", "'": "unterminated character constant"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"', "'": "'"}


def _bad_character(character: str) -> str:
    if not character.isprintable():
        return f"unrecognized character in action: U+{ord(character):04X}"
    return f"bad character U+{ord(character):04X} '{character}'"


@dataclass(slots=True, kw_only=True)
class _Parser:
    text: str
    functions: Collection[str]
    defined: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    variables: list[str] = field(default_factory=lambda: ["$"])
    loops: int = 0
    _tokens: list[_Token] = field(default_factory=list)
    _next: int = 0

    def read(self) -> dict[str, tuple[Node, ...]]:
        self._tokens = list(self._scan())
        main, stopper = self._nodes(at_top=True)
        if stopper:
            raise self._wrong(f"unexpected {{{{{stopper}}}}}")
        self._define("", main)
        return self.defined

    def _wrong(self, what: str, *, pos: int | None = None) -> TemplateSyntaxError:
        if pos is None:
            pos = self._tokens[min(self._next, len(self._tokens)) - 1].pos if self._tokens else 0
        line = locate(self.text, pos).partition(":")[0]
        return TemplateSyntaxError(one_line(f"template parsing error: template: :{line}: {what}"))

    # --- characters to tokens ---

    def _scan(self) -> Iterator[_Token]:
        text, pos, trim = self.text, 0, False
        while True:
            start = text.find("{{", pos)
            plain = text[pos:] if start < 0 else text[pos:start]
            if trim:
                plain = plain.lstrip(_SPACE)
            if start >= 0 and text[start + 2 : start + 3] == "-" and text[start + 3 : start + 4] in (*_SPACE,):
                plain, begin = plain.rstrip(_SPACE), start + 4
            else:
                begin = start + 2
            if plain:
                yield _Token(kind="text", text=plain, pos=pos)
            if start < 0:
                return
            comment = begin + len(text[begin:]) - len(text[begin:].lstrip(_SPACE)) if begin == start + 4 else begin
            if text.startswith("/*", comment):
                pos, trim = self._skip_comment(comment)
                continue
            yield _Token(kind="open", text="{{", pos=start)
            pos, trim = yield from self._scan_action(begin)

    def _skip_comment(self, begin: int) -> tuple[int, bool]:
        end = self.text.find("*/", begin)
        if end < 0:
            raise self._wrong("unclosed comment", pos=begin)
        after = _COMMENT_END.match(self.text, end + 2)
        if not after:
            raise self._wrong("comment ends before closing delimiter", pos=begin)
        return after.end(), len(after.group()) > 2

    def _scan_action(self, pos: int) -> Generator[_Token, None, tuple[int, bool]]:
        """Yield an action's tokens; answer where it ends and whether it trims what follows."""
        text = self.text
        while True:
            trim = text[pos : pos + 1] in (*_SPACE,) and text.startswith("-}}", pos + 1)
            if trim or text.startswith("}}", pos):
                yield _Token(kind="close", text="}}", pos=pos)
                return pos + (4 if trim else 2), trim
            if pos >= len(text):
                raise self._wrong("unclosed action", pos=pos)
            match = _TOKEN.match(text, pos)
            if not match:
                raise self._unreadable(pos)
            kind, word, end = str(match.lastgroup), match.group(), match.end()
            if kind == "space" and text.startswith("-}}", end):
                end -= 1  # the marker owns its space
                word = word[:-1]
            if kind == "number" and text[end : end + 1].isalnum():
                raise self._wrong(f"bad number syntax: {quote(word + text[end])}", pos=pos)
            if kind in {"field", "variable", "word"} and not _TERMINATOR.match(text, end):
                raise self._wrong(_bad_character(text[end]), pos=end)
            yield _Token(kind=kind, text=word, pos=pos)
            pos = end

    def _unreadable(self, pos: int) -> TemplateSyntaxError:
        character = self.text[pos]
        if character in _UNFINISHED:
            return self._wrong(_UNFINISHED[character], pos=pos)
        if character in "+-":
            return self._wrong(f"illegal number syntax: {quote(character)}", pos=pos)
        if character == ":":
            return self._wrong("expected :=", pos=pos)
        if " " < character <= "~" and character not in "{}":
            return self._wrong(f"unexpected {quote(character)} in command", pos=pos)
        return self._wrong(_bad_character(character), pos=pos)

    # --- tokens to nodes ---

    def _peek(self, *, skip_space: bool = True) -> _Token:
        at = self._next
        while skip_space and at < len(self._tokens) and self._tokens[at].kind == "space":
            at += 1
        return self._tokens[at] if at < len(self._tokens) else _Token(kind="eof", text="EOF", pos=len(self.text))

    def _take(self, *, skip_space: bool = True) -> _Token:
        while skip_space and self._next < len(self._tokens) and self._tokens[self._next].kind == "space":
            self._next += 1
        token = self._peek(skip_space=False)
        self._next += 1
        return token

    def _nodes(self, *, at_top: bool = False) -> tuple[tuple[Node, ...], str]:
        """Read up to `{{end}}` or `{{else}}` (left taken, its closing not) or the end of the text; answer with which it was."""
        nodes: list[Node] = []
        while True:
            token = self._take()
            if token.kind == "eof":
                if at_top:
                    return tuple(nodes), ""
                raise self._wrong("unexpected EOF")
            if token.kind == "text":
                nodes.append(Text(text=token.text))
                continue
            word = self._peek()
            keyword = word.text if word.kind == "word" and word.text in _KEYWORDS else ""
            if keyword in {"end", "else"}:
                self._take()
                return tuple(nodes), keyword
            if keyword == "define" and at_top:
                self._take()
                self._read_define()
            else:
                nodes.append(self._action(keyword))

    def _action(self, keyword: str) -> Node:
        if keyword:
            at = self._take()
        if keyword in {"if", "with", "range"}:
            return self._branch(keyword)
        if keyword in {"break", "continue"}:
            if not self.loops:
                raise self._wrong(f"{{{{{keyword}}}}} outside {{{{range}}}}")
            self._close(keyword)
            return Jump(keyword=keyword)
        if keyword == "template":
            name = self._quoted("template clause")
            pipe = None if self._peek().kind == "close" else self._pipe("template clause")
            if pipe is None:
                self._take()
            return Invoke(pos=name.pos, name=_unquote(self, name), pipe=pipe)
        if keyword == "block":
            name = self._quoted("block clause")
            pipe = self._pipe("block clause")
            self._read_definition(_unquote(self, name), clause="block clause")
            return Invoke(pos=name.pos, name=_unquote(self, name), pipe=pipe)
        if keyword:
            raise self._wrong(f"unexpected <{keyword}> in command", pos=at.pos)
        return Action(pipe=self._pipe("command"))

    def _close(self, clause: str) -> None:
        token = self._take()
        if token.kind != "close":
            raise self._wrong(f"unexpected {_describe(token)} in {clause}")

    def _quoted(self, clause: str) -> _Token:
        token = self._take()
        if token.kind not in {"string", "raw"}:
            raise self._wrong(f"unexpected {_describe(token)} in {clause}")
        return token

    def _read_define(self) -> None:
        name = _unquote(self, self._quoted("define clause"))
        self._close("define clause")
        self._read_definition(name, clause="define clause")

    def _read_definition(self, name: str, *, clause: str) -> None:
        outer_variables, outer_loops = self.variables, self.loops
        self.variables, self.loops = ["$"], 0
        body, stopper = self._nodes()
        if stopper != "end":
            raise self._wrong(f"unexpected {{{{{stopper}}}}} in {clause}")
        self._close("end")
        self.variables, self.loops = outer_variables, outer_loops
        self._define(name, body)

    def _define(self, name: str, body: tuple[Node, ...]) -> None:
        """Keep a body; one that is only white space neither replaces another nor collides with it."""
        blank = all(isinstance(node, Text) and not node.text.strip(_SPACE) for node in body)
        if name not in self.defined or all(isinstance(n, Text) and not n.text.strip(_SPACE) for n in self.defined[name]):
            self.defined[name] = body
        elif not blank:
            raise self._wrong(f"template: multiple definition of template {quote(name)}")

    def _branch(self, keyword: str) -> Branch:
        scope = len(self.variables)
        pipe = self._pipe(keyword)
        self.loops += keyword == "range"
        body, stopper = self._nodes()
        self.loops -= keyword == "range"
        otherwise: tuple[Node, ...] | None = None
        if stopper == "else":
            following = self._peek()
            if following.kind == "word" and following.text == keyword and keyword in {"if", "with"}:
                self._take()  # {{else if}}: one {{end}} closes both
                otherwise = (self._branch(keyword),)
                del self.variables[scope:]
                return Branch(keyword=keyword, pipe=pipe, body=body, otherwise=otherwise)
            if following.kind == "word":
                raise self._wrong(f"unexpected {_describe(following)} in input")
            self._close("else")
            otherwise, stopper = self._nodes()
            if stopper != "end":
                raise self._wrong("expected end; found {{else}}")
        self._close("end")
        del self.variables[scope:]
        return Branch(keyword=keyword, pipe=pipe, body=body, otherwise=otherwise)

    def _pipe(self, context: str, *, closing: str = "close") -> Pipe:
        pos = self._peek().pos
        declares, assigns = self._declarations(context)
        commands: list[Command] = []
        while True:
            token = self._peek()
            if token.kind == closing:
                self._take()
                break
            if token.kind in {"close", "eof"}:
                raise self._wrong("unclosed left paren")
            if token.kind == "right":
                raise self._wrong("unexpected right paren")
            if token.kind in {"declare", "assign", "comma", "pipe"} or token.text in _KEYWORDS:
                shown = f"<{token.text}>" if token.text in _KEYWORDS else quote(token.text)
                raise self._wrong(f"unexpected {shown} in {context}")
            commands.append(self._command())
        if not commands:
            raise self._wrong(f"missing value for {context}")
        for stage, command in enumerate(commands[1:], start=2):
            if isinstance(command.words[0], Literal | Dot | Nil | Pipe):
                raise self._wrong(f"non executable command in pipeline stage {stage}")
        return Pipe(pos=pos, commands=tuple(commands), declares=declares, assigns=assigns)

    def _declarations(self, context: str) -> tuple[tuple[str, ...], bool]:
        """Read `$x :=`, `$x =` or, in range, `$i, $x :=`; take nothing if the variable is only used."""
        start, names = self._next, []
        while self._peek().kind == "variable":
            names.append(self._take().text)
            token = self._peek()
            if token.kind in {"declare", "assign"}:
                if len(names) > (2 if context == "range" else 1):
                    raise self._wrong(f"too many declarations in {context}")
                self._take()
                self.variables += names
                return tuple(names), token.kind == "assign"
            if token.kind != "comma":
                break
            self._take()
        self._next = start
        return (), False

    def _command(self) -> Command:
        pos = self._peek().pos
        words: list[Operand] = []
        while True:
            if operand := self._operand():
                words.append(operand)
            token = self._peek(skip_space=False)
            if token.kind in {"close", "right"}:
                break
            if token.kind == "pipe":
                self._take()
                break
            if token.kind != "space":
                raise self._wrong(f"unexpected {_describe(token)} in operand")
            self._take(skip_space=False)
        if not words:
            raise self._wrong("empty command")
        return Command(pos=pos, words=tuple(words))

    def _operand(self) -> Operand | None:
        term = self._term()
        if term is None or self._peek(skip_space=False).kind != "field":
            return term
        pos, names = self._peek().pos, []
        while self._peek(skip_space=False).kind == "field":
            names.append(self._take().text[1:])
        match term:
            case Field():
                return Field(pos=pos, names=(*term.names, *names))
            case Variable():
                return Variable(pos=pos, name=term.name, names=tuple(names))
            case Pipe():
                return Chain(pos=pos, pipe=term, names=tuple(names))
            case Dot() | Nil() | Literal():
                raise self._wrong(f"unexpected . after term {quote(str(term))}")
        raise self._wrong(f"unexpected . after function {quote(str(term))}")

    def _term(self) -> Operand | None:
        token = self._peek()
        pos, text = token.pos, token.text
        if token.kind not in {"number", "field", "dot", "variable", "word", "string", "raw", "char", "left"}:
            return None
        if text in _KEYWORDS:
            return None
        self._take()
        match token.kind:
            case "field":
                return Field(pos=pos, names=(text[1:],))
            case "dot":
                return Dot(pos=pos)
            case "variable":
                if text not in self.variables:
                    raise self._wrong(f"undefined variable {quote(text)}")
                return Variable(pos=pos, name=text)
            case "string" | "raw":
                return Literal(pos=pos, source=text, value=_unquote(self, token))
            case "char":
                return Literal(pos=pos, source=text, value=_character(self, token))
            case "number":
                return Literal(pos=pos, source=text, value=_number(self, token))
            case "left":
                return self._pipe("parenthesized pipeline", closing="right")
        if text in {"true", "false"}:
            return Literal(pos=pos, source=text, value=text == "true")
        if text == "nil":
            return Nil(pos=pos)
        if text not in self.functions:
            raise self._wrong(f"function {quote(text)} not defined")
        return Name(pos=pos, name=text)


def _describe(token: _Token) -> str:
    """Name a token as messages do: keywords and the dot in angle brackets, the rest quoted."""
    if token.kind == "eof":
        return "EOF"
    return f"<{token.text}>" if token.kind == "dot" or token.text in _KEYWORDS else quote(token.text)


def _unquote(parser: _Parser, token: _Token) -> str:
    inner = token.text[1:-1]
    if token.kind == "raw":
        return inner.replace("\r", "")
    octets = bytearray()
    at = 0
    for match in _ESCAPE.finditer(inner):
        octets += inner[at : match.start()].encode("utf-8", "surrogatepass")
        at = match.end()
        byte, short, long, octal, plain = match.groups()
        if byte or octal:  # these name a byte, not a character
            number = int(byte, 16) if byte else int(octal, 8)
            if number > 255:
                raise parser._wrong("invalid syntax")
            octets.append(number)
            continue
        number = int(short or long, 16) if short or long else -1
        if number > 0x10FFFF or 0xD800 <= number < 0xE000 or (plain and plain not in _ESCAPED):
            raise parser._wrong("invalid syntax")
        if plain == ("'" if token.kind != "char" else '"'):
            raise parser._wrong("invalid syntax")
        octets += (_ESCAPED[plain] if plain else chr(number)).encode()
    octets += inner[at:].encode("utf-8", "surrogatepass")
    return octets.decode("utf-8", "surrogateescape")


def _character(parser: _Parser, token: _Token) -> int:
    if len(token.text) < 3:
        raise parser._wrong("invalid syntax")
    value = _unquote(parser, token)
    if len(value) != 1:
        raise parser._wrong(f"malformed character constant: {token.text}")
    number = ord(value)
    return number - 0xDC00 if 0xDC80 <= number <= 0xDCFF else number


def _number(parser: _Parser, token: _Token) -> int | float:
    text = token.text
    bare = text.replace("_", "").lstrip("+-").lower()
    sign = -1 if text.startswith("-") else 1
    try:
        if _MISPLACED_UNDERSCORE.search(text):
            raise ValueError(text)
        if bare.startswith(("0x", "0b", "0o")) and "." not in bare and "p" not in bare:
            number: int | float = sign * int(bare, 0)
        elif bare.isdigit():
            number = sign * int(bare, 8 if len(bare) > 1 and bare.startswith("0") else 10)
        else:
            number = sign * (float.fromhex(bare) if "p" in bare else float(bare))
            if number in {float("inf"), float("-inf")}:
                raise ValueError(text)
    except (ValueError, OverflowError):
        raise parser._wrong(f"illegal number syntax: {quote(text)}") from None
    if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
        raise parser._wrong(f"integer overflow: {quote(text)}")
    return number
