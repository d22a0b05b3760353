"""`--filter KEY=VALUE` as Docker takes it: read once, unknown keys refused, and the patterns that names are matched with.

Values of one key are alternatives, different keys must all hold; but every `label` must hold. Not here: what a key means for a
container, an image or a volume; only what is the same for all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from lamina.errors import UsageError

Filters = Mapping[str, tuple[str, ...]]


def parse_filters(texts: Iterable[str], *, known: Sequence[str]) -> Filters:
    """Read the filters of a command. Raises `UsageError` for one without a `=` or of an unknown key.

    `label!=VALUE` has the key `label!`.
    """
    filters: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"invalid filter '{text}'", hint="a filter is KEY=VALUE")
        if key not in known:
            raise UsageError(f"invalid filter '{key}'", hint=f"known are: {', '.join(sorted(known))}")
        filters.setdefault(key, []).append(value.strip())
    return {key: tuple(values) for key, values in filters.items()}


def flag_filter(filters: Filters, key: str) -> bool | None:
    """Give a filter that is true or false; None if it isn't asked for."""
    values = {_truth(key, value) for value in filters.get(key, ())}
    if len(values) > 1:
        raise UsageError(f"the filter '{key}' is asked to be both true and false")
    return values.pop() if values else None


def _truth(key: str, value: str) -> bool:
    if value.lower() in {"true", "1"}:
        return True
    if value.lower() in {"false", "0"}:
        return False
    raise UsageError(f"invalid filter '{key}={value}'", hint="give true or false")


def labels_match(labels: Mapping[str, str], filters: Filters) -> bool:
    """Whether every `label=KEY[=VALUE]` holds and no `label!=KEY[=VALUE]` does."""
    return all(_has_label(labels, wanted) for wanted in filters.get("label", ())) and not any(
        _has_label(labels, unwanted) for unwanted in filters.get("label!", ())
    )


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def path_pattern(pattern: str) -> re.Pattern[str]:
    """Read a shell pattern in which `*` and `?` stop at a `/`: Go's path.Match. Raises `UsageError`."""
    out, at = [], 0
    while at < len(pattern):
        one = pattern[at]
        at += 1
        if one == "*":
            out.append("[^/]*")
        elif one == "?":
            out.append("[^/]")
        elif one == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise UsageError(f"invalid pattern '{pattern}': a '[' isn't closed")
            body = pattern[at:end].replace("\\", "\\\\").replace("[", "\\[")
            out.append(f"(?!/)[{body}]")
            at = end + 1
        elif one == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(re.escape(one))
    try:
        return re.compile("".join(out))
    except re.error as error:
        raise UsageError(f"invalid pattern '{pattern}': {error}") from None
