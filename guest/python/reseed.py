"""Makes a forked interpreter's randomness its own. Every generator that was made before the fork is here.

What already differs by itself: `os.urandom`, `secrets`, `uuid.uuid4`, `numpy.random.default_rng()`, and anything else
that asks Linux each time. What stays the same in all children of a zygote, and cannot be changed: the seed of string
hashes, and addresses.
"""

import gc
import os
import random
import sys

ENTROPY_BYTES = 32


def generators():
    """Every generator that Python code can reach: to be called in the zygote, once everything is imported."""
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
    return found


def reseed(found):
    """To be called in each child, before it runs anything of the user's."""
    for generator in found:
        if hasattr(generator, "bit_generator"):  # One of numpy's newer ones, which have no `seed`.
            generator.bit_generator.state = type(generator.bit_generator)().state
        else:
            generator.seed()
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
