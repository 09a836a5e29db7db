"""Provenance of a number: command, config, seed, versions, device."""

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mamljax.version import __version__


def provenance(experiment: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a number needs to be trusted: command, config, seed, versions, device."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint")
    return {
        "experiment": experiment,
        "command": _command(),
        "config": dict(config),
        "seed": config.get("seed"),
        "versions": {
            "python": platform.python_version(),
            "mamljax": __version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "device": device(),
    }


def device() -> dict[str, Any]:
    """Return the devices that jax uses, the processor, and its cores that this process may use."""
    first = jax.devices()[0]
    return {
        "platform": first.platform,
        "kind": _processor() if first.platform == "cpu" else first.device_kind,
        "count": jax.device_count(),
        "cpu_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")  # not on macOS and Windows
        else os.cpu_count(),
    }


def described(device: Mapping[str, Any]) -> str:
    """Return what `device` found in words, such as ``CPU (AMD EPYC, 2 cores, 1 device)``."""
    parts = device["kind"], _number(device["cpu_cores"], "core"), _number(device["count"], "device")
    return f"{device['platform'].upper()} ({', '.join(parts)})"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _command() -> str:
    """The command line that started this process, as one would type it."""
    typed = sys.orig_argv
    for index, word in enumerate(typed[1:3], start=1):
        if Path(word).name == "mamljax":
            return shlex.join(["mamljax", *typed[index + 1 :]])
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = None if spec is None else spec.name.removesuffix(".__main__")
    program = [Path(sys.argv[0]).name] if name is None else ["-m", name]
    return shlex.join(["python", *program, *sys.argv[1:]])


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
