"""The words of the library: data, pure-function contracts and the tuples that carry them.

Axis letters used in every docstring: ``T`` tasks, ``K`` shots, ``Q`` queries, ``S`` inner steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
from jax import export

Array = jax.Array
PyTree = Any
Params = PyTree
"""Any pytree of floating-point arrays."""

_Tuple = TypeVar("_Tuple", bound=type)


def exportable(kind: _Tuple) -> _Tuple:
    """Let functions of this named tuple be serialised by `jax.export`, under the tuple's name."""
    export.register_namedtuple_serialization(kind, serialized_name=f"mamljax.{kind.__name__}")
    return kind


@exportable
class WithState(NamedTuple):
    """Parameters of a network, and the state that it has besides, which nothing moves.

    State are running averages, constants, vectors of a spectral norm. It has no gradient, never
    adapts, and no outer optimizer changes it; but it is initialised, saved and loaded with the
    parameters.

    params: any pytree of floating-point arrays.
    state: a pytree of floating-point arrays; None stands for what is no floating-point array,
      which the model draws by itself, always the same.
    """

    params: PyTree
    state: PyTree


@exportable
class WithStatistics(NamedTuple):
    """Adapted parameters, and the statistics of the support set that their norms predict by.

    Models with ``norm="support"`` take them in place of plain parameters, under which a norm has
    the statistics of the batch at hand. See `Model.condition`.

    params: any pytree that the model takes by itself.
    statistics: a pytree of floating-point arrays.
    """

    params: PyTree
    statistics: PyTree


@exportable
class Batch(NamedTuple):
    """Examples of one task. Both fields are pytrees whose leaves share their leading axis."""

    inputs: PyTree
    targets: PyTree


class Distribution(Protocol):
    """The output of a stochastic policy: a pytree of arrays whose leading axes are those of states.

    `Gaussian` of `mamljax.models` is one. Shapes are for states ``[...]`` and actions of size A.
    """

    def sample(self, key: Array, /) -> Array:
        """One action for each state, ``[..., A]``."""
        ...

    def log_prob(self, actions: Array, /) -> Array:
        """The log-probability, or log-density, of actions ``[..., A]``: ``[...]``."""
        ...

    def kl(self, other: Any, /) -> Array:
        """The divergence KL(self || other) from another of its kind, ``[...]``."""
        ...

    def fisher(self, tangent: Any, /) -> Any:
        """The Fisher information in its own parameters, times a change of these.

        Both are of its own kind. It is the Hessian of `kl` at no divergence.
        """
        ...


class Weighted(NamedTuple):
    """Targets of examples that do not all count the same, such as padding, which has weight 0.

    The losses of `mamljax.losses` take them in place of plain targets. What has weight 0 reaches
    neither the value nor the gradient, whatever it is.

    targets: an array with a leading axis ``K``.
    weights: ``[K]``, at least 0; booleans are 0 and 1.
    """

    targets: Array
    weights: Array


@exportable
class PerStep(NamedTuple):
    """A support set with fresh data for every inner step: leaves have a leading axis ``S``.

    Reinforcement learning needs it (each inner step sees trajectories of the policy it improves);
    supervised tasks may use it to draw a new minibatch per step. `unroll` feeds ``data[s]`` to
    inner step ``s``.
    """

    data: PyTree


class Drawn(NamedTuple):
    """Data that the learner's own parameters produce, such as trajectories of its policy.

    draw: ``(params, key) -> Batch``. As a support set it is drawn before every inner step, as a
    query set whenever parameters are scored. Gradients do not see where the data came from: record
    it first (`Adapted.drawn`), then differentiate on the record, a `PerStep`.
    """

    draw: Callable[[Params, Array], "Batch"]


@exportable
class Task(NamedTuple):
    """One task: adapt on `support`, score on `query`.

    `support` is a `Batch` used in every inner step, a `PerStep` of batches, or `Drawn`; `query` a
    `Batch`, or `Drawn` where it is only evaluated.
    """

    support: Any
    query: Any


@exportable
class Adapted(NamedTuple):
    """The result of an adaptation.

    params: the adapted parameters of the task, which the learner's `predict` and `loss` take.
    support_losses: ``[S]``, the support loss *before* each inner step; empty without inner steps.
    observed: what `observe` returned, with a leading axis ``S + 1`` (before the first step, after
      each step), or None where nothing observed.
    drawn: the batches of a `Drawn` support set, with a leading axis ``S``; else None.
    """

    params: Params
    support_losses: Array
    observed: PyTree
    drawn: PyTree = None


class Metrics(NamedTuple):
    """Measurements of one meta-step.

    loss: the mean meta-loss.
    task_losses: every task's own, ``[T]``.
    grad_norm: of the meta-gradient.
    info: further scalars by name, see `meta_step`.
    """

    loss: Array
    task_losses: Array
    grad_norm: Array
    info: dict[str, Array] = {}  # noqa: RUF012, nobody writes into it


class TrainState(NamedTuple):
    """Everything a run needs to go on: with the run's key, `step` gives every later draw."""

    step: Array
    meta_params: Params
    opt_state: PyTree


class Partition(NamedTuple):
    """A choice of the meta-parameters that adapt in the inner loop.

    split: ``meta_params -> (adapting, shared)``.
    merge: ``(adapting, shared) -> params``, the parameters that the model's `apply` takes.
    """

    split: Callable[[Params], tuple[PyTree, PyTree]]
    merge: Callable[[PyTree, PyTree], Params]


class InnerState(NamedTuple):
    """The state that one inner step hands on to the next.

    adapting: the parameters that adapt.
    opt_state: of the inner optimizer.
    step: inner steps done so far.
    """

    adapting: PyTree
    opt_state: PyTree
    step: Array


