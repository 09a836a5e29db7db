"""Meta-losses of reinforcement learning beyond the query loss of `mamljax.objective`."""

from typing import Any

import jax
import jax.numpy as jnp

from mamljax.checks import ArgumentError
from mamljax.rl.advantages import masked
from mamljax.rl.losses import mean_return
from mamljax.types import AdaptFn, ApplyFn, ObjectiveFn, PerStep


def credit_for_data(
    objective: ObjectiveFn, adapt: AdaptFn, predict: ApplyFn, *, weight: Any, baseline: Any = 0.0
) -> ObjectiveFn:
    r"""Add the part of the gradient that comes from choosing what data to adapt to.

    The expected return after adaptation also depends on the parameters because they decide which
    support trajectories are drawn. E-MAML (Stadie et al. 2018, *Some considerations on learning to
    explore via meta-reinforcement learning*) adds that part, a score function estimate: the log
    probability of all support actions, times the return after adaptation. The paper's algorithm
    leaves it out. It is unbiased and noisy.

    Args:
      objective: the meta-loss without it, such as ``query_loss(adapt, surrogate)``.
      adapt: the learner's.
      predict: the policy.
      weight: of the added part. With advantages that are not standardised, ``1 / H`` for episodes
        of H steps is exact: surrogates average over steps, returns sum over them.
      baseline: a return to be taken off, which lessens the noise without changing the mean.
    """

    def corrected(meta_params, task, key):
        if not isinstance(task.support, PerStep):
            raise ArgumentError(
                "credit_for_data needs recorded tasks with a PerStep support set; got "
                f"{type(task.support).__name__}. Make them with mamljax.rl.recorded."
            )
        steps = jax.tree.leaves(task.support.data)[0].shape[0]

        def log_likelihood(params, step):
            drawn = jnp.minimum(step, steps - 1)  # nothing is drawn after the last step
            batch = jax.tree.map(lambda x: x[drawn], task.support.data)
            targets = batch.targets
            log_probs = predict(params, batch.inputs, step=step).log_prob(targets.actions)
            return jnp.sum(masked(log_probs, targets.valid))

        adapted = adapt(meta_params, task.support, key, observe=log_likelihood)
        earned = jax.lax.stop_gradient(mean_return(None, task.query.targets) - baseline)
        earned = jnp.where(jnp.all(task.query.targets.broken), 0.0, earned)  # nobody knows
        credit = weight * earned * jnp.sum(adapted.observed[:steps])
        return objective(meta_params, task, key) - credit

    return corrected
