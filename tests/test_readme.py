"""The README's Python snippets run as they stand, and keep their promises."""

import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", README, re.DOTALL))


def test_own_data_and_model_in_twenty_lines():
    snippet = SNIPPETS["own_data"]
    assert len([line for line in snippet.splitlines() if line.strip()]) <= 20
    scope = {}
    exec(snippet, scope)
    error = np.mean((scope["predictions"] - scope["y_test"]) ** 2)
    assert error < 0.1 * np.mean(scope["y_test"] ** 2)  # five examples were enough


def test_the_core_line_is_what_the_readme_shows():
    scope = {}
    exec(SNIPPETS["core"], scope)
    grads, metrics = scope["gradient"], scope["metrics"]
    assert metrics.loss == pytest.approx(float(np.mean(metrics.task_losses)), rel=1e-5)
    assert set(grads) == {"Dense_0", "Dense_1"}


def test_it_fits_on_a_screen_or_so():
    assert len(README.encode()) <= 9_000
    # That of photos runs in tests/experiments/test_classify.py, where there is a trained model.
    assert set(SNIPPETS) == {"own_data", "core", "photos"}
