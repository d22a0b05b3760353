"""How Go writes values: `fmt.Sprint`, `fmt.Sprintf` and `json.Marshal` for the values that a template meets.

Values are JSON's (dict, list, str, int, float, bool, None) plus `MISSING`, Go's "no value". It isn't a general printf: complex
numbers, pointers and Go types don't occur. Go's strings are bytes; here a byte that isn't UTF-8 is a surrogate escape until the
text is done.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lamina import json


class Missing:
    """What a lookup of an absent map key gives; printed as `<no value>`, false, and null in JSON."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing()


class Record(dict[str, Any]):
    """An object whose every field is known: a row of a list, where nothing is left out for being empty."""


class NullList(list[Any]):
    """JSON null where Docker has a list: an empty list to print and range over, and null again in JSON."""


class Dictionary(dict[str, Any]):
    """An object whose keys are data (labels, networks), not fields: a key that isn't there is no error, and gives `zero`."""

    def __init__(self, entries: Mapping[str, Any] | None, *, zero: object) -> None:
        super().__init__(entries or {})
        self.zero = zero
        self.is_null = entries is None


def encode(text: str) -> bytes:
    """Give a string's bytes as Go has them."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell and UTF-8 can't
        return text.encode("utf-8", "replace")


def decode(octets: bytes) -> str:
    """Invert `encode`, keeping bytes that aren't UTF-8."""
    return octets.decode("utf-8", "surrogateescape")


def type_name(value: object) -> str:
    """Name a value's Go type, for messages and `%T`."""
    match value:
        case None | Missing():
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case Mapping():
            return "map[string]interface {}"
        case list() | tuple():
            return "[]interface {}"
    return "func"


def sprint(*values: object) -> str:
    """Write values as `print` does: a space between two neighbours neither of which is a string."""
    parts: list[str] = []
    for at, value in enumerate(values):
        if at and not isinstance(value, str) and not isinstance(values[at - 1], str):
            parts.append(" ")
        parts.append(show(value))
    return "".join(parts)


def show(value: object) -> str:
    """Write one value as `%v`."""
    return _verb(value, "v", _Spec())


def format_float(value: float, form: str = "g", precision: int = -1) -> str:
    """Write a float in Go's form e, f or g; precision -1 is the fewest digits that read back as the same number."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if precision >= 0:
        return f"{value:.{max(precision, 1) if form == 'g' else precision}{form}}"
    digits, exponent = _shortest(value)
    sign = "-" if math.copysign(1, value) < 0 else ""
    if form == "e" or (form == "g" and not -4 <= exponent < 6):
        return sign + _scientific(digits, exponent)
    return sign + _positional(digits, exponent)


def _shortest(value: float) -> tuple[str, int]:
    """Split a float into its significant digits and the power of ten of the first."""
    mantissa, _, power = f"{abs(value):.17e}".partition("e")
    for places in range(18):
        text = f"{abs(value):.{places}e}"
        if float(text) == abs(value):
            mantissa, _, power = text.partition("e")
            break
    return mantissa.replace(".", "").rstrip("0") or "0", int(power)


def _scientific(digits: str, exponent: int) -> str:
    return f"{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _positional(digits: str, exponent: int) -> str:
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole, rest = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return whole + ("." + rest if rest else "")


# --- JSON ---


def to_json(value: object, *, escape_html: bool = False) -> str:
    """Write compact JSON as Go does, in the order in which an object's keys were given.

    `escape_html` writes <, > and & as \\u003c and so on: Go's default, which Docker turns off in templates and keeps for rows.
    """
    text = _json(value)
    if escape_html:
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return text


# Line separators are escaped though JSON allows them, and what isn't Unicode is replaced by U+FFFD, spelt out.
_ESCAPED_IN_JSON = re.compile("[\u2028\u2029\ud800-\udfff]")


def _escape_json(match: re.Match[str]) -> str:
    code = ord(match.group())
    return "\\ufffd" if code >= 0xD800 else f"\\u{code:04x}"


def _json(value: object) -> str:
    match value:
        case None | Missing() | NullList() | Dictionary(is_null=True):
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _ESCAPED_IN_JSON.sub(_escape_json, json.dumps(value, ensure_ascii=False))
        case int():
            return str(value)
        case float():
            digits, exponent = _shortest(value) if math.isfinite(value) else ("", 0)
            if not digits:
                raise ValueError(f"json: unsupported value: {format_float(value)}")
            sign = "-" if math.copysign(1, value) < 0 else ""
            if value and not -6 <= exponent < 21:
                return sign + re.sub(r"e-0(\d)$", r"e-\1", _scientific(digits, exponent))
            return sign + _positional(digits, exponent)
        case Mapping():
            return "{" + ",".join(f"{_json(str(k))}:{_json(v)}" for k, v in value.items() if not callable(v)) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_json, value)) + "]"
    raise ValueError(f"json: unsupported type: {type_name(value)}")


# --- printf ---


class _Spec:
    """One directive's flags, width and precision."""

    __slots__ = ("minus", "plus", "precision", "sharp", "space", "width", "zero")

    def __init__(self, flags: str = "", width: int | None = None, precision: int | None = None) -> None:
        self.minus, self.plus, self.sharp, self.space = "-" in flags, "+" in flags, "#" in flags, " " in flags
        self.zero = "0" in flags and "-" not in flags
        self.width, self.precision = width, precision

    def pad(self, text: str, *, zeros: bool = False) -> str:
        missing = (self.width or 0) - len(text)
        if missing <= 0:
            return text
        if self.minus:
            return text + " " * missing
        if zeros and self.zero:
            signed = text[:1] in {"+", "-", " "}
            return text[:signed] + "0" * missing + text[signed:]
        return (("0" if self.zero else " ") * missing) + text


