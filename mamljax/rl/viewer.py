"""Films of episodes: a web page with Brax's viewer, for instance before and after adaptation."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mamljax import checks, files
from mamljax.checks import ArgumentError
from mamljax.rl.env import EnvState

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 1em; }}
main {{ display: flex; flex-wrap: wrap; gap: 1em; }}
section {{ flex: 1 1 480px; }}
iframe {{ border: 1px solid #ccc; height: 480px; width: 100%; }}
</style>
<h1>{title}</h1>
<main>
{panels}
</main>
<p>The player is Brax's and is loaded from the internet; drag to turn, scroll to zoom.</p>
</html>
"""
PANEL = """<section>
<h2>{name}</h2>
<p>{steps} steps, return {total:.1f}</p>
<iframe title="{name}" srcdoc="{film}"></iframe>
</section>"""


def write_rollouts(
    path: Path, environment: Any, rollouts: Mapping[str, EnvState], *, title: str
) -> None:
    """Write one page that plays episodes side by side, in real time.

    The page holds all its data. The viewer's JavaScript is not in it: Brax's page loads it from
    public servers, so watching needs a network connection.

    Args:
      path: of the HTML file; replaced in one piece.
      environment: the Brax environment that was rolled out, as `robot` returns it.
      rollouts: by title, the states of one episode in an environment of `from_brax`, leaves
        ``[H + 1, ...]``, from `episode`. What follows the end of an episode is left out.
      title: of the page.

    Raises:
      ArgumentError: for a rollout that is not one episode, or without a finite state.
    """
    panels = "\n".join(_panel(environment, name, states) for name, states in rollouts.items())
    files.write_text(path, PAGE.format(title=html.escape(title), panels=panels))


def _panel(environment: Any, name: str, states: EnvState) -> str:
    checks.require("brax", "write_rollouts")
    if not isinstance(states, EnvState) or not hasattr(states.physics, "pipeline_state"):
        found = states.physics if isinstance(states, EnvState) else states
        raise ArgumentError(
            f"rollouts[{name!r}] must hold Brax's states, from mamljax.rl.episode on an "
            f"environment of from_brax; got {type(found).__name__}. Other simulators need a viewer "
            "of their own."
        )
    if not (hasattr(environment, "sys") and hasattr(environment, "dt")):
        raise ArgumentError(
            "environment must be the Brax environment that was rolled out, as robot and "
            f"brax_environment return it; got {type(environment).__name__}."
        )
    from brax.io import html as brax_html

    if np.ndim(states.done) != 1:
        raise ArgumentError(
            f"rollouts[{name!r}] must be one episode, with leaves [H + 1, ...]; its done has shape "
            f"{np.shape(states.done)}. Choose one by jax.tree.map(lambda leaf: leaf[0], states)."
        )
    states = jax.device_get(states)
    ends = np.flatnonzero(states.done)
    length = int(ends[0]) + 1 if len(ends) else len(states.done)
    moments = [
        jax.tree.map(lambda leaf, t=t: leaf[t], states.physics.pipeline_state)
        for t in range(length)
    ]
    # A diverged simulation has no position to be drawn at.
    drawn = [moment for moment in moments if np.isfinite(moment.x.pos).all()]
    if not drawn:
        raise ArgumentError(f"rollouts[{name!r}] holds no state with finite positions to draw.")
    # The viewer shows one state per timestep: an environment's step, not the simulator's.
    system: Any = environment.sys.tree_replace({"opt.timestep": environment.dt})
    film = brax_html.render(system, drawn, height="100vh", colab=False)
    return PANEL.format(
        name=html.escape(name),
        steps=length - 1,  # the first state is where the episode begins
        total=float(np.sum(states.reward[:length])),
        film=html.escape(film),
    )
