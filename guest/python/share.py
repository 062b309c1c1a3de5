"""What keeps a zygote's memory its children's too: less to copy at a fork, and less in a child that is written to.

Nothing here changes what a program does. Where something cannot be done, a child only takes longer.
"""

import ctypes
import gc
import os
import types

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PT_LOAD, PT_GNU_RELRO = 1, 0x6474E552  # elf(5)
PF_W = 2
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4  # mprotect(2)
IMMORTAL_MIN = 1 << 31
"""A count of references from which on Python writes it no more (PEP 683), where it does so at all."""
CHUNK = 4096
ARENA_BYTES = 1 << 20
OBJECT_BYTES_MAX = 512
"""Larger objects, and what is none, are the C library's to allocate."""
OBJECT_STEP = 16
HOLE_SIZES = [size * 1024 for size in (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)] + list(range(1536, 8, -16))
HOLES_MAX = 1_000_000
"""Of one size; more are left as they are."""
TRIMMED_BYTES_MAX = 2 * PAGE_BYTES
"""What `malloc_trim` leaves at the end of the heap."""

_count_at = ctypes.c_uint32.from_address


class Segment(ctypes.Structure):
    """Elf64_Phdr of elf(5)."""

    _fields_ = [
        ("type", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("offset", ctypes.c_uint64), ("address", ctypes.c_uint64),
        ("physical", ctypes.c_uint64), ("file_bytes", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("align", ctypes.c_uint64),
    ]


class Loaded(ctypes.Structure):
    """The head of dl_phdr_info of dl_iterate_phdr(3)."""

    _fields_ = [
        ("base", ctypes.c_uint64), ("name", ctypes.c_char_p), ("segments", ctypes.POINTER(Segment)), ("count", ctypes.c_uint16),
    ]


class ArenaAllocator(ctypes.Structure):
    """PyObjectArenaAllocator of Python's C API."""

    _fields_ = [("context", ctypes.c_void_p), ("alloc", ctypes.c_void_p), ("free", ctypes.c_void_p)]


class Memory:
    """Where this process's memory lies. `library` is the one that joins containers, or None."""

    def __init__(self, library):
        self._library = library
        self._libc = ctypes.CDLL(None)
        self._kept = []
        self._allocator = None
        self.missing = []
        """What could not be done."""

    def gather(self):
        """Before anything large is made: has Python's objects lie side by side, where large pages fit in."""
        if self._library is None:
            return
        if self._library.belljar_arenas_reserve():
            self.missing.append("arenas side by side")
            return
        alloc, free = self._library.belljar_arena_alloc, self._library.belljar_arena_free
        self._allocator = ArenaAllocator(None, *(ctypes.cast(function, ctypes.c_void_p) for function in (alloc, free)))
        ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(self._allocator))

    def settle(self):
        """Once everything is made that children are to share."""
        program = join_mappings(self._libc)
        if self._library is not None and program is not None:
            large = self._library.belljar_enlarge(*(ctypes.c_size_t(address) for address in program))
            if large < 0:
                self.missing.append(f"large pages for the program: {os.strerror(-large)}")
        if not self.keep():
            self.missing.append("counts of references that are not written")

    def keep(self):
        """What there is by now stays for good, and what is free in between is taken: so what a child makes lies together.
        False where Python counts references to it all the same."""
        lasting = make_immortal()
        gc.collect()
        self._fill_heap()
        self._fill_arenas()
        return lasting

    def _fill_heap(self):
        """Takes what is free between what the C library has allocated: so a child finds what it needs in one place."""
        allocate, release, end = self._libc.malloc, self._libc.free, self._libc.sbrk
        allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_void_p
        release.argtypes = [ctypes.c_void_p]
        end.argtypes, end.restype = [ctypes.c_ssize_t], ctypes.c_void_p
        self._libc.malloc_trim(ctypes.c_size_t(0))
        edge = end(0) - TRIMMED_BYTES_MAX
        for size in HOLE_SIZES:
            for _ in range(HOLES_MAX):
                place = allocate(size)
                if place is None or place >= edge:
                    release(place)
                    break

    def _fill_arenas(self):
        """The same for Python's objects: what is made from here on lies in an arena of its own."""
        if self._allocator is None:
            return
        made, kept = self._library.belljar_arenas_made, self._kept
        before = made()
        while made() == before:
            kept.append(bytes(OBJECT_BYTES_MAX - bytes.__basicsize__))
        before, fresh = made(), id(kept[-1]) // ARENA_BYTES
        for size in range(OBJECT_STEP, OBJECT_BYTES_MAX, OBJECT_STEP):
            # Where arenas do not lie side by side, this one is not recognised, and is used up.
            while made() == before:
                kept.append(object_of(size))
                if id(kept[-1]) // ARENA_BYTES == fresh:
                    break


def object_of(size):
    """A new object that takes so many bytes, rounded up."""
    if size == OBJECT_STEP:
        return object()
    return int("1000") if size < bytes.__basicsize__ + 2 else bytes(size - bytes.__basicsize__)


def join_mappings(libc):
    """Gives neighbouring parts of each library the same protection, so that the kernel keeps them as one mapping. The
    answer is where the program's own code and constants are.

    A fork copies each mapping, and an end takes each down: half of them were a library's constants beside its code, and
    its relocated data beside its data. Protecting those guards nothing here: whoever runs code in a child may run any.
    """
    protect = libc.mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    programs = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Loaded), ctypes.c_size_t, ctypes.c_void_p)
    def each(loaded, _size, _nothing):
        found = [part for part in parts(loaded.contents) if not protect(part[0], part[1] - part[0], part[2])]
        code = [part for part in found if part[2] & PROT_EXEC]
        together = all(one[1] == next_one[0] for one, next_one in zip(code, code[1:]))
        programs.append((code[0][0], code[-1][1]) if code and together else None)
        return 0

    libc.dl_iterate_phdr(each, None)
    return programs[0] if programs else None  # The first one is the program (dl_iterate_phdr(3)).


