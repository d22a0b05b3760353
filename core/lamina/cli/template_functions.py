"""The functions that a template may call: Go's own and those that Docker adds. `and` and `or` are only named here: they decide
what is evaluated, and that is the evaluator's.

A function gets values and gives a value; what it can't do is a `ValueError` whose text is Go's. Counts and kinds of arguments are
checked by the evaluator from `FUNCTIONS` before the call, because only it knows how the argument was written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from lamina.cli.template_print import (
    MISSING,
    Dictionary,
    Missing,
    NullList,
    decode,
    encode,
    show,
    sprint,
    sprintf,
    to_json,
    type_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """`kinds` has a letter for each argument: any, any or missing, string, integer, list; a last `+` repeats the one before it."""

    call: Callable[..., object]
    kinds: str

    @property
    def fewest(self) -> int:
        return len(self.kinds) - 2 if self.is_variadic else len(self.kinds)

    @property
    def is_variadic(self) -> bool:
        return self.kinds.endswith("+")

    def kind(self, at: int) -> str:
        return self.kinds[at] if at < len(self.kinds.rstrip("+")) else self.kinds.rstrip("+")[-1]


def is_true(value: object) -> bool:
    """Go's truth: zero, empty, nil and absent are false."""
    return bool(value)


def _is_nil(value: object) -> bool:
    is_null_dictionary = isinstance(value, Dictionary) and value.is_null
    return value is None or isinstance(value, Missing | NullList) or is_null_dictionary


def _basic_kind(value: object) -> str:
    return type_name(value) if isinstance(value, bool | int | float | str) else ""


def equals(left: object, *rights: object) -> bool:
    """Say whether the first equals any of the others."""
    if not rights:
        raise ValueError("missing argument for comparison")
    return any(_equal(left, right) for right in rights)


def _equal(left: object, right: object) -> bool:
    if _is_nil(left) or _is_nil(right):
        return _is_nil(left) and _is_nil(right)
    if _basic_kind(left) != _basic_kind(right):
        raise ValueError("incompatible types for comparison")
    if not _basic_kind(left):
        raise ValueError(f"non-comparable type {show(left)}: {type_name(left)}")
    return left == right


def _less(left: object, right: object) -> bool:
    kinds = {_basic_kind(left), _basic_kind(right)}
    if "" in kinds:
        raise ValueError("invalid type for comparison")
    if len(kinds) > 1:
        raise ValueError("incompatible types for comparison")
    if isinstance(left, str) and isinstance(right, str):
        return encode(left) < encode(right)
    if isinstance(left, bool) or not isinstance(left, int | float) or not isinstance(right, int | float):
        raise ValueError("invalid type for comparison")
    return left < right


def _less_or_equal(left: object, right: object) -> bool:
    return _less(left, right) or _equal(left, right)


def _length(value: object) -> int:
    if isinstance(value, str):
        return len(encode(value))
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    if value is None:
        raise ValueError("len of nil pointer")
    raise ValueError(f"len of type {type_name(value)}")


def _position(index: object, limit: int) -> int:
    if _is_nil(index):
        raise ValueError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= limit:
        raise ValueError(f"index out of range: {index}")
    return index


def _index(value: object, *indexes: object) -> object:
    if value is None or isinstance(value, Missing):
        raise ValueError("index of untyped nil")
    for index in indexes:
        if value is None or isinstance(value, Missing):
            raise ValueError("index of nil pointer")
        if isinstance(value, str):
            octets = encode(value)
            value = octets[_position(index, len(octets) - 1)]
        elif isinstance(value, list | tuple):
            value = value[_position(index, len(value) - 1)]
        elif isinstance(value, Mapping):
            if _is_nil(index):
                raise ValueError("value is nil; should be of type string")
            if not isinstance(index, str):
                raise ValueError(f"value has type {type_name(index)}; should be string")
            absent = value.zero if isinstance(value, Dictionary) else MISSING
            value = value.get(index, absent)
        else:
            raise ValueError(f"can't index item of type {type_name(value)}")
    return value


def _slice(value: object, *indexes: object) -> object:
    if value is None:
        raise ValueError("slice of untyped nil")
    if len(indexes) > 3:
        raise ValueError(f"too many slice indexes: {len(indexes)}")
    if not isinstance(value, str | list | tuple):
        raise ValueError(f"can't slice item of type {type_name(value)}")
    if isinstance(value, str) and len(indexes) == 3:
        raise ValueError("cannot 3-index slice a string")
    items = encode(value) if isinstance(value, str) else value
    places = [_position(index, len(items)) for index in indexes]
    for lower, upper in pairwise(places):
        if lower > upper:
            raise ValueError(f"invalid slice index: {lower} > {upper}")
    cut = items[slice(*places[:2])] if len(places) > 1 else items[places[0] if places else 0 :]
    return decode(cut) if isinstance(cut, bytes) else list(cut)