class ApplyFn(Protocol):
    """A model's forward pass on a batch of inputs.

    `key` drives stochastic layers (None: deterministic); `step` is the inner step, for models with
    per-step parameters.
    """

    def __call__(
        self, params: Params, inputs: PyTree, *, key: Array | None = None, step: Any = 0
    ) -> PyTree: ...


class LossFn(Protocol):
    """``(outputs, targets) -> scalar``: what a user writes. Must average over the examples."""

    def __call__(self, outputs: Any, targets: Any, /) -> Array: ...


class TaskLossFn(Protocol):
    """``(params, batch, key, step) -> scalar``: a model's loss on one task's data."""

    def __call__(self, params: Params, batch: Batch, key: Array | None, step: Any, /) -> Array: ...


class InnerStep(NamedTuple):
    """One inner step on one task, with what it starts from and what comes out of it.

    start: ``meta_params -> (state, shared)``, the state before the first step and the parameters
      that do not adapt.
    step: ``(state, shared, support, key) -> (state, loss)``, with the support loss before the step.
    params: ``(state, shared) -> params``, those that the model's `apply` takes.
    """

    start: Callable[[Params], tuple[InnerState, PyTree]]
    step: Callable[[InnerState, PyTree, PyTree, Array | None], tuple[InnerState, Array]]
    params: Callable[[InnerState, PyTree], Params]


class AdaptFn(Protocol):
    """Adapt meta-parameters to one task.

    key: of stochastic layers, and of what is drawn; None adapts without either.
    num_steps: inner steps; None takes the number the function was built with.
    observe: ``(params, step) -> pytree``, called before the first inner step and after each one.
    """

    def __call__(
        self,
        meta_params: Params,
        support: Batch | PerStep | Drawn,
        key: Array | None,
        *,
        num_steps: int | None = None,
        observe: Callable[[Params, Any], PyTree] | None = None,
    ) -> Adapted: ...


class StartFn(Protocol):
    """``(meta_params, support) -> params``: where the adaptation to a task begins."""

    def __call__(self, meta_params: Params, support: Batch | PerStep | Drawn, /) -> Params: ...


class ObjectiveFn(Protocol):
    """``(meta_params, task, key) -> scalar``: the meta-loss of one task."""

    def __call__(self, meta_params: Params, task: Task, key: Array, /) -> Array: ...


class MetaGradientFn(Protocol):
    """``(meta_params, tasks, key) -> (gradient, Metrics)``; leaves of `tasks` lead with ``T``."""

    def __call__(
        self, meta_params: Params, tasks: Task, key: Array, /
    ) -> tuple[Params, Metrics]: ...


class StepFn(Protocol):
    """``(state, tasks, key) -> (state, Metrics)``: one meta-update."""

    def __call__(
        self, state: TrainState, tasks: Task, key: Array, /
    ) -> tuple[TrainState, Metrics]: ...


class ConditionFn(Protocol):
    """``(params, inputs, step=0) -> params`` that keep the statistics of these inputs.

    Predictions by them do not depend on what else is predicted.
    """

    def __call__(self, params: Params, inputs: PyTree, /, step: Any = 0) -> Params: ...


class Sampler(Protocol):
    """``(meta_params, key) -> Task``: draws one task, pure and traceable.

    Supervised samplers ignore the meta-parameters; reinforcement learning rolls out their policy.

    One that also takes a keyword ``place``, with the default None, is given the task's number among
    those drawn with it: consecutive integers from a random one on. Kinds of tasks that are taken in
    turn, such as ``place % 2``, come equally often in every meta-batch and test.
    """

    def __call__(self, meta_params: Params, key: Array, /) -> Task: ...


class Model(NamedTuple):
    """A network as two pure functions.

    init: ``(key, inputs) -> params``, with one example batch of inputs.
    apply: ``(params, inputs, *, key=None, step=0) -> outputs``.
    condition: of a network whose norms predict by the statistics of the support set
      (``norm="support"``), see `ConditionFn`; None for all others.
    """

    init: Callable[[Array, PyTree], Params]
    apply: ApplyFn
    condition: ConditionFn | None = None


class Recurrent(NamedTuple):
    """A policy with a memory, as four pure functions; the first two are those of a `Model`.

    init: ``(key, inputs) -> params``.
    apply: ``(params, observations [..., H, D]) -> distribution``, of whole episodes at once, each
      step's of what was seen up to it.
    start: ``(params, observations [..., D]) -> carry``, the memory before the first step.
    step: ``(params, carry, observations [..., D]) -> (carry, distribution)``, of one step.
    """

    init: Callable[[Array, PyTree], Params]
    apply: ApplyFn
    start: Callable[[Params, Array], PyTree]
    step: Callable[[Params, PyTree, Array], tuple[PyTree, Any]]


class Learner(NamedTuple):
    """A meta-learning method: what every algorithm and every baseline returns.

    init: ``(key, inputs) -> meta_params``.
    adapt: meta-parameters and a support set to adapted parameters.
    predict: the model's forward pass with adapted parameters.
    loss_fn: the loss of what it predicts.
    objective: the meta-loss of one task.
    meta_gradient: the gradient of the mean meta-loss over a batch of tasks.
    """

    init: Callable[[Array, PyTree], Params]
    adapt: AdaptFn
    predict: ApplyFn
    loss_fn: LossFn
    objective: ObjectiveFn
    meta_gradient: MetaGradientFn

    def loss(self, params: Params, batch: Batch, key: Array | None = None, step: Any = 0) -> Array:
        """The loss of parameters on one batch, a `TaskLossFn`."""
        return self.loss_fn(self.predict(params, batch.inputs, key=key, step=step), batch.targets)