_TOO_LARGE = 1_000_000  # Go's own limit for widths and argument numbers
_DIRECTIVE = re.compile(r"%([-+# 0]*)(\[[^\]%]*\])?(\*|\d+)?(?:(\.)(\[[^\]%]*\])?(\*|\d+)?)?(\[[^\]%]*\])?(.?)", re.DOTALL)


def sprintf(template: str, *values: object) -> str:
    """Write values as `printf` does, its complaints about wrong verbs and counts included."""
    parts: list[str] = []
    at, reordered, done = 0, False, 0

    def pick(index: str | None) -> bool:
        """Move to the argument that `[n]` names; false if there is none."""
        nonlocal at, reordered
        if index is None:
            return True
        reordered = True
        inner = index[1:-1]
        if not (inner.isascii() and inner.isdigit() and len(inner) < 7 and 1 <= int(inner) <= len(values)):
            return False
        at = int(inner) - 1
        return True

    def measure(number: str | None, complaint: str) -> int | None:
        nonlocal at
        if number != "*":
            if number is not None and (len(number) > 7 or int(number) > _TOO_LARGE):
                parts.append(complaint)
                return None
            return int(number) if number else None
        value = values[at] if at < len(values) else None
        at += 1
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _TOO_LARGE:
            parts.append(complaint)
            return None
        return value

    for match in _DIRECTIVE.finditer(template):
        parts.append(template[done : match.start()])
        done = match.end()
        flags, first, width_text, point, second, precision_text, third, verb = match.groups()
        good = pick(first)
        width = measure(width_text, "%!(BADWIDTH)")
        if width is not None and width < 0:
            flags, width = flags + "-", -width
        good = pick(second) and good
        precision = measure(precision_text, "%!(BADPREC)") if point else None
        if point and precision_text is None:
            precision = 0
        if precision is not None and precision < 0:
            parts.append("%!(BADPREC)")
            precision = None
        good = pick(third) and good
        if not verb:
            parts.append("%!(NOVERB)")
        elif verb == "%":
            parts.append("%")
        elif not good:
            parts.append(f"%!{verb}(BADINDEX)")
        elif at >= len(values):
            parts.append(f"%!{verb}({'BADINDEX' if reordered else 'MISSING'})")
        else:
            parts.append(_verb(values[at], verb, _Spec(flags, width, precision)))
            at += 1
    parts.append(template[done:])
    if not reordered and at < len(values):
        extra = ", ".join(f"{type_name(v)}={show(v)}" if type_name(v) != "<nil>" else "<nil>" for v in values[at:])
        parts.append(f"%!(EXTRA {extra})")
    return "".join(parts)


def _verb(value: object, verb: str, spec: _Spec) -> str:
    match value:
        case None | Missing():
            return spec.pad("<nil>") if verb in "vT" else f"%!{verb}(<nil>)"
        case _ if verb == "T":
            return spec.pad(type_name(value))
        case bool():
            written = spec.pad("true" if value else "false") if verb in "vt" else None
        case int():
            written = _integer(value, verb, spec)
        case float():
            written = _float(value, verb, spec)
        case str():
            written = _string(value, verb, spec)
        case Mapping():
            return "map[" + " ".join(_entries(value, verb, spec)) + "]"
        case list() | tuple():
            return "[" + " ".join(_verb(item, verb, spec) for item in value) + "]"
        case _:
            written = "func"
    return f"%!{verb}({type_name(value)}={_verb(value, 'v', spec)})" if written is None else written


