//! Which call a piece belongs to. Servers number calls, name them, do both, or neither; some give every call the number 0.

use super::arguments::Arguments;

/// A piece of a call as it came. Empty texts are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CallPiece {
    pub(super) index: Option<u64>,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) arguments: Option<String>,
}

/// A call so far.
#[derive(Debug, Default)]
pub(super) struct Call {
    index: Option<u64>,
    id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) arguments: Arguments,
}

impl Call {
    /// Takes what a piece says; what is known already stays.
    pub(super) fn learn(&mut self, piece: CallPiece) {
        let CallPiece { index, id, name, arguments } = piece;
        self.index = self.index.or(index);
        self.id = self.id.take().or(id);
        self.name = self.name.take().or(name);
        self.arguments.push(&arguments.unwrap_or_default());
    }
}

/// The call that a piece goes on with; none when it begins another.
pub(super) fn continued(calls: &[Call], piece: &CallPiece) -> Option<usize> {
    let numbered = |call: &Call| piece.index.is_none() || call.index == piece.index;
    let at = match &piece.id {
        Some(id) => {
            let named = |call: &Call| call.id.as_ref() == Some(id) && numbered(call);
            // The id of a call that has begun without one may come late.
            let unnamed = |call: &Call| call.id.is_none() && piece.index.is_some() && call.index == piece.index;
            calls.iter().rposition(named).or_else(|| calls.iter().rposition(unnamed))?
        }
        None => calls.iter().rposition(numbered)?,
    };
    let begins_another = piece.name.is_some()
        && calls[at].name.is_some()
        && (calls[at].arguments.is_whole() && piece.arguments.is_some()
            || piece.index.is_none() && piece.id.is_none() && calls[at].name != piece.name);
    (!begins_another).then_some(at)
}
