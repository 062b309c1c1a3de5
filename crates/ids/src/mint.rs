//! Making new identifiers from somebody else's randomness.

/// Where the randomness of new identifiers comes from.
///
/// The server passes the operating system's; tests pass [`SeededIds`].
pub trait IdSource {
    /// Fills `bytes` with independent, uniformly distributed bytes.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// A repeatable source for tests: the same seed gives the same identifiers.
///
/// The generator is `SplitMix64`, whose next output is predictable from one seen. Never use it where an
/// identifier must not be guessed.
#[derive(Debug, Clone)]
pub struct SeededIds {
    state: u64,
}

impl SeededIds {
    /// A source that depends on `seed` alone.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    // SplitMix64 as published by Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators".
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl IdSource for SeededIds {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// How many base 58 characters a minted identifier has behind `<prefix>01` (wire.md §23): 128.9 bits.
pub const MINTED_SUFFIX_CHARS: usize = 22;

/// The version digits the hosted service puts in front of the random part (wire.md §23).
pub(crate) const VERSION: &str = "01";

/// The Bitcoin alphabet: no `0`, `O`, `I` or `l`.
pub(crate) const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// The largest multiple of 58 a byte can count to; bytes from here on would favour the first characters.
const BYTES_ACCEPTED: u8 = 232;

/// A uniform source fails to give 22 usable bytes in this many rounds of 32 with probability below 2^-1000.
const ROUNDS_MAX: usize = 64;

/// `<prefix>01` and [`MINTED_SUFFIX_CHARS`] uniformly distributed base 58 characters.
///
/// # Panics
/// When the source is broken, that is, keeps giving bytes of 232 and above: no identifier is better than a
/// guessable one.
pub(crate) fn minted(prefix: &str, source: &mut dyn IdSource) -> String {
    let length = prefix.len() + VERSION.len() + MINTED_SUFFIX_CHARS;
    let mut text = String::with_capacity(length);
    text.push_str(prefix);
    text.push_str(VERSION);
    for _ in 0..ROUNDS_MAX {
        let mut bytes = [0_u8; 32];
        source.fill(&mut bytes);
        for byte in bytes.into_iter().filter(|byte| *byte < BYTES_ACCEPTED) {
            text.push(char::from(BASE58[usize::from(byte) % BASE58.len()]));
            if text.len() == length {
                return text;
            }
        }
    }
    panic!("the source of identifiers is not random: {ROUNDS_MAX} rounds without enough usable bytes");
}
