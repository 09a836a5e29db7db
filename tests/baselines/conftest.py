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
            centre_key, support_key, query_key = jax.random.split(key, 3)
            centres = jax.random.normal(centre_key, (ways, size))

            def batch(key, number):
                labels = jnp.tile(jnp.arange(ways), number)
                spread = noise * jax.random.normal(key, (ways * number, size))
                return Batch(centres[labels] + spread, labels)

            return Task(batch(support_key, shots), batch(query_key, queries))

        return jax.jit(sampler)  # one compilation, where eager calls would take many

    return build
