"""From the command line to a checked config: wrong values are refused with a hint."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import config_help, config_values, distributed, interruption, workdirs
from experiments.workdirs import WorkdirError
from mamljax.checkpoint import ConfigChangedError
from mamljax.train import NonFiniteError

Config: TypeAlias = Any
"""A `ConfigDict`, whose fields no type checker can know."""

LESS_MEMORY = (
    ("train.task_chunk", 1),
    ("train.remat", True),
    ("train.rollout_chunk", 1),
    ("evaluate.task_chunk", 1),
    ("train.meta_batch", "fewer tasks, which is another experiment"),
)
"""What needs less memory, in the order in which it costs something."""

INTERRUPTED = "Stopped. The same command goes on from the last checkpoint."


def main(run: Callable[[Config, Path], object], default_config: str) -> None:
    """Parse ``--config`` and ``--workdir``, then call ``run(config, workdir)``."""
    try:
        # ml_collections reads overrides while it defines the flag, so errors come from here too.
        config_flags.DEFINE_config_file(
            "config",
            default_config,
            "Config file, with a variant after a colon, such as configs/sinusoid.py:quick. Every "
            "value in it can be overridden: --config.train.inner_lr=0.001",
        )
    except (AttributeError, KeyError) as error:
        _refuse(_unknown_field(error))
    flags.DEFINE_string(
        "workdir",
        None,
        "Where checkpoints, metrics, figures and the report go. The same command again goes on "
        "from the last checkpoint.",
        required=True,
    )

    distributed.define_flags()
    # --help shows the flags of the program's own module.
    for name in ("config", "workdir", *distributed.FLAGS):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    if any(word.startswith("--help") for word in sys.argv):
        program = sys.modules["__main__"]  # whose docstring --help prints
        program.__doc__ = f"{program.__doc__ or ''}\n{config_help.listing(default_config)}"

    def start(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            _refuse(f"unexpected arguments {argv[1:]}; values are given as --flag=value.")
        config = flags.FLAGS.config
        try:
            config_values.check(config)
        except ValueError as error:
            _refuse(str(error))
        except OSError as error:  # raised at the first use of a config whose file is not there
            _refuse(str(error).splitlines()[-1].strip())
        set_up_cpu(config)
        keep_compiled_programs()
        # orbax tells of every file it writes, and of every error before it raises it.
        logging.set_verbosity(logging.FATAL)
        with distributed.ending_together():
            try:
                distributed.join(config.to_dict())
            except (RuntimeError, ValueError) as error:
                _refuse(str(error))
            workdir = Path(flags.FLAGS.workdir)
            try:
                with workdirs.claimed(workdir):
                    run(config, workdir)
            except (ConfigChangedError, NonFiniteError, WorkdirError) as error:
                raise SystemExit(f"error: {error}") from None
            except (OSError, RuntimeError, ValueError) as error:
                if said := workdirs.full(error) or out_of_memory(error, config):
                    raise SystemExit(f"error: {said}") from None
                raise
            except KeyboardInterrupt as stop:
                print(str(stop) or INTERRUPTED, file=sys.stderr)
                raise SystemExit(interruption.EXIT_STATUS) from None

    app.run(start, flags_parser=_parse)


@contextlib.contextmanager
def refusing_bad_values() -> Iterator[None]:
    """End with the message of a ValueError alone: what is wrong is a value, not the program."""
    try:
        yield
    except NonFiniteError:
        raise
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def set_up_cpu(config: Config) -> None:
    """Before the first computation, at which jax makes its CPU client."""
    devices = config.get("cpu_devices", 1) or len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", devices)
    if devices > 1:
        # Each device works on tasks of its own: threads within an operation would be in the way.
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{given} --xla_cpu_multi_thread_eigen=false".strip()
    elif config.cpu_threads:
        os.environ["NPROC"] = str(config.cpu_threads)


def keep_compiled_programs() -> None:
    """Compile once per machine, not once per process, unless the user set another cache."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "mamljax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def out_of_memory(error: Exception, config: Config) -> str | None:
    """What to say where an error is that of too little memory; None for other errors."""
    if "RESOURCE_EXHAUSTED" not in str(error):
        return None
    present = dict(config_help.leaves(config.to_dict()))
    less = ", ".join(f"--config.{name}={value}" for name, value in LESS_MEMORY if name in present)
    return (
        f"out of memory ({str(error).splitlines()[0]}). What needs less, in this order: {less}. "
        "The same command goes on from the last checkpoint."
    )


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        _refuse(_unknown_field(error))
    except (flags.Error, OSError, TypeError, ValueError) as error:
        # An error inside a config file comes with its traceback; its last line says what is wrong.
        _refuse(str(error).strip().splitlines()[-1].removeprefix("ValueError: "))


def _unknown_field(error: BaseException) -> str:
    """ml_collections' error of an unknown field: the field, and on a second line a suggestion."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    name, _, hint = str(error.args[0]).partition("\n")
    return f"the config has no value {name}. {hint}"


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}\n--help lists the flags.", file=sys.stderr)
    raise SystemExit(2)
