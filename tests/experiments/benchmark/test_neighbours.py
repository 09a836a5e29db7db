"""Predictions one by one and together, of published model files."""

import jax
import numpy as np

from experiments.benchmark import neighbours
from mamljax import photos, recipes


def test_rows_of_a_published_model(monkeypatch, tmp_path):
    """On drawn characters, with few tasks: the way of the numbers, not their size."""
    monkeypatch.setattr(neighbours, "WAYS_TO_PREDICT", neighbours.WAYS_TO_PREDICT[1:])
    recipe = recipes.Recipe(method="prototypical", filters=2, ways=2)
    params = recipes.learner(recipe).init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    pixels = photos.of_source("glyphs", (28, 28, 1))
    photos.save_model(tmp_path / "m.npz", recipe, params, pixels, {"source": "glyphs"})
    rows = neighbours.measure(tmp_path / "m.npz", None, num_tasks=4, queries=2)
    assert [(row["norm"], row["predicted"]) for row in rows] == [
        ("batch", "one by one"),
        ("support", "one by one"),
    ]
    assert all(0 <= row["accuracy"] <= 1 and row["num_tasks"] == 4 for row in rows)
    (row,) = neighbours.other_ways(tmp_path / "m.npz", None, num_tasks=4, ways=(3,))
    assert (row["ways"], row["trained_ways"]) == (3, 2)