def parts(loaded):
    """(first address, address behind the last, protection) of what is given another protection."""
    for segment in loaded.segments[: loaded.count]:
        first = loaded.base + segment.address
        end = first + segment.bytes
        if segment.type == PT_LOAD and not segment.flags & PF_W:
            yield page_of(first), page_of(end + PAGE_BYTES - 1), PROT_READ | PROT_EXEC
        elif segment.type == PT_GNU_RELRO and page_of(end) > page_of(first):
            yield page_of(first), page_of(end), PROT_READ | PROT_WRITE


def page_of(address):
    """Where its page begins."""
    return address & -PAGE_BYTES


def make_immortal():
    """Has Python write no counts of references into what there is by now.

    None of it would ever be freed anyway, but for what a cell replaces in a library; that stays, and is little. False
    where this Python always counts.
    """
    lasting = _count_at(id(None)).value
    if lasting < IMMORTAL_MIN:
        return False
    found = gc.get_objects()
    known = set()  # Made behind what was found: it is not to stay.
    while found:
        new = {id(thing): thing for thing in found if id(thing) not in known}
        known.update(new)
        for address in new:
            _count_at(address).value = lasting
        things, found = list(new.values()), []
        for at in range(0, len(things), CHUNK):
            found += gc.get_referents(*things[at : at + CHUNK])
        for thing in things:
            found += unseen(thing)
    return True


def unseen(thing, fields_of=type.__dict__["__dict__"].__get__):
    """What an object refers to that the collector is not told of."""
    kind = type(thing)
    if kind is types.CodeType:
        texts = [thing.co_filename, thing.co_name, thing.co_qualname, thing.co_linetable, thing.co_exceptiontable]
        return [thing.co_consts, thing.co_names, *thing.co_varnames, *thing.co_freevars, *thing.co_cellvars, *texts]
    if issubclass(kind, type):
        return [thing.__mro__, *fields_of(thing), *fields_of(thing).values()]
    return ()
