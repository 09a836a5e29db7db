"""One run in several processes, on one machine or on many: how they find each other, and fail."""

import contextlib
import hashlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from mamljax import processes
from mamljax.checks import ArgumentError

FLAGS = ("coordinator", "num_processes", "process_id")

AUTOMATIC = "auto"


def define_flags() -> None:
    """``--coordinator``, ``--num_processes`` and ``--process_id``."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "To train in several processes together: HOST:PORT at which the others find process 0. "
        f"'{AUTOMATIC}' takes this and the next two from Slurm, Open MPI, Kubernetes or Cloud TPU.",
    )
    flags.DEFINE_integer("num_processes", None, "How many processes.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", lower_bound=0)


def join(config: dict[str, Any]) -> None:
    """Find the other processes, if the flags say that there are any.

    Raises:
      ArgumentError: for flags that do not go together, or a config that is not that of process 0.
      RuntimeError: if they do not find each other.
    """
    address, number, index = (flags.FLAGS[name].value for name in FLAGS)
    if address is None:
        if number is not None or index is not None:
            raise ArgumentError("--num_processes and --process_id need --coordinator=HOST:PORT.")
        return
    if address == AUTOMATIC:
        try:
            jax.distributed.initialize()
        except ValueError as error:
            raise ArgumentError(
                f"--coordinator={AUTOMATIC} found no cluster here ({error}); give HOST:PORT, "
                "--num_processes and --process_id."
            ) from error
    else:
        if number is None or index is None or index >= number:
            raise ArgumentError(
                f"--coordinator={address} needs --num_processes and a smaller --process_id; got "
                f"{number} and {index}."
            )
        jax.distributed.initialize(address, number, index)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).digest()
    own = np.frombuffer(digest, np.uint8)
    if not np.array_equal(own, processes.from_first(own)):
        raise ArgumentError("this process has another --config than process 0: give all the same.")


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End all processes where one fails: no collective would ever be complete again."""
    try:
        yield
    except BaseException as error:
        if not processes.several():
            raise
        code = 1
        # On CPU jax raises now this, now a ValueError, depending on whether it was waiting.
        failed = isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)
        if failed and "RESOURCE_EXHAUSTED" not in str(error):
            print(
                f"error: this process lost another one ({str(error).splitlines()[0]}). Start all "
                "of them again with the same commands: they go on from the last checkpoint.",
                file=sys.stderr,
            )
        elif isinstance(error, SystemExit):
            if isinstance(error.code, int):
                code = error.code
            elif error.code:
                print(error.code, file=sys.stderr)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a normal exit would wait for the others
