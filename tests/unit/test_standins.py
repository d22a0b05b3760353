"""What stands in for a module answers as the module does, and becomes it as soon as more is asked."""

import gettext
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pluggy
import pytest

from lamina import standins
from lamina.api import hookspecs


class Plain:
    """Has one of each kind of attribute."""

    value = 1

    def method(self) -> None: ...
    @staticmethod
    def static() -> None: ...
    @classmethod
    def of_class(cls) -> None: ...
    @property
    def computed(self) -> int:
        raise AssertionError("asked for")


class Slotted(Plain):
    __slots__ = ("slot",)


class Meta(type):
    def of_all(cls) -> None: ...


class Made(Plain, metaclass=Meta): ...


VALUES: list[Any] = [
    Plain, Plain(), Slotted(), Made, Made(), Plain().method, Plain.method, Plain.static, Plain.of_class, Plain.computed, os, len,
    [].append, str.join, object.__init__, dict.__dict__["fromkeys"], type, 1, "text", None, lambda: None, hookspecs, click.Group,
    pluggy.PluginManager("x"),
]  # fmt: skip
NAMES = [
    "method", "static", "of_class", "computed", "value", "slot", "of_all", "__init__", "__doc__", "__class__", "join", "path",
    "missing",
]  # fmt: skip


@pytest.mark.parametrize("function", standins.FUNCTIONS["inspect"], ids=lambda function: function.__name__)
def test_it_answers_as_inspect_does(function: Callable[..., Any]):
    real = getattr(inspect, function.__name__)
    if function is standins.cleandoc:
        arguments = [(text,) for text in ("", " a line ", "\ttabs\t and ", "two\n   lines\n     of  \n")]
    elif function is standins.getattr_static:
        arguments = [(value, name, "nothing") for value in VALUES for name in NAMES]
    else:
        arguments = [(value,) for value in VALUES]
    assert len(arguments) > 3
    for each in arguments:
        assert function(*each) == real(*each), each


def test_unwrap_leaves_what_is_wrapped_to_the_module():
    def inner() -> None: ...
    def outer() -> None: ...

    outer.__wrapped__ = inner  # type: ignore[attr-defined]
    assert standins.unwrap(outer) is inner


def test_an_attribute_that_is_missing_raises_as_there():
    with pytest.raises(AttributeError, match="missing"):
        standins.getattr_static(Plain(), "missing")


def test_the_others_answer_as_theirs_do_without_a_translation():
    assert standins.gettext("a text") == gettext.gettext("a text")
    assert [standins.ngettext("one", "many", n) == gettext.ngettext("one", "many", n) for n in (0, 1, 2)] == [True] * 3


def test_it_becomes_the_module_when_more_is_asked():
    program = """
import sys
from lamina import standins
standins.put_in()
import inspect, uuid, click
assert isinstance(sys.modules["inspect"], standins.StandIn) and "ast" not in sys.modules, "too early"
try:
    inspect.no_such_thing
except AttributeError as error:
    print(error)
print(inspect.signature(lambda a, *, b: 0), inspect.isclass.__module__, sys.modules["inspect"].__file__ is not None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == "module 'inspect' has no attribute 'no_such_thing'\n(a, *, b) inspect True\n"


def test_a_module_that_is_there_stays():
    program = "import inspect, sys; from lamina import standins; standins.put_in(); print(sys.modules['inspect'] is inspect)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_halves_are_the_same_classes():
    program = """
import sys
from lamina import standins
standins.put_in()
import datetime, sqlite3, threading
half, local, error = datetime.datetime, threading.local, sqlite3.OperationalError
assert sqlite3.connect(":memory:").execute("SELECT 1").fetchone() == (1,)
from sqlite3.dbapi2 import OperationalError
assert all(isinstance(sys.modules[name], standins.StandIn) for name in ("datetime", "sqlite3", "threading")), "too early"
threading.Thread(target=lambda: None).start()
assert not isinstance(sys.modules["threading"], standins.StandIn) and standins.the_whole("datetime").datetime is half
assert sqlite3.Binary is memoryview and sqlite3.OperationalError is OperationalError is error
import datetime, threading
assert datetime.datetime is half and threading.local is local and "MINYEAR" in dir(datetime)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_signals_are_the_same_numbers_and_become_the_enumerations_when_those_are_asked_for():
    program = """
import _signal, sys
from lamina import standins
standins.put_in()
import signal as stand_in
from lamina.usecases.control import parse_signal
numbers = {name: getattr(stand_in, name) for name in dir(_signal) if name.startswith(("SIG", "ITIMER", "NSIG"))}
assert type(stand_in.SIGTERM) is int, "too early"
was = stand_in.signal(stand_in.SIGTERM, stand_in.SIG_IGN)
assert was == stand_in.SIG_DFL and stand_in.getsignal(stand_in.SIGTERM) == stand_in.SIG_IGN
assert stand_in.Signals(15).name == "SIGTERM"
import signal
assert signal is not stand_in and all(getattr(signal, name) == value for name, value in numbers.items())
assert len(numbers) > 35
assert [parse_signal(text) for text in ("TERM", "sigkill", "RTMIN+2", "9")] == [15, 9, signal.SIGRTMIN + 2, 9]
import subprocess
subprocess.run(["true"], check=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
