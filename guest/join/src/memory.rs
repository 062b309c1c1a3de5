//! Where a zygote's memory lies, so that its forks have less to copy: the tables of small pages are most of that, and
//! large pages need neighbours of their own kind.
//!
//! Everything here may fail without harm: then memory lies where it lay before, and a fork takes longer.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Python's allocator asks for arenas of this size (`Include/internal/pycore_obmalloc.h` of CPython 3.10 and later).
const ARENA_BYTES: usize = 1 << 20;
/// Of a large page, with small ones of 4 KiB.
const LARGE: usize = 2 << 20;
const WORDS: usize = 8;
/// For more arenas than a zygote has; what a cell takes beyond them lies wherever there is room.
const ARENAS_MAX: usize = WORDS * u64::BITS as usize;

static ARENAS: Arenas =
    Arenas { base: AtomicUsize::new(0), taken: [const { AtomicU64::new(0) }; WORDS], made: AtomicUsize::new(0) };

/// Room for arenas side by side.
struct Arenas {
    /// Where it begins; 0 while there is none.
    base: AtomicUsize,
    /// A bit for each arena.
    taken: [AtomicU64; WORDS],
    /// How often an arena was handed out.
    made: AtomicUsize,
}

impl Arenas {
    fn take(&self) -> Option<usize> {
        let base = self.base.load(Ordering::Acquire);
        if base == 0 {
            return None;
        }
        for (number, word) in self.taken.iter().enumerate() {
            let lowest_free = |taken: u64| (taken != u64::MAX).then(|| taken | (taken + 1));
            if let Ok(taken) = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, lowest_free) {
                let bit = taken.trailing_ones() as usize;
                return Some(base + (number * u64::BITS as usize + bit) * ARENA_BYTES);
            }
        }
        None
    }

    /// The place of an arena, if it is one of these.
    fn slot(&self, address: usize) -> Option<usize> {
        let slot = address.checked_sub(self.base.load(Ordering::Acquire))? / ARENA_BYTES;
        (slot < ARENAS_MAX).then_some(slot)
    }

    fn give_back(&self, slot: usize) {
        let bit = 1 << (slot % u64::BITS as usize);
        self.taken[slot / u64::BITS as usize].fetch_and(!bit, Ordering::AcqRel);
    }
}

/// Reserves the room. Returns 0, or a negative error number.
#[unsafe(no_mangle)]
pub extern "C" fn belljar_arenas_reserve() -> c_int {
    let Some(room) = map(ARENAS_MAX * ARENA_BYTES + LARGE) else { return -last_errno() };
    ARENAS.base.store(room.next_multiple_of(LARGE), Ordering::Release);
    0
}

/// How often an arena was handed out.
#[unsafe(no_mangle)]
pub extern "C" fn belljar_arenas_made() -> usize {
    ARENAS.made.load(Ordering::Acquire)
}

/// `PyObjectArenaAllocator.alloc` of Python's C API.
#[unsafe(no_mangle)]
pub extern "C" fn belljar_arena_alloc(_context: *mut c_void, bytes: usize) -> *mut c_void {
    let arena = (bytes == ARENA_BYTES).then(|| ARENAS.take()).flatten().or_else(|| map(bytes));
    ARENAS.made.fetch_add(1, Ordering::AcqRel);
    arena.map_or(null_mut(), |address| address as *mut c_void)
}

/// `PyObjectArenaAllocator.free`; also of what was allocated as Python does it by itself, which is by `mmap`.
///
/// # Safety
/// `arena` is one of so many bytes that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn belljar_arena_free(_context: *mut c_void, arena: *mut c_void, bytes: usize) {
    match ARENAS.slot(arena as usize) {
        Some(slot) => {
            // SAFETY: an arena's memory, which nobody uses any more; it is the next user's, who expects nothing of it.
            unsafe { libc::madvise(arena, bytes, libc::MADV_DONTNEED) };
            ARENAS.give_back(slot);
        }
        // SAFETY: a mapping of its own, of which nobody uses anything any more.
        None => unsafe {
            libc::munmap(arena, bytes);
        },
    }
}

/// Puts code and constants into large pages, as far as whole ones fit in. Returns how many, or a negative error number.
///
/// # Safety
/// From `first` to `end` there is nothing but pages that can be read and executed and that nobody ever changes. No other
/// thread runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn belljar_enlarge(first: usize, end: usize) -> c_int {
    let (first, end) = (first.next_multiple_of(LARGE), end / LARGE * LARGE);
    let here = belljar_enlarge as *const () as usize;
    if first >= end || (first..end).contains(&here) {
        return 0;
    }
    let bytes = end - first;
    let Some(room) = map(bytes + LARGE) else { return -last_errno() };
    let copy = room.next_multiple_of(LARGE);
    // SAFETY: `copy` and what follows are within the new mapping, which nobody else knows; the source is readable by the
    // caller's word, and the target of the move is what was copied, so whoever executes it sees the same bytes.
    let moved = unsafe {
        std::ptr::copy_nonoverlapping(first as *const u8, copy as *mut u8, bytes);
        libc::madvise(copy as *mut c_void, bytes, libc::MADV_COLLAPSE) == 0
            && libc::mprotect(copy as *mut c_void, bytes, libc::PROT_READ | libc::PROT_EXEC) == 0
            && libc::mremap(copy as *mut c_void, bytes, bytes, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, first)
                != libc::MAP_FAILED
    };
    let failed = if moved { 0 } else { last_errno() };
    // SAFETY: what is left of the new mapping, which nobody else knows. Where its middle has moved away, there is a hole.
    unsafe { libc::munmap(room as *mut c_void, bytes + LARGE) };
    if moved { c_int::try_from(bytes / LARGE).unwrap_or(c_int::MAX) } else { -failed }
}

