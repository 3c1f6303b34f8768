"""The contract that every registered method keeps, as checks that anyone may run on a method of their own::

    from goodnet.testing import broken_promises, small_world

    assert not broken_promises(MyAuditor, small_world())

A check takes a method's class and a World, and raises AssertionError with a sentence when the method breaks it. A
method that knows that it breaks one says so, with the reason, in its card's ``known_failures`` under the check's name.
"""

from typing import Any

from goodnet.attacks._base import Attack
from goodnet.audit._base import Auditor
from goodnet.cleanse._base import Cleanser
from goodnet.guard._base import Guard
from goodnet.learn._base import Learner
from goodnet.repair._base import Repairer
from goodnet.testing import attacks, auditors, cleansers, every_method, guards, learners, repairers
from goodnet.testing._common import Check
from goodnet.testing._world import World, small_world

__all__ = ["Check", "World", "broken_promises", "checks_for", "small_world"]

_ROLES: dict[type, tuple[Check, ...]] = {
    Auditor: auditors.CHECKS,
    Cleanser: cleansers.CHECKS,
    Guard: guards.CHECKS,
    Repairer: repairers.CHECKS,
    Learner: learners.CHECKS,
    Attack: attacks.CHECKS,
}


def checks_for(method: type[Any]) -> tuple[Check, ...]:
    """The checks that apply to the role of ``method``."""
    return every_method.CHECKS + tuple(
        check for role, checks in _ROLES.items() if issubclass(method, role) for check in checks
    )


def broken_promises(method: type[Any], world: World) -> dict[str, str]:
    """Check name -> what is wrong, for every check that ``method`` fails and its card does not admit to."""
    broken = {}
    for check in checks_for(method):
        if check.__name__ not in method.card.known_failures:
            try:
                check(method, world)
            except AssertionError as error:
                broken[check.__name__] = str(error)
    return broken
