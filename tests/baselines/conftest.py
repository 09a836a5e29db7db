"""Small few-shot tasks: clusters around fresh centres, one per class."""

import jax
import jax.numpy as jnp
import pytest

from mamljax import Batch, Task


@pytest.fixture
def clusters_of():
    """A sampler of `ways` clusters in `size` dimensions; labels come in order, shot by shot."""

    def build(ways=3, shots=2, queries=4, *, size=4, noise=0.3):
        def sampler(meta_params, key):
            del meta_params
            # One draw: most of the time to compile a small sampler goes to its generator.
            draws = jax.random.normal(key, (1 + shots + queries, ways, size))
            examples = (draws[:1] + noise * draws[1:]).reshape(-1, size)
            labels = jnp.tile(jnp.arange(ways), shots + queries)
            cut = ways * shots
            return Task(Batch(examples[:cut], labels[:cut]), Batch(examples[cut:], labels[cut:]))

        return sampler

    return build
