"""Films of points: as many frames as steps, and what they show is where the point was."""

import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mamljax import rl
from mamljax.checks import ArgumentError
from mamljax.rl.env import EnvState


def walk(steps=6, *, ends=None, breaks=None):
    """A point that goes right by 0.1 per step."""
    position = jnp.stack([0.1 * jnp.arange(steps), jnp.zeros(steps)], axis=1)
    if breaks is not None:
        position = position.at[breaks:].set(jnp.nan)
    done = jnp.zeros(steps, bool) if ends is None else jnp.arange(steps) >= ends
    return EnvState((), position, jnp.zeros(steps), done)


def at(state):
    return state.observation


def frames(path):
    with Image.open(path) as film:
        found = []
        for index in range(film.n_frames):
            film.seek(index)
            found.append(np.asarray(film.convert("RGB"), int))
    return found


def rightmost_blue(frame):
    red, _, blue = np.moveaxis(frame, -1, 0)
    return np.flatnonzero(((blue - red) > 100).any(axis=0)).max()


def test_a_film_has_a_frame_per_step_and_the_point_moves(tmp_path):
    path = tmp_path / "films" / "walk.gif"
    rollouts = {"before": walk(ends=3)}
    rl.write_film(
        path, rollouts, position=at, title="a walk", marks={"goal": [0.5, 0.1]}, reach=0.6
    )
    found = frames(path)
    assert len(found) == 4  # steps 0 to 3, at which it ended
    edges = [rightmost_blue(frame) for frame in found]
    steps = np.diff(edges)
    assert np.all(steps > 5)
    assert np.ptp(steps) <= 2  # equal steps
    assert [entry.name for entry in path.parent.iterdir()] == ["walk.gif"]


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffmpeg is not installed")
def test_a_film_as_mp4_has_as_many_frames(tmp_path):
    rl.write_film(tmp_path / "walk.mp4", {"before": walk(ends=3)}, position=at, title="a walk")
    asked = ["ffprobe", "-v", "error", "-count_frames", "-of", "csv=p=0"]
    asked += ["-show_entries", "stream=codec_type,nb_read_frames", str(tmp_path / "walk.mp4")]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert found.strip() == "video,4"


def test_episodes_play_side_by_side_and_broken_states_are_left_out(tmp_path):
    path = tmp_path / "two.gif"
    both = {"short": walk(breaks=2), "long": walk()}
    several = lambda state: jnp.stack([at(state), -at(state)])  # noqa: E731
    rl.write_film(path, both, position=several, title="two", frames_per_second=10)
    found = frames(path)
    assert len(found) == 6
    left, right = np.split(np.array(found), [found[0].shape[1] // 2], axis=2)
    # Colours are rounded to those of a frame's palette.
    assert np.abs(left[0] - left[1]).max() > 60
    assert np.abs(left[2] - left[5]).max() < 10
    assert np.abs(right[4] - right[5]).max() > 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "walk.avi"}, "path must end in .gif or .mp4; got 'walk.avi'"),
        ({"path": "walk.mp4"}, "needs ffmpeg, which is not installed"),
        ({"rollouts": {}}, "rollouts must hold at least one episode"),
        ({"rollouts": {"a": walk(breaks=0)}}, r"rollouts\['a'\] holds no state with finite"),
        ({"rollouts": {"a": (1, 2)}}, r"rollouts\['a'\] must be the states of one episode"),
        ({"position": lambda state: state.reward}, r"position must return \[2\].* got shape \(\)"),
        ({"frames_per_second": 0}, "frames_per_second must be an integer"),
        ({"reach": -1.0}, "reach must be a finite number > 0"),
    ],
)
def test_what_cannot_be_filmed_is_explained(tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    arguments = {"path": "walk.gif", "rollouts": {"a": walk()}, "position": at, "title": "t"}
    with pytest.raises(ArgumentError, match=message):
        rl.write_film(**(arguments | change))
    assert not list(tmp_path.iterdir())
