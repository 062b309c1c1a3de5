"""Makes a forked interpreter's randomness its own. Every generator that was made before the fork is here.

What already differs by itself: `os.urandom`, `secrets`, `uuid.uuid4`, `numpy.random.default_rng()`, and anything else
that asks Linux each time. What stays the same in all children of a zygote, and cannot be changed: the seed of string
hashes, and addresses.
"""

import ctypes
import gc
import os
import random
import sys

ENTROPY_BYTES = 32
TWISTER_WORDS = 624
"""Of the state of a Mersenne Twister."""


def generators():
    """What seeds every generator that Python code can reach: to be called in the zygote, once everything is imported."""
    kinds = [random.Random]
    found = [random._inst]
    if "numpy.random" in sys.modules:
        numpy = sys.modules["numpy.random"]
        kinds += [numpy.RandomState, numpy.Generator]
        found.append(numpy.mtrand._rand)
    # Libraries make some at import, and their places change from release to release.
    for thing in gc.get_objects():
        if type(thing) in kinds and not any(thing is known for known in found):
            found.append(thing)
    return [seeder(generator) for generator in found]


def seeder(generator):
    """What seeds one."""
    if not hasattr(generator, "seed"):  # One of numpy's newer ones.
        inner = generator.bit_generator
        return lambda: setattr(inner, "state", type(inner)().state)
    generator.seed()  # Forgets what it has drawn in advance.
    return twister_seeder(generator) or generator.seed


def twister_seeder(generator):
    """Fills the state of a numpy RandomState where it lies; None when it lies elsewhere.

    The same randomness by `seed()` runs through a hundred pages of numpy's that a child does not have yet.
    """
    inner = getattr(generator, "_bit_generator", None)
    if type(inner).__name__ != "MT19937":
        return None
    state, address = inner.state["state"], inner.ctypes.state_address
    words = (ctypes.c_uint32 * TWISTER_WORDS).from_address(address)
    used = ctypes.c_int.from_address(address + ctypes.sizeof(words))
    if (list(words), used.value) != (state["key"].tolist(), state["pos"]):
        return None

    def seed():
        ctypes.memmove(words, os.urandom(ctypes.sizeof(words)), ctypes.sizeof(words))
        used.value = TWISTER_WORDS

    return seed


def reseed(seeders):
    """To be called in each child, before it runs anything of the user's."""
    for seed in seeders:
        seed()
    # OpenSSL notices a fork by the process id, and a container's first ids are always the same few.
    for name in ("_ssl", "ssl"):
        if name in sys.modules:
            sys.modules[name].RAND_add(os.urandom(ENTROPY_BYTES), float(ENTROPY_BYTES))
            break
    if "tempfile" in sys.modules:
        sys.modules["tempfile"]._name_sequence = None
    if "uuid" in sys.modules:
        uuid = sys.modules["uuid"]
        uuid._node = uuid._last_timestamp = None
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].current_process().authkey = os.urandom(ENTROPY_BYTES)