/// New memory, whose pages come with use.
fn map(bytes: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at a place of the kernel's choice takes nothing from anybody.
    let mapped = unsafe { libc::mmap(null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    (mapped != libc::MAP_FAILED).then_some(mapped as usize)
}

fn last_errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any address will do: nothing is written there.
    const BASE: usize = 16 * LARGE;

    fn arenas() -> Arenas {
        Arenas { base: AtomicUsize::new(BASE), taken: [const { AtomicU64::new(0) }; WORDS], made: AtomicUsize::new(0) }
    }

    #[test]
    fn arenas_lie_side_by_side_and_the_lowest_free_one_is_next() {
        let arenas = arenas();
        let places: Vec<usize> = (0..ARENAS_MAX).map_while(|_| arenas.take()).collect();
        let expected: Vec<usize> = (0..ARENAS_MAX).map(|number| BASE + number * ARENA_BYTES).collect();
        assert_eq!(places, expected);
        assert_eq!(arenas.take(), None, "there is room for no more");
        for slot in [70, 3] {
            assert_eq!(arenas.slot(places[slot]), Some(slot));
            arenas.give_back(slot);
        }
        assert_eq!([arenas.take(), arenas.take(), arenas.take()], [Some(places[3]), Some(places[70]), None]);
    }

    #[test]
    fn what_lies_elsewhere_is_none_of_these() {
        let arenas = arenas();
        let end = BASE + ARENAS_MAX * ARENA_BYTES;
        assert_eq!([BASE - 1, end, 0].map(|address| arenas.slot(address)), [None; 3]);
        assert_eq!(arenas.slot(end - 1), Some(ARENAS_MAX - 1));
        arenas.base.store(0, Ordering::Release);
        assert_eq!(arenas.take(), None, "without room there are none");
    }

    #[test]
    fn an_arena_of_python_s_comes_and_goes() {
        assert_eq!(belljar_arenas_reserve(), 0);
        let before = belljar_arenas_made();
        let [first, second] = [ARENA_BYTES; 2].map(|bytes| belljar_arena_alloc(null_mut(), bytes));
        assert_eq!(first as usize + ARENA_BYTES, second as usize);
        // Of another size than Python's own: it lies anywhere, and is written to its end.
        let other = belljar_arena_alloc(null_mut(), 3 * ARENA_BYTES);
        assert_eq!(belljar_arenas_made(), before + 3);
        // SAFETY: each is a mapping of so many bytes, used here alone, and not after it is given back.
        unsafe {
            for (arena, bytes) in [(first, ARENA_BYTES), (second, ARENA_BYTES), (other, 3 * ARENA_BYTES)] {
                arena.cast::<u8>().add(bytes - 1).write(1);
                belljar_arena_free(null_mut(), arena, bytes);
            }
        }
        assert_eq!(belljar_arena_alloc(null_mut(), ARENA_BYTES), first, "the lowest one is free again");
    }

    /// The bytes at `first`, all different from page to page.
    fn pattern(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at / 4096 + at) as u8).collect()
    }

    #[test]
    fn enlarged_code_is_where_it_was_and_what_it_was() {
        let bytes = 4 * LARGE;
        let first = map(bytes).expect("room");
        let wanted = pattern(bytes);
        // SAFETY: a mapping of so many bytes that nobody else knows.
        let enlarged = unsafe {
            std::ptr::copy_nonoverlapping(wanted.as_ptr(), first as *mut u8, bytes);
            assert_eq!(libc::mprotect(first as *mut c_void, bytes, libc::PROT_READ | libc::PROT_EXEC), 0);
            belljar_enlarge(first, first + bytes)
        };
        // SAFETY: as above; it is still mapped, whether it was moved or not.
        let found = unsafe { std::slice::from_raw_parts(first as *const u8, bytes) };
        assert!(found == wanted, "the bytes have changed");
        // Four large pages have at least three whole ones, wherever they begin. Without any (madvise(2)) nothing has moved.
        let none = [libc::EINVAL, libc::EAGAIN, libc::ENOMEM, libc::EBUSY].map(|errno| -errno);
        assert!((3..=4).contains(&enlarged) || none.contains(&enlarged), "{enlarged}");
        if enlarged > 0 {
            assert!(large_bytes_at(first.next_multiple_of(LARGE)) >= 3 * LARGE);
        }
    }

    /// `AnonHugePages` of the mapping that begins there (proc_pid_smaps(5)).
    fn large_bytes_at(begin: usize) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("proc");
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&format!("{begin:x}-")));
        let line = lines.find_map(|line| line.strip_prefix("AnonHugePages:")).expect("such a mapping");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    #[test]
    fn too_little_for_a_large_page_stays_as_it_is() {
        let first = map(2 * LARGE).expect("room").next_multiple_of(LARGE);
        let short = [(first, first + LARGE - 1), (first + 1, first + LARGE), (first, first)];
        // SAFETY: less than a large page, so nothing is touched.
        let answers = short.map(|(first, end)| unsafe { belljar_enlarge(first, end) });
        assert_eq!(answers, [0; 3]);
    }
}
