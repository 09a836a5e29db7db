"""The way from the command line to a run: flags, checks, devices, and errors in one line."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments.harness import config, distributed, endings, workdir
from experiments.harness.config import Config
from mamljax.checks import ArgumentError
from mamljax.train import NonFiniteError

HOME = Path(__file__).parents[2]
"""The folder of experiments and configs, in which a command need not have been started."""


def main(run: Callable[[Config, Path], object], default_config: str) -> None:
    """Parse ``--config`` and ``--workdir``, then call ``run(config, workdir)``.

    Args:
      run: the experiment.
      default_config: a file, from the folder that holds ``configs/``.
    """
    file = HOME / default_config
    default_config = min(os.path.relpath(file), str(file), key=len)
    _define_flags(default_config)
    if any(word.startswith("--help") for word in sys.argv):
        given = [word.partition("=")[2] for word in sys.argv if word.startswith("--config=")]
        program = sys.modules["__main__"]  # whose docstring --help prints
        try:
            program.__doc__ = (
                f"{program.__doc__ or ''}\n{config.listing(*given or [default_config])}"
            )
        except (OSError, ValueError) as error:
            _refuse(str(error))
    app.run(lambda argv: _start(run, argv), flags_parser=_parse)


def set_up_cpu(given: Config) -> None:
    """Choose devices and threads, before the first computation, at which jax makes its client."""
    devices = given.get("cpu_devices", 1) or len(os.sched_getaffinity(0))
    jax.config.update("jax_num_cpu_devices", devices)
    # Under XLA's schedule for concurrency, its default (seen in jax 0.10.2 and 0.12.0), some of a
    # robot's tasks adapted to memory that was not written. The other schedule is no slower.
    flags = ["--xla_cpu_enable_concurrency_optimized_scheduler=false"]
    if devices > 1:
        # Each device works on tasks of its own: threads within an operation would be in the way.
        flags.append("--xla_cpu_multi_thread_eigen=false")
    elif given.cpu_threads:
        os.environ["NPROC"] = str(given.cpu_threads)
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()


def keep_compiled_programs() -> None:
    """Compile once per machine, not once per process, unless the user set another cache."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(cache / "mamljax" / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _define_flags(default_config: str) -> None:
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


def _start(run: Callable[[Config, Path], object], argv: Sequence[str]) -> None:
    """Run with the parsed flags; every ending that a user can mend is told in one line."""
    if len(argv) > 1:
        _refuse(f"unexpected arguments {argv[1:]}; values are given as --flag=value.")
    given = flags.FLAGS.config
    try:
        config.check(given)
    except ArgumentError as error:
        _refuse(str(error))
    except OSError as error:  # raised at the first use of a config whose file is not there
        _refuse(str(error).splitlines()[-1].strip())
    set_up_cpu(given)
    keep_compiled_programs()
    # orbax tells of every file it writes, and of every error before it raises it.
    logging.set_verbosity(logging.FATAL)
    with distributed.ending_together():
        try:
            distributed.join(given.to_dict())
        except (RuntimeError, ValueError) as error:
            _refuse(str(error))
        folder = Path(flags.FLAGS.workdir)
        try:
            with workdir.claimed(folder):
                run(given, folder)
        except (ArgumentError, NonFiniteError) as error:
            raise SystemExit(f"error: {error}") from None
        except (OSError, RuntimeError, ValueError) as error:
            if said := endings.explained(error, given):
                endings.at_once(said)
            raise
        except KeyboardInterrupt as stop:
            print(str(stop) or endings.INTERRUPTED, file=sys.stderr)
            raise SystemExit(endings.EXIT_STATUS) from None


def _parse(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # absl's status after --help is 1, but that was no error
        raise SystemExit(0) from None
    except (AttributeError, KeyError) as error:
        _refuse(_unknown_field(error))
    except BrokenPipeError:  # whoever reads --help has seen enough
        raise
    except (flags.Error, OSError, TypeError, ValueError) as error:
        # An error inside a config file comes with its traceback; its last line says what is wrong.
        _refuse(str(error).strip().splitlines()[-1].removeprefix("ValueError: "))


def _unknown_field(error: BaseException) -> str:
    """Return ml_collections' error of an unknown field, and on a second line its suggestion."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    name, _, hint = str(error.args[0]).partition("\n")
    return f"the config has no value {name}. {hint}"


def _refuse(message: str) -> NoReturn:
    print(f"error: {message}\n--help lists the flags.", file=sys.stderr)
    raise SystemExit(2)