def _entries(value: Mapping[Any, Any], verb: str, spec: _Spec) -> Iterator[str]:
    for key in sorted(value, key=str):
        if not callable(value[key]):
            # the values of a set, as exposed ports are, print as the empty struct that they are in Docker
            shown = "{}" if isinstance(value, Dictionary) and value[key] == {} else _verb(value[key], verb, spec)
            yield f"{_verb(str(key), verb, spec)}:{shown}"


def _integer(value: int, verb: str, spec: _Spec) -> str | None:
    prefix = ""
    match verb:
        case "v" | "d":
            digits = str(abs(value))
        case "b":
            digits, prefix = f"{abs(value):b}", "0b" if spec.sharp else ""
        case "o":
            digits, prefix = f"{abs(value):o}", "0" if spec.sharp else ""
        case "O":
            digits, prefix = f"{abs(value):o}", "0o"
        case "x":
            digits, prefix = f"{abs(value):x}", "0x" if spec.sharp else ""
        case "X":
            digits, prefix = f"{abs(value):X}", "0X" if spec.sharp else ""
        case "c":
            return spec.pad(_character(value))
        case "q":
            return spec.pad(_quote_character(_character(value)))
        case "U":
            shown = f" '{_character(value)}'" if spec.sharp and _character(value).isprintable() else ""
            return spec.pad(f"U+{value & 0xFFFFFFFFFFFFFFFF:04X}{shown}")
        case _:
            return None
    if spec.precision is not None:
        digits = "" if spec.precision == 0 and value == 0 else digits.rjust(spec.precision, "0")
    sign = "-" if value < 0 else "+" if spec.plus else " " if spec.space else ""
    if spec.zero and spec.width and spec.precision is None:
        digits = digits.rjust(spec.width - len(sign), "0")
    text = sign + prefix + digits
    return text if spec.zero and spec.precision is None else text.rjust(spec.width or 0) if not spec.minus else spec.pad(text)


def _character(code: int) -> str:
    return chr(code) if 0 <= code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else "\ufffd"


def _float(value: float, verb: str, spec: _Spec) -> str | None:
    precision = spec.precision
    match verb:
        case "v" | "g" | "G":
            text = format_float(value, "g", -1 if precision is None else precision)
        case "e" | "E":
            text = format_float(value, "e", 6 if precision is None else precision)
        case "f" | "F":
            text = format_float(value, "f", 6 if precision is None else precision)
        case "x" | "X":
            text = _hexadecimal(value)
        case _:
            return None
    text = text.upper() if verb in "EGX" and math.isfinite(value) else text
    if text[0] not in "+-":
        text = ("+" if spec.plus else " " if spec.space else "") + text
    return spec.pad(text, zeros=math.isfinite(value))


def _hexadecimal(value: float) -> str:
    text = value.hex()  # 0x1.8000000000000p+0
    mantissa, _, power = text.partition("p")
    if not power:
        return format_float(value)
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{power[0]}{power[1:]:0>2}"


def _string(value: str, verb: str, spec: _Spec) -> str | None:
    match verb:
        case "v" | "s":
            return spec.pad(value if spec.precision is None else value[: spec.precision])
        case "q":
            text = value if spec.precision is None else value[: spec.precision]
            if spec.sharp and "`" not in text and all(c == "\t" or c.isprintable() for c in text):
                return spec.pad(f"`{text}`")
            return spec.pad(quote(text, ascii_only=spec.plus))
        case "x" | "X":
            octets = encode(value)[: spec.precision]
            pairs = [f"{octet:02{verb}}" for octet in octets]
            lead = f"0{verb}" if spec.sharp and pairs else ""
            return spec.pad(" ".join(lead + pair for pair in pairs) if spec.space else lead + "".join(pairs))
    return None


_SHORT: Final = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def _escape(character: str, *, ascii_only: bool) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() and (code < 0x80 or not ascii_only):
        return character
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str, *, ascii_only: bool = False) -> str:
    """Quote a string as Go's `%q`."""
    return '"' + "".join('\\"' if c == '"' else _escape(c, ascii_only=ascii_only) for c in text) + '"'


def _quote_character(character: str) -> str:
    return "'" + ("\\'" if character == "'" else _escape(character, ascii_only=False)) + "'"
