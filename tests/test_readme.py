"""The README's Python snippets run as they stand, and keep their promises."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from mamljax import tasks

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


def test_methods_combine_and_are_put_together():
    scope = {}
    exec(SNIPPETS["family"], scope)
    own = scope["signed_maml"](scope["net"], scope["loss_fn"], 0.01, 2)
    for learner in (scope["combined"], own):
        batch = tasks.sample_tasks(tasks.sinusoid(5, 5), None, jax.random.key(0), 3)
        meta_params = learner.init(jax.random.key(1), batch.query.inputs[0])
        gradient, _ = learner.meta_gradient(meta_params, batch, jax.random.key(2))
        assert jax.tree.structure(gradient) == jax.tree.structure(meta_params)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_policies_train_and_evaluate():
    scope = {}
    exec(SNIPPETS["policies"], scope)
    assert scope["report"].mean.shape == (4,)
    assert int(scope["state"].step) == 5


def test_a_robot_of_ones_own_is_a_family_of_tasks():
    scope = {}
    exec(SNIPPETS["own_robot"], scope)
    env = scope["env"]
    assert (env.observation_size, env.action_size) == (4, 1)
    assert -1 <= env.sample_task(jax.random.key(0)).position <= 1


def test_episodes_train_and_evaluate():
    scope = {}
    exec(SNIPPETS["episodes"], scope)
    report, state = scope["report"], scope["state"]
    assert report.mean.shape == (4,)
    assert report.num_tasks == 20
    assert int(state.step) == 10
