"""Films of episodes as GIF or MP4, for any environment that gives positions."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from mamljax import checks, files
from mamljax.checks import ArgumentError
from mamljax.rl.env import EnvState
from mamljax.types import Array

WRITERS = {".gif": "PillowWriter", ".mp4": "FFMpegWriter"}
"""By the file's suffix, what of matplotlib writes it; ffmpeg has to be installed."""

NOTHING: Mapping[str, Any] = MappingProxyType({})


def write_film(
    path: str | Path,
    rollouts: Mapping[str, EnvState],
    *,
    position: Callable[[EnvState], Array],
    title: str,
    marks: Mapping[str, Any] = NOTHING,
    reach: float | None = None,
    frames_per_second: int = 20,
) -> None:
    """Write a film that plays episodes side by side, each point with its trail.

    Brax's robots are better seen by `write_rollouts`.

    Args:
      path: of the file, ``.gif`` or ``.mp4``; replaced in one piece.
      rollouts: by title, the states of one episode, leaves ``[H + 1, ...]``, from `episode`. What
        follows its end is left out, as are positions that are not finite.
      position: of one state, ``EnvState -> [2]``, or ``[N, 2]`` for several points, such as
        ``lambda state: state.observation`` in navigation.
      title: of the film.
      marks: further points by name, such as a goal, ``[2]`` each.
      reach: the plane is shown from minus this to this; None shows all that happens.
      frames_per_second: one frame is one step.

    Raises:
      ArgumentError: for another suffix, no rollouts, ffmpeg that is not there, and a rollout that
        is not one episode or has no position in the plane.
    """
    checks.require("matplotlib", "write_film")
    path = Path(path)
    writer = _writer(path)
    checks.at_least("frames_per_second", frames_per_second, 1)
    checks.is_function("position", position, "state -> [2]")
    if reach is not None:
        checks.positive("reach", reach)
    if not rollouts:
        raise ArgumentError("rollouts must hold at least one episode; got none.")
    points = {name: _points(name, states, position) for name, states in rollouts.items()}
    marked = {name: np.asarray(mark, float).reshape(2) for name, mark in marks.items()}
    _draw(path, writer(fps=frames_per_second), points, marked, title, reach)


def _writer(path: Path) -> Any:
    from matplotlib import animation

    if path.suffix not in WRITERS:
        raise ArgumentError(f"path must end in {' or '.join(WRITERS)}; got {str(path)!r}.")
    if path.suffix == ".mp4" and not shutil.which("ffmpeg"):
        raise ArgumentError("an .mp4 film needs ffmpeg, which is not installed: write a .gif.")
    return getattr(animation, WRITERS[path.suffix])


def _points(name: str, states: EnvState, position: Callable[[EnvState], Array]) -> np.ndarray:
    """Positions ``[steps, N, 2]`` up to the end of an episode."""
    if not isinstance(states, EnvState) or np.ndim(states.done) != 1:
        raise ArgumentError(
            f"rollouts[{name!r}] must be the states of one episode, with leaves [H + 1, ...], from "
            "mamljax.rl.episode."
        )
    found = np.asarray(jax.vmap(position)(states))
    if found.ndim not in (2, 3) or found.shape[-1] != 2:
        raise ArgumentError(
            f"position must return [2], or [N, 2], for one state; got shape {found.shape[1:]}."
        )
    found = found.reshape(len(found), -1, 2)
    ends = np.flatnonzero(states.done)
    found = found[: ends[0] + 1] if len(ends) else found
    found = found[np.isfinite(found).all(axis=(1, 2))]
    if not len(found):
        raise ArgumentError(f"rollouts[{name!r}] holds no state with finite positions to draw.")
    return found


def _draw(
    path: Path,
    writer: Any,
    points: Mapping[str, np.ndarray],
    marks: Mapping[str, np.ndarray],
    title: str,
    reach: float | None,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 3 * len(points), 3.6), layout="constrained")
    FigureCanvasAgg(figure)  # without a screen
    axes = figure.subplots(1, len(points), squeeze=False, sharex=True, sharey=True)[0]
    everything = np.concatenate(
        [*(x.reshape(-1, 2) for x in points.values()), *([x] for x in marks.values())]
    )
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = 0.05 * max(float((high - low).max()), 1e-3)
    shown = [
        (low[i] - margin, high[i] + margin) if reach is None else (-reach, reach) for i in (0, 1)
    ]
    moving = []
    for axis, (name, steps) in zip(axes, points.items(), strict=True):
        axis.set(title=name, aspect="equal", xlim=shown[0], ylim=shown[1])
        axis.grid(alpha=0.3)
        for mark, place in marks.items():
            axis.plot(*place, "*", markersize=12, color="tab:red", label=mark)
        trails = [axis.plot([], [], linewidth=1, color="tab:blue")[0] for _ in steps[0]]
        dots = axis.plot([], [], "o", color="tab:blue")[0]
        moving.append((steps, trails, dots))
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.staged(path) as staging, writer.saving(figure, str(staging), dpi=80):
        for time in range(max(len(steps) for steps, _, _ in moving)):
            for steps, trails, dots in moving:
                past = steps[: time + 1]
                for trail, line in zip(trails, past.swapaxes(0, 1), strict=True):
                    trail.set_data(*line.T)
                dots.set_data(*past[-1].T)
            writer.grab_frame()
