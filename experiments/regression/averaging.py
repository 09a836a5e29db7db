"""The multi-task averaging baselines of table 2, with the strongest admissible regularisation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.config import Config
from mamljax.baselines import train_regressors
from mamljax.losses import mean_squared_error
from mamljax.running.progress import progress
from mamljax.types import Model, Params, Sampler

PENALTIES = {"multitask": "none", "multitask_l2": "l2", "multitask_mean": "mean"}


def train_all(
    model: Model, task_sampler: Callable[[int, int], Sampler], config: Config, key: jax.Array
) -> tuple[dict[str, Params], dict[str, Any]]:
    """Averaged parameters by method, and what was chosen and reached.

    Appendix C.1 asks for as much regularisation as the individual error allows: the largest
    strength whose mean error over the first regressors stays below ``max_error``, or else the
    strength with the smallest error.
    """
    options = config.averaging
    sampler = task_sampler(options.points, options.points)

    def regressors(penalty, number, strength):
        return train_regressors(
            model,
            mean_squared_error,
            sampler,
            key,
            num_regressors=number,
            num_steps=options.num_steps,
            tx=optax.adam(optax.cosine_decay_schedule(options.learning_rate, options.num_steps)),
            penalty=penalty,
            strength=strength,
            start=options.start,
        )

    averaged, details = {}, {}
    with progress("averaging", 2 * len(PENALTIES)) as update:
        for index, (method, penalty) in enumerate(PENALTIES.items()):
            strength, sweep = 0.0, {}
            if penalty != "none":
                strength, sweep = _strongest(regressors, penalty, options)
            update(2 * index + 1, f"{method}: penalty strength {strength:g}")
            result = jax.jit(regressors, static_argnums=(0, 1))(
                penalty, options.num_regressors, strength
            )
            averaged[method] = jax.block_until_ready(result.params)
            update(2 * index + 2, f"{method}: mean error {float(result.errors.mean()):.3g}")
            reached = _errors(np.asarray(result.errors), options.max_error)
            details[method] = {"strength": strength, "sweep": sweep, **reached}
    return averaged, details


def _strongest(
    regressors: Callable, penalty: str, options: Config
) -> tuple[float, dict[float, float]]:
    strengths = jnp.array(sorted(options.strengths), jnp.float32)
    sweep = jax.jit(jax.vmap(lambda s: regressors(penalty, options.sweep_regressors, s).errors))
    errors = np.asarray(sweep(strengths)).mean(axis=1)
    admissible = np.flatnonzero(errors < options.max_error)
    chosen = admissible[-1] if len(admissible) else np.argmin(errors)
    return sorted(options.strengths)[chosen], dict(
        zip(sorted(options.strengths), errors.tolist(), strict=True)
    )


def _errors(errors: np.ndarray, bound: float) -> dict[str, float]:
    return {
        "mean_error": float(errors.mean()),
        "median_error": float(np.median(errors)),
        "max_error": float(errors.max()),
        f"fraction_below_{bound:g}": float((errors < bound).mean()),
    }
