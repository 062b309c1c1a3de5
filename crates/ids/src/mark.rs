//! Calls that code makes say in their ids which cell made them.
//!
//! Clients send such a call back with every later request, and some lose its `caller` on the way (wire.md §10.4, §19). The id they
//! keep. So the second half of it is the cell's, under a mask: who has both ids sees that they belong together, with no
//! memory of either and after any restart. It proves nothing, because clients know both: it stands for a `caller`, which they
//! may write as they like, too.

use crate::kinds::{ServerToolUseId, ToolUseId};
use crate::mint::{BASE58, IdSource, MINTED_SUFFIX_CHARS, VERSION};

/// Characters of a call's own in its id; as many follow that are its cell's.
const OWN_CHARS: usize = MINTED_SUFFIX_CHARS / 2;
const BASE: u8 = 58;
const _: () = assert!(BASE58.len() == BASE as usize);

/// What the ids of a cell and of the calls of its code have in common. Two cells have the same with a probability of 2^-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CellMark([u8; OWN_CHARS]);

impl ServerToolUseId {
    /// The mark of this cell; none where the id has not the form of those we mint.
    pub fn mark(&self) -> Option<CellMark> {
        let (_, mark) = halves(self.as_str(), Self::PREFIX)?;
        Some(CellMark(mark))
    }
}

impl ToolUseId {
    /// A new one for a call that this cell's code makes.
    ///
    /// # Panics
    /// As [`ToolUseId::mint`].
    pub fn mint_in(cell: &ServerToolUseId, source: &mut dyn IdSource) -> Self {
        let plain = Self::mint(source);
        let (Some(CellMark(mark)), Some((own, _))) = (cell.mark(), halves(plain.as_str(), Self::PREFIX)) else {
            return plain;
        };
        let masked = mark.iter().zip(masks(own)).map(|(digit, mask)| (digit + mask) % BASE);
        let suffix = own.into_iter().chain(masked).map(|digit| char::from(BASE58[usize::from(digit)]));
        let text: String = Self::PREFIX.chars().chain(VERSION.chars()).chain(suffix).collect();
        // Of the same characters as the plain one, so it cannot be refused.
        text.parse().unwrap_or(plain)
    }

    /// The mark of the cell whose code made the call, if code made it; any other, or none, if not.
    pub fn cell_mark(&self) -> Option<CellMark> {
        let (own, mut mark) = halves(self.as_str(), Self::PREFIX)?;
        for (digit, mask) in mark.iter_mut().zip(masks(own)) {
            *digit = (*digit + BASE - mask) % BASE;
        }
        Some(CellMark(mark))
    }
}

/// Without it, ids that people fill up with one character would belong together.
fn masks(own: [u8; OWN_CHARS]) -> impl Iterator<Item = u8> {
    own.into_iter().zip(0_u8..).map(|(digit, place)| (digit + place) % BASE)
}

/// The two halves of what stands behind `<prefix>01`, as numbers below [`BASE`].
fn halves(text: &str, prefix: &str) -> Option<([u8; OWN_CHARS], [u8; OWN_CHARS])> {
    let suffix = text.strip_prefix(prefix)?.strip_prefix(VERSION)?.as_bytes();
    let (first, second) = suffix.split_at_checked(OWN_CHARS)?;
    Some((digits(first)?, digits(second)?))
}

fn digits(text: &[u8]) -> Option<[u8; OWN_CHARS]> {
    let mut digits: [u8; OWN_CHARS] = text.try_into().ok()?;
    for digit in &mut digits {
        let place = BASE58.iter().position(|character| character == digit)?;
        *digit = u8::try_from(place).ok()?;
    }
    Some(digits)
}
