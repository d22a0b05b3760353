"""Taking turns: a round of all contenders, then the next round, each time beginning with another, so that noise hits all alike.

A turn in which the pace (`pace.py`) wasn't kept is done again, if that is asked for.
A contender that fails is left out from then on, and its reason told; the others go on. What it had is thrown away.
"""

import os
from collections.abc import Callable, Sequence

from lamina_bench.lab import Lab
from lamina_bench.pace import Pace
from lamina_bench.report import Column, Figures, Left, WorkReport, judge
from lamina_bench.work import AbsentError, Contender, FailedError, Missing, Work

ERRORS = (FailedError, OSError, ValueError)


def measure(work: Work, lab: Lab, *, rounds: int, pace: Pace, told: Callable[[str], None]) -> WorkReport:
    """Do a work so many times."""
    left: list[Left] = []
    contenders: list[Contender] = []
    again, given_up = pace.again, pace.given_up
    try:
        for each in work.contenders(lab):
            if isinstance(each, Missing):
                left.append(Left(label=each.label, reason=each.reason))
                continue
            contenders.append(each)
            told(f"{work.name}: preparing {each.label}")
            _guarded(each, contenders, left, each.set_up)
        figures: dict[str, list[Figures]] = {each.label: [] for each in contenders}
        for number in range(-work.warm_up, rounds):
            told(f"{work.name}: warm-up" if number < 0 else f"{work.name}: round {number + 1} of {rounds}")
            for contender in turned(tuple(contenders), number):
                _guarded(contender, contenders, left, lambda: _turn(work, contender, figures, pace, counts=number >= 0))  # noqa: B023
    finally:
        for contender in reversed(contenders):
            _guarded(contender, [], left, contender.tear_down)
    columns = tuple(Column(label=each.label, figures=tuple(figures[each.label])) for each in contenders)
    return WorkReport(
        name=work.name,
        title=work.title,
        what=work.what,
        columns=columns,
        left=tuple(left),
        outcomes=tuple(judge(target, columns) for target in work.targets),
        is_steady=pace.is_asked,
        again=pace.again - again,
        given_up=pace.given_up - given_up,
    )


def turned(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """The order of a round: each time another begins."""
    begin = number % len(contenders) if contenders else 0
    return [*contenders[begin:], *contenders[:begin]]


def _turn(work: Work, contender: Contender, figures: dict[str, list[Figures]], pace: Pace, *, counts: bool) -> None:
    done = False
    while not done:
        contender.before()
        if work.settle:
            os.sync()
        if counts:
            pace.wait()
        took = contender.run()
        done = not counts or pace.was_kept()
        contender.after()
    if counts:
        figures[contender.label].append(took)


def _guarded(contender: Contender, contenders: list[Contender], left: list[Left], step: Callable[[], None]) -> None:
    try:
        step()
    except AbsentError as error:
        left.append(Left(label=contender.label, reason=str(error)))
    except ERRORS as error:
        left.append(Left(label=contender.label, reason=str(error), failed=True))
    else:
        return
    if contender in contenders:
        contenders.remove(contender)
        _guarded(contender, contenders, left, contender.tear_down)