def _call(function: object, *arguments: object) -> object:
    if _is_nil(function):
        raise ValueError("call of nil")
    if not callable(function):
        raise ValueError(f"non-function of type {type_name(function)}")
    return function(*arguments)


def _text_of(values: tuple[object, ...]) -> str:
    return sprint(*("<no value>" if isinstance(value, Missing) else value for value in values))


def _html(*values: object) -> str:
    text = _text_of(values)
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;"), ("\0", "\ufffd")):
        text = text.replace(plain, escaped)
    return text


_JS_ESCAPES = {"\\": "\\\\", "'": "\\'", '"': '\\"'}


def _js(*values: object) -> str:
    return "".join(
        _JS_ESCAPES.get(c) or (f"\\u{ord(c):04X}" if c in "<>&=" or not c.isprintable() else c) for c in _text_of(values)
    )


def _urlquery(*values: object) -> str:
    # urllib.parse.quote_plus does this too, and costs 5 ms of start-up
    safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~"
    return "".join(chr(o) if o in safe else "+" if o == 0x20 else f"%{o:02X}" for o in encode(_text_of(values)))


def _upper(text: str) -> str:
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in text)  # one rune to one rune: ß stays


def _lower(text: str) -> str:
    return "".join(c.lower()[0] for c in text)


def _title(text: str) -> str:
    letters, follows = [], False
    for c in text:
        letters.append(c if follows or len(c.title()) > 1 else c.title())
        follows = c.isalnum() or c == "_" or (ord(c) > 0x7F and not c.isspace())
    return "".join(letters)


def _pad(text: str, before: int, after: int) -> str:
    if min(before, after) < 0:
        raise ValueError("strings: negative Repeat count")
    if max(before, after) > 1_000_000:
        raise ValueError("padding of more than 1000000 spaces")
    return " " * before + text + " " * after if text else ""


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise ValueError(f"runtime error: slice bounds out of range [:{length}]")
    return decode(encode(text)[:length])


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _join(items: list[object], separator: str) -> str:
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"expected strings; got {type_name(item)}")
    return separator.join(map(str, items))


def _json(value: object) -> str:
    return to_json(value)


FUNCTIONS: dict[str, Function] = {
    "and": Function(call=_call, kinds="aa+"),
    "or": Function(call=_call, kinds="aa+"),
    "not": Function(call=lambda value: not is_true(value), kinds="a"),
    "eq": Function(call=equals, kinds="aa+"),
    "ne": Function(call=lambda left, right: not _equal(left, right), kinds="aa"),
    "lt": Function(call=_less, kinds="aa"),
    "le": Function(call=_less_or_equal, kinds="aa"),
    "gt": Function(call=lambda left, right: not _less_or_equal(left, right), kinds="aa"),
    "ge": Function(call=lambda left, right: not _less(left, right), kinds="aa"),
    "len": Function(call=_length, kinds="a"),
    "index": Function(call=_index, kinds="aa+"),
    "slice": Function(call=_slice, kinds="aa+"),
    "call": Function(call=_call, kinds="aa+"),
    "print": Function(call=sprint, kinds="a+"),
    "printf": Function(call=sprintf, kinds="sa+"),
    "println": Function(call=lambda *values: " ".join(map(show, values)) + "\n", kinds="a+"),
    "html": Function(call=_html, kinds="m+"),
    "js": Function(call=_js, kinds="m+"),
    "urlquery": Function(call=_urlquery, kinds="m+"),
    "json": Function(call=_json, kinds="a"),
    "split": Function(call=_split, kinds="ss"),
    "join": Function(call=_join, kinds="ls"),
    "title": Function(call=_title, kinds="s"),
    "lower": Function(call=_lower, kinds="s"),
    "upper": Function(call=_upper, kinds="s"),
    "pad": Function(call=_pad, kinds="sii"),
    "truncate": Function(call=_truncate, kinds="si"),
}

# For a table's heading, where every field holds its column's title: the functions that would cut or dress a value leave it alone.
HEADING_FUNCTIONS: dict[str, Function] = FUNCTIONS | {
    "json": Function(call=lambda value: value, kinds="a"),
    "split": Function(call=lambda value, _separator: value, kinds="as"),
    "join": Function(call=lambda value, _separator: value, kinds="as"),
    "title": Function(call=lambda value: value, kinds="a"),
    "lower": Function(call=lambda value: value, kinds="a"),
    "upper": Function(call=lambda value: value, kinds="a"),
    "truncate": Function(call=lambda value, _length: value, kinds="ai"),
}
