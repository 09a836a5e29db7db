"""Figures: they are drawn, and show what they are given."""

import numpy as np
from matplotlib import colors, image

from mamljax.running import metrics, plots


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


def test_a_method_without_steps_is_a_level_line(tmp_path):
    curves = {"maml": plots.Curve([3.0, 1.0], [0.0, 0.0]), "oracle": plots.Curve([0.5], [0.0])}
    plots.learning_curves(tmp_path / "level.png", {"": curves}, ylabel="mse", title="t")
    drawn = image.imread(tmp_path / "level.png")
    its = np.abs(drawn[..., :3] - colors.to_rgb(plots.color("oracle"))).max(axis=2) < 0.05
    across = its.any(axis=0).mean()
    assert across > 0.3  # of the width of the sheet; a single marker is a hundredth


def test_a_method_has_one_colour_whatever_is_drawn_beside_it(tmp_path):
    assert plots.color("maml") == plots.color("maml, dense") != plots.color("pretrain")
    together = ("maml", "pretrain", "oracle", "random", "context", "multitask", "multitask_l2")
    assert len(set(map(plots.color, together))) == len(together)
    assert len(set(plots.PALETTE)) == len(plots.PALETTE)
    assert plots.color("a method of my own") == plots.color("a method of my own")
    curve = plots.Curve([0.5, 0.7], [0.0, 0.0])
    wanted = np.array(colors.to_rgb(plots.color("reptile")))
    for name, shown in (("alone", ["reptile"]), ("both", ["maml", "reptile"])):
        panels = {"": dict.fromkeys(shown, curve)}
        plots.learning_curves(tmp_path / f"{name}.png", panels, ylabel="accuracy", title="t")
        drawn = image.imread(tmp_path / f"{name}.png")[..., :3]
        assert (np.abs(drawn - wanted).max(axis=2) < 0.05).sum() > 100, name


def test_chance_and_a_logarithmic_scale_are_drawn(tmp_path):
    panels = {"": {"maml": plots.Curve([3.0, 0.003], [4.0, 0.0])}}  # an interval that reaches 0
    for name, options in (("plain", {}), ("log", {"log": True}), ("chance", {"chance": 1.5})):
        path = tmp_path / f"{name}.png"
        plots.learning_curves(path, panels, ylabel="mse", title="t", **options)
    plain, log, chance = (image.imread(tmp_path / f"{n}.png") for n in ("plain", "log", "chance"))
    assert np.abs(plain - log).max() > 0.1
    dark = [(x[..., :3].max(axis=2) < 0.2).sum() for x in (plain, chance)]
    assert dark[1] > dark[0] + 50


def test_fitted_curves_draw_support_points_and_every_curve(tmp_path):
    grid = np.linspace(-5, 5, 50)
    fit = plots.Fit("maml", grid, np.sin(grid), (grid[:5], np.sin(grid[:5])), {"pre": grid * 0})
    plots.fitted_curves(tmp_path / "bare.png", [[fit._replace(curves={})]], title="t")
    plots.fitted_curves(tmp_path / "fits.png", [[fit]], title="t")
    bare, drawn = (image.imread(tmp_path / f"{name}.png") for name in ("bare", "fits"))
    green = [(x[..., 1] - x[..., 0] > 0.3).sum() for x in (bare, drawn)]
    assert green[1] > green[0] + 50


def test_an_episode_has_a_row_per_class_and_at_most_five_queries(tmp_path):
    rng = np.random.default_rng(0)
    for name, ways, queries, channels in (("few", 2, 2, 1), ("many", 4, 9, 3)):
        support, query = (rng.random((ways * n, 8, 8, channels)) for n in (1, queries))
        plots.episode(tmp_path / f"{name}.png", support, query, ways=ways)
    few, many = (image.imread(tmp_path / f"{name}.png") for name in ("few", "many"))
    assert many.shape[0] > 1.5 * few.shape[0]
    assert 1.4 < many.shape[1] / few.shape[1] < 2.2  # 1 + 5 columns against 1 + 2
    colour = [np.ptp(x[..., :3], axis=2).max() for x in (few, many)]
    assert colour[0] < 0.01 < colour[1]


def test_training_curves_show_the_loss_and_every_validation_step(tmp_path):
    records = [{"run": "maml", "step": step, "loss": 1 / step} for step in (1, 2, 3)]
    records += [{"step": 3, "validation_step_0": 0.2, "validation_step_1": 0.9}]
    records += [{"step": 4, "loss": None}]
    loss = {"loss": metrics.over_training(records, "loss")}
    assert loss["loss"] == ([1, 2, 3], [1, 1 / 2, 1 / 3])
    scores = metrics.scores_over_training(records, "validation")
    assert scores == {"validation, 0 steps": ([3], [0.2]), "validation, 1 step": ([3], [0.9])}
    plots.training_curves(tmp_path / "loss.png", loss, {}, ylabel="meta-loss")
    plots.training_curves(tmp_path / "both.png", loss, scores, ylabel="meta-loss")
    alone, both = (image.imread(tmp_path / f"{name}.png") for name in ("loss", "both"))
    assert both.shape[1] > 1.5 * alone.shape[1]  # no panel is empty
    returns = {"return after": ([1, 2], [-1, -2])}
    plots.training_curves(tmp_path / "r.png", returns, {}, ylabel="return", from_zero=False)
    assert np.abs(image.imread(tmp_path / "r.png") - alone).max() > 0.1


def test_paths_show_every_episode_and_the_goal(tmp_path):
    walk = np.cumsum(np.full((2, 5, 2), 0.1), axis=1)
    panels = {"maml": {"0 steps": walk, "1 step": -walk}, "random": {"0 steps": walk}}
    plots.paths(tmp_path / "near.png", panels, np.zeros(2), reach=1.0, title="t")
    plots.paths(tmp_path / "far.png", panels, np.full(2, 0.4), reach=1.0, title="t")
    near, far = (image.imread(tmp_path / f"{name}.png") for name in ("near", "far"))
    assert near.shape[1] > near.shape[0]
    assert near.shape == far.shape
    assert np.abs(near - far).max() > 0.1
