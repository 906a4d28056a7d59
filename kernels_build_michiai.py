"""The C++ of all kernels, compiled where they run.

The source is compiled by `$CXX`, g++, clang++ or c++ for the machine's own instructions, once, in some seconds, and kept in the
user's cache. Where there is no compiler, `has_kernels()` is False and the same layers run in PyTorch (`packed_michiai.py`).
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from .kernels_attention_michiai import ATTENTION
from .kernels_convolutions_michiai import CONVOLUTIONS
from .kernels_layers_michiai import LAYERS
from .kernels_listen_michiai import LISTEN
from .kernels_products_michiai import PRODUCTS
from .kernels_vocoder_michiai import VOCODER

logger = logging.getLogger(__name__)
SOURCE = PRODUCTS + ATTENTION + LAYERS + LISTEN + CONVOLUTIONS + VOCODER
FUNCTIONS = ("multiply_int8", "follow_layers", "follow_steered", "halve_rates", "generate")  # of the source
FLAGS = (
    "-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fno-finite-math-only",  # minus infinity is used
    "-std=c++17", "-fPIC", "-shared", "-fopenmp",
)  # fmt: skip


def _cache() -> Path:
    """Where compiled kernels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "michiai"


@functools.cache
def _short_lived() -> tempfile.TemporaryDirectory:
    """A folder of this process, for where no cache can be written."""
    return tempfile.TemporaryDirectory(prefix="michiai-kernels-")


def _processor() -> str:
    """What `-march=native` means here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _compile(compiler: str) -> Path:
    """The compiled source; made if it is not in the cache.

    Raises:
        subprocess.CalledProcessError: the compiler refused the source.
    """
    key = hashlib.sha256("\0".join([SOURCE, *FLAGS, compiler, platform.machine(), _processor()]).encode()).hexdigest()[:16]
    kept = _cache() / f"kernels-{key}.so"
    if kept.exists():
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=kept.parent).close()
    except OSError as error:
        logger.warning("compiled kernels cannot be kept (%s), so that each process compiles them anew; set XDG_CACHE_HOME to a folder that "
                       "may be written to", error)
        kept = Path(_short_lived().name) / kept.name
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:  # moved when whole: other processes may do the same at this moment
        source, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
        source.write_text(SOURCE)
        subprocess.run([compiler, *FLAGS, str(source), "-o", str(made)], check=True, capture_output=True, text=True)
        made.replace(kept)
    return kept


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had."""
    problem = "no C++ compiler was found; install g++"
    for compiler in filter(shutil.which, [os.environ.get("CXX", ""), "g++", "clang++", "c++"]):
        try:
            made = ctypes.CDLL(str(_compile(compiler)))
        except (OSError, subprocess.CalledProcessError) as error:
            problem = f"{compiler} could not compile our kernels: {getattr(error, 'stderr', None) or error}"
            continue
        for name in FUNCTIONS:
            getattr(made, name).restype = None
        return made
    logger.warning("int8 layers run in PyTorch's own operations, which takes two to three times as long: %s", problem)
    return None


def has_kernels() -> bool:
    """Whether this machine has the kernels; the first call may compile them."""
    return library() is not None
