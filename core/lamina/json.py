"""`loads`, `load`, `dumps` and `dump` as the standard library's, but without its modules, which compile six regular expressions.

Its C half does both, and needs none of them; options that are rare, and telling what is wrong with a document, are left to the
standard library: its errors are what is raised. Source: json, Python library reference.
"""

import _json

TYPE_CHECKING = False  # as typing's, which a monitor does without
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
else:
    Any = object

BLANKS = " \t\n\r"


class Decoder:
    """What json's C scanner asks of one."""

    strict = True
    object_hook = object_pairs_hook = None

    def __init__(
        self, parse_float: "Callable[[str], Any]", parse_int: "Callable[[str], Any]", parse_constant: "Callable[[str], Any]"
    ) -> None:
        self.parse_float, self.parse_int, self.parse_constant = parse_float, parse_int, parse_constant


def loads(
    text: "str | bytes",
    *,
    parse_float: "Callable[[str], Any]" = float,
    parse_int: "Callable[[str], Any]" = int,
    parse_constant: "Callable[[str], Any]" = float,
) -> Any:
    """As json.loads. Bytes in another encoding than UTF-8, and telling what is wrong, are left to it."""
    if isinstance(text, str) or (text[:2].isascii() and 0 not in text[:2]):
        try:
            read = text if isinstance(text, str) else text.decode("utf-8", "surrogatepass")
            begin, end = len(read) - len(read.lstrip(BLANKS)), len(read.rstrip(BLANKS))
            scan = _json.make_scanner(Decoder(parse_float, parse_int, parse_constant))  # type: ignore[arg-type] # it may be any object
            value, ended = scan(read, begin)
            if ended == end:
                return value
        except (StopIteration, ValueError, SystemError):  # the last if the C half misses the class of its error
            pass
    import json

    return json.loads(text, parse_float=parse_float, parse_int=parse_int, parse_constant=parse_constant)


def load(file: Any) -> Any:
    """As json.load."""
    return loads(file.read())


def dumps(
    value: object,
    *,
    ensure_ascii: bool = True,
    default: "Callable[[Any], Any] | None" = None,
    separators: "tuple[str, str] | None" = None,
    sort_keys: bool = False,
    indent: "int | str | None" = None,
    **options: Any,
) -> str:
    """As json.dumps. Other options, and indentation together with `default` or `sort_keys`, are left to it."""
    if any(each is not None for each in options.values()) or (indent is not None and (default or sort_keys)):
        import json

        known = {
            "ensure_ascii": ensure_ascii,
            "default": default,
            "separators": separators,
            "sort_keys": sort_keys,
            "indent": indent,
        }
        return json.dumps(value, **known, **options)  # type: ignore[arg-type]
    write = _json.encode_basestring_ascii if ensure_ascii else _json.encode_basestring
    between, after_name = separators or (", " if indent is None else ",", ": ")
    encode = _json.make_encoder({}, default or _refuse, write, None, after_name, between, sort_keys, False, True)
    if indent is None:
        return "".join(encode(value, 0))
    step = " " * indent if isinstance(indent, int) else indent
    return _indented(value, "\n", step, between, encode)


def _indented(value: Any, begin: str, step: str, between: str, encode: "Callable[..., Any]") -> str:
    if not value or not isinstance(value, dict | list | tuple):
        return "".join(encode(value, 0))
    deeper = begin + step
    rest = deeper, step, between, encode
    if isinstance(value, dict):  # a pair is written without its value first
        rows = ["".join(encode({name: 0}, 0))[1:-2] + _indented(each, *rest) for name, each in value.items()]
    else:
        rows = [_indented(each, *rest) for each in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}{deeper}{f'{between}{deeper}'.join(rows)}{begin}{last}"


def dump(value: object, file: Any, **options: Any) -> None:
    """As json.dump."""
    file.write(dumps(value, **options))


def _refuse(value: object) -> None:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
