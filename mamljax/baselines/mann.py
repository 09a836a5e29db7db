"""Memory-augmented neural networks (Santoro et al. 2016), without convolutions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mamljax import checks
from mamljax.baselines.amortised import amortised
from mamljax.baselines.metric import cosine_similarity
from mamljax.checks import ArgumentError
from mamljax.losses import cross_entropy, one_hot
from mamljax.types import Array, Learner, LossFn, Model, exportable

TASKS_AT_A_TIME = 8
"""On CPU. By its size one task would be taken (see `backprop`), as of networks that each task
adapts a copy of; here all tasks share the weights, and products of several are faster."""


@exportable
class MemoryState(NamedTuple):
    """The state that the network carries from one example to the next.

    controller: the LSTM's cell and hidden state, ``[hidden]`` each.
    memory: ``[slots, width]``.
    usage: ``[slots]``, decayed sum of all reads and writes.
    read_weights: ``[reads, slots]`` of the last read.
    read: ``[reads, width]``, what it returned.
    """

    controller: tuple[Array, Array]
    memory: Array
    usage: Array
    read_weights: Array
    read: Array


class MemoryCell(nn.Module):
    """One example: LSTM controller, read by cosine similarity, write to the least used slots.

    Santoro et al. 2016, section 3. Where the paper leaves a choice: the gate is computed by the
    controller, one per head; each head has a least used slot of its own; reading comes before
    writing, so that an example cannot retrieve itself.
    """

    ways: int
    hidden: int
    slots: int
    width: int
    reads: int
    decay: float

    def setup(self) -> None:
        self.of_example = nn.Dense(4 * self.hidden)
        self.of_state = nn.Dense(4 * self.hidden, use_bias=False)
        self.keys = nn.Dense(self.reads * self.width)
        self.gate = nn.Dense(self.reads)
        self.answer = nn.Dense(self.ways)

    def __call__(self, state: MemoryState, inputs: Array, label: Array):
        """``inputs [...], label [N] (zeros: unknown) -> (next state, logits [N])``."""
        return self.step(state, self.seen(inputs[None], label[None])[0])

    def seen(self, inputs: Array, labels: Array) -> Array:
        """What examples say to the controller's gates, ``[K, ...], [K, N] -> [K, 4 hidden]``.

        Most of the work, and it depends on no state: one product serves a whole sequence.
        """
        examples = jnp.concatenate([inputs.reshape(inputs.shape[0], -1), labels], axis=1)
        return self.of_example(examples)

    def step(self, state: MemoryState, seen: Array):
        """One example as `seen` returns it, ``[4 hidden] -> (next state, logits [N])``."""
        carry, hidden = state.controller
        seen = seen + self.of_state(jnp.concatenate([hidden, state.read.ravel()]))
        i, f, o, g = jnp.split(seen, 4)  # input, forget and output gate, and the candidate
        carry = nn.sigmoid(f) * carry + nn.sigmoid(i) * jnp.tanh(g)
        hidden = nn.sigmoid(o) * jnp.tanh(carry)
        keys = jnp.tanh(self.keys(hidden)).reshape(self.reads, self.width)
        gate = nn.sigmoid(self.gate(hidden))[:, None]

        read_weights = jax.nn.softmax(cosine_similarity(keys, state.memory))
        read = read_weights @ state.memory
        logits = self.answer(jnp.concatenate([hidden, read.ravel()]))

        least_used = jax.lax.top_k(-state.usage, self.reads)[1]  # equal usage: the first slots
        least_used = jax.nn.one_hot(least_used, self.slots, dtype=keys.dtype)
        write_weights = gate * state.read_weights + (1 - gate) * least_used
        kept = (1 - jnp.sum(least_used, axis=0))[:, None]
        memory = kept * state.memory + write_weights.T @ keys
        usage = self.decay * state.usage + jnp.sum(read_weights + write_weights, axis=0)
        return MemoryState((carry, hidden), memory, usage, read_weights, read), logits

    def start(self, dtype: Any) -> MemoryState:
        """The state before the first example: zeros."""
        zeros = jnp.zeros((self.hidden,), dtype)
        return MemoryState(
            controller=(zeros, zeros),
            memory=jnp.zeros((self.slots, self.width), dtype),
            usage=jnp.zeros((self.slots,), dtype),
            read_weights=jnp.zeros((self.reads, self.slots), dtype),
            read=jnp.zeros((self.reads, self.width), dtype),
        )


def mann(
    *,
    ways: int,
    hidden: int = 200,
    slots: int = 128,
    width: int = 40,
    reads: int = 4,
    decay: float = 0.99,
    loss_fn: LossFn = cross_entropy,
    **options: Any,
) -> Learner:
    """A memory-augmented network that reads the support set, then answers each query.

    Santoro et al. 2016 present each label with the next example of a sequence, and score them all.
    To compare on few-shot tasks, support examples come here with their own labels, in random order
    (without a key, in the order given); each query, without a label, is answered from the state
    after the last; only queries are scored.

    Args:
      ways: classes ``N`` of a task; labels are 0 to N - 1.
      hidden: units of the controller; all default sizes are the paper's.
      slots, width, reads: slots of the memory, their length, heads that read and write.
      decay: of the usage, from 0 to 1.
      loss_fn: of the logits and the queries' labels.
      options: ``task_chunk`` (None is `TASKS_AT_A_TIME` on CPU) and ``mesh``, see `backprop`.

    Raises:
      ArgumentError: for a size below 1, more read heads than slots, or a decay outside 0 to 1.
    """
    sizes = {"ways": ways, "hidden": hidden, "slots": slots, "width": width, "reads": reads}
    for name, size in sizes.items():
        checks.at_least(name, size, 1)
    if reads > slots:
        raise ArgumentError(f"reads={reads} heads need a slot each to write to, but slots={slots}.")
    checks.fraction("decay", decay)
    cell = MemoryCell(ways, hidden, slots, width, reads, decay)
    if options.get("task_chunk") is None and jax.default_backend() == "cpu":
        options["task_chunk"] = TASKS_AT_A_TIME

    def init(key, inputs):
        start, unknown = cell.start(inputs.dtype), jnp.zeros(ways, inputs.dtype)
        return cell.init(key, start, inputs[0], unknown)["params"]

    def encode(meta_params, support, key):
        inputs, dtype = support.inputs, support.inputs.dtype
        labels = one_hot(support.targets, ways, dtype)
        order = jnp.arange(inputs.shape[0])
        order = order if key is None else jax.random.permutation(key, order)

        def present(state, seen):
            return cell.apply(weights, state, seen, method="step")[0], None

        weights = {"params": meta_params}
        seen = cell.apply(weights, inputs[order], labels[order], method="seen")
        return jax.lax.scan(present, cell.start(dtype), seen)[0]

    def apply(params, inputs, *, key=None, step=0):
        del key, step  # nothing stochastic
        weights = {"params": params.meta_params}
        unknown = jnp.zeros((inputs.shape[0], ways), inputs.dtype)
        seen = cell.apply(weights, inputs, unknown, method="seen")

        def answer(query):
            return cell.apply(weights, params.memory, query, method="step")[1]

        return jax.vmap(answer)(seen)

    return amortised(Model(init, apply), encode, loss_fn, **options)
