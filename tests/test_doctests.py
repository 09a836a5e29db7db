"""The examples in docstrings are run as they stand."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["mamljax.algorithms", "mamljax.partition"])
def test_examples_in_docstrings(name):
    failures, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted > 0
    assert failures == 0
