//! Ids of calls, for upstreams that give none or none to rely on.

use belljar_ids::{RequestId, SeededIds, ToolUseId};

/// An id that no other call has: request ids are unique, and a request has one call of that number in one sampling.
pub(crate) fn tool_use_id(request_id: &RequestId, sampling: usize, number: usize) -> ToolUseId {
    // FNV-1a, 64 bits.
    let seed = format!("{request_id}/{sampling}/{number}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ToolUseId::mint(&mut SeededIds::new(seed))
}
