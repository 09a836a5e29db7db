"""Ranges of a config's numbers, stated where their defaults are::

    config.train.meta_batch = Count(4)  # tasks per meta-iteration
    config.evaluate.inner_lr = Amount(config.train.get_ref("inner_lr"))  # training's unless set

ml_collections keeps the range with the field, whatever value it is given later; `problems` lists
the values that lie outside. A value may be a tuple of numbers, each of which has to lie within. One
that is a reference follows the other value until it is set itself.
"""

import math
from collections.abc import Iterator
from typing import Any, ClassVar

from ml_collections import ConfigDict, FieldReference


class Range(FieldReference):
    """A field with one or more finite numbers, of either sign."""

    expected: ClassVar[str] = "finite"
    may_be_empty: ClassVar[bool] = False

    @property
    def follows(self) -> bool:
        """Return whether it takes its value from another field."""
        return isinstance(self._value, FieldReference)

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether a finite number lies within."""
        del number
        return True

    @classmethod
    def wrong(cls, value: Any) -> str | None:
        """Return what is wrong with `value`, None where it is right."""
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in numbers):
            return "a tuple of numbers is expected, such as '(1, 2)'"
        if not numbers and not cls.may_be_empty:
            return "must be at least one number"
        if not all(math.isfinite(x) for x in numbers):
            return "must be finite"
        return None if all(map(cls.allows, numbers)) else f"must be {cls.expected}"


class Amount(Range):
    """A number of at least 0, where 0 often means none, or what is best."""

    expected = "at least 0"

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether it is at least 0."""
        return number >= 0


class Count(Range):
    """A number of at least 1."""

    expected = "at least 1"

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether it is at least 1."""
        return number >= 1


class Counts(Count):
    """Numbers of at least 1, perhaps none."""

    may_be_empty = True


class Size(Range):
    """A number above 0."""

    expected = "above 0"

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether it is above 0."""
        return number > 0


class Fraction(Range):
    """A number between 0 and 1."""

    expected = "between 0 and 1"

    @classmethod
    def allows(cls, number: float) -> bool:
        """Return whether it is between 0 and 1."""
        return 0 <= number <= 1


class Fractions(Fraction):
    """Numbers between 0 and 1, perhaps none."""

    may_be_empty = True


def fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field of a nested config by its dotted name: a `Range`, or a plain value."""
    for name, field in config.items(preserve_field_references=True):
        if isinstance(field, ConfigDict):
            yield from fields(field, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def problems(config: ConfigDict) -> Iterator[tuple[str, Any, str]]:
    """Yield the name, the value and what is wrong of each number outside its range.

    Of a value that follows another one only the other is told.
    """
    for name, field in fields(config):
        states_one = isinstance(field, Range) and not field.follows
        if states_one and (wrong := field.wrong(field.get())):
            yield name, field.get(), wrong
