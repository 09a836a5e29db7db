"""Films: what a page shows is what was rolled out, up to the end of the episode."""

import base64
import html
import json
import re
import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from mamljax.checks import ArgumentError
from mamljax.rl import viewer
from mamljax.rl.brax_env import quietly
from mamljax.rl.env import EnvState
from mamljax.rl.robots import robot

LINKS, STEPS = 9, 6


@pytest.fixture(scope="module")
def ant():
    return robot("ant_direction")


@pytest.fixture
def episode_of():
    """An episode that lifts an ant by 1 per step, and ends where told."""
    with quietly():
        from brax import base, envs

    def make(*, ends=None, diverges=None, shape=(STEPS,)):
        height = jnp.arange(STEPS, dtype=float)
        if diverges is not None:
            height = height.at[diverges:].set(jnp.nan)
        pos = jnp.zeros((*shape, LINKS, 3)).at[..., 2].set(height[:, None])
        rot = jnp.zeros((*shape, LINKS, 4)).at[..., 0].set(1)
        nothing = jnp.zeros((*shape, 1))
        motion = base.Motion(ang=pos, vel=pos)
        pipeline = base.State(nothing, nothing, base.Transform(pos, rot), motion, None)
        done = jnp.zeros(shape, bool)
        if ends is not None:
            done = done.at[..., ends].set(True)
        reward = jnp.ones(shape)
        return EnvState(envs.State(pipeline, nothing, reward, reward), nothing, reward, done)

    return make


def films(page):
    """What each viewer of a page was given."""
    packed = re.findall(r'var system = "([^"]+)"', html.unescape(page))
    return [json.loads(zlib.decompress(base64.b64decode(film))) for film in packed]


def heights(film):
    return [state["pos"][0][2] for state in film["states"]["x"]]


def test_a_page_plays_every_episode_up_to_its_end(ant, episode_of, tmp_path):
    path = tmp_path / "films.html"
    rollouts = {"before <1>": episode_of(ends=3), "after": episode_of()}
    viewer.write_rollouts(path, ant, rollouts, title="Ant & friends")
    page = path.read_text()
    before, after = films(page)
    assert heights(before) == [0, 1, 2, 3]
    assert heights(after) == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(before["opt"]["timestep"], 0.02)  # real time: a step, not a substep
    assert len(before["geoms"]) > 1
    assert page.count("<iframe") == 2
    assert "<h1>Ant &amp; friends</h1>" in page
    assert "<h2>before &lt;1&gt;</h2>\n<p>3 steps, return 4.0</p>" in page
    assert "<p>5 steps, return 6.0</p>" in page
    assert [entry.name for entry in tmp_path.iterdir()] == ["films.html"]


def test_diverged_states_are_not_drawn(ant, episode_of, tmp_path):
    path = tmp_path / "films.html"
    viewer.write_rollouts(path, ant, {"x": episode_of(ends=3, diverges=3)}, title="t")
    (film,) = films(path.read_text())
    assert heights(film) == [0, 1, 2]
    with pytest.raises(ValueError, match=r"rollouts\['x'\] holds no state with finite positions"):
        viewer.write_rollouts(path, ant, {"x": episode_of(diverges=0)}, title="t")


def test_several_episodes_at_once_are_refused(ant, episode_of, tmp_path):
    with pytest.raises(ValueError, match=r"must be one episode.* shape \(2, 6\)"):
        viewer.write_rollouts(
            tmp_path / "films.html", ant, {"x": episode_of(shape=(2, STEPS))}, title="t"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("state", [(), {"position": np.zeros(2)}, None], ids=str)
def test_states_of_another_simulator_are_refused(tmp_path, state):
    states = EnvState(state, np.zeros((3, 2)), np.zeros(3), np.zeros(3, bool))
    for found in (states, states.observation):
        with pytest.raises(ArgumentError, match=r"rollouts\['before'\] must hold Brax's states"):
            viewer.write_rollouts(tmp_path / "film.html", None, {"before": found}, title="none")
    assert not list(tmp_path.iterdir())
