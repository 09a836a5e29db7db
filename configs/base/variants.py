"""Variants of a config are given after a colon: ``configs/sinusoid.py:quick``."""

import difflib
from collections.abc import Sequence


def check(variant: str, allowed: Sequence[str]) -> None:
    """Refuse an unknown variant, with the nearest one as a hint."""
    if variant not in allowed:
        near = difflib.get_close_matches(variant, allowed, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(allowed)}.{hint}")
