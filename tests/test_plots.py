"""Figures: they are drawn, and show what they are given."""

import numpy as np
from matplotlib import image

from mamljax import plots


def test_learning_curves_draw_one_panel_per_setting(tmp_path):
    curves = {"maml": plots.Curve([3.0, 1.0], [0.1, 0.1])}
    for name, panels in (
        ("one", {"5-shot": curves}),
        ("two", {"5-shot": curves, "10-shot": curves}),
    ):
        plots.learning_curves(tmp_path / f"{name}.png", panels, ylabel="mse", title="t")
    one, two = (image.imread(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert two.shape[1] > 1.5 * one.shape[1]
    assert one.std() > 0.01  # not a blank sheet


def test_fitted_curves_draw_support_points_and_every_curve(tmp_path):
    grid = np.linspace(-5, 5, 50)
    fit = plots.Fit("maml", grid, np.sin(grid), (grid[:5], np.sin(grid[:5])), {"pre": grid * 0})
    plots.fitted_curves(tmp_path / "bare.png", [[fit._replace(curves={})]], title="t")
    plots.fitted_curves(tmp_path / "fits.png", [[fit]], title="t")
    bare, drawn = (image.imread(tmp_path / f"{name}.png") for name in ("bare", "fits"))
    green = [(x[..., 1] - x[..., 0] > 0.3).sum() for x in (bare, drawn)]
    assert green[1] > green[0] + 50
