//! The cut: a webhook body that holds only some of its updates.
//!
//! One POST becomes one envelope per tenant, number and disposition, so each must be a body of its own that the same
//! reader understands. Nothing is parsed and nothing is checked here: the peek has done both.

use std::borrow::Cow;

use common::update::Provider;

use crate::meta;
use crate::peek::Peek;

/// Rebuilds the body with only the updates whose flag in `keep` is true, in their order.
///
/// `peek` must be the peek of this body. A missing flag counts as false. If all are chosen, the result is the body
/// itself; otherwise peeking into it finds the chosen updates and no others. Of a body that is one update as a whole
/// (Twilio, generic) nothing is left when that one is not chosen.
pub fn cut<'a>(body: &'a [u8], peek: &Peek<'_>, keep: &[bool]) -> Cow<'a, [u8]> {
    match peek.provider {
        Provider::Meta => meta::cut::cut(body, peek, keep),
        Provider::Twilio | Provider::Generic => {
            let all = (0..peek.updates.len()).all(|update| keep.get(update).copied().unwrap_or(false));
            Cow::Borrowed(if all { body } else { &[] })
        }
    }
}
