//! The iterator of webhooks: decides for each POST whether it is new, a repeat or a forgery, and signs
//! it. What stands in a body is the composer's business.

mod compose;
mod dice;
mod earlier;
mod fields;
mod json;
mod messages;
mod people;
mod phrases;
mod statuses;
mod wamid;

use crate::{Traffic, Webhook, signature::Signer};
use compose::Composer;
use dice::Dice;
use earlier::Earlier;

/// Makes the webhooks of a run, one at a time; ends after [`Traffic::count`]. A body with one message
/// costs a few microseconds, signature included.
///
/// Ids are unique over the run, except in repeats; for statuses the pair of id and status is.
pub struct Generator {
    composer: Composer,
    dice: Dice,
    genuine: Signer,
    wrong: Signer,
    earlier: Earlier,
    left: u64,
    forged_below: f64,
    repeat_below: f64,
}

impl Generator {
    /// A run of `traffic` signed with `app_secret`.
    pub fn new(traffic: Traffic, app_secret: &str) -> Self {
        let forged_below = traffic.forged;
        let repeat_below = traffic.forged + traffic.duplicates;
        Self {
            dice: Dice::new(traffic.seed ^ 0x7265_7065_6174),
            genuine: Signer::new(app_secret),
            wrong: Signer::new(&format!("not {app_secret}")),
            earlier: Earlier::new(traffic.duplicates > 0.0),
            left: traffic.count,
            forged_below,
            repeat_below,
            composer: Composer::new(traffic),
        }
    }
}

impl Iterator for Generator {
    type Item = Webhook;

    fn next(&mut self) -> Option<Webhook> {
        self.left = self.left.checked_sub(1)?;
        let lot = self.dice.unit();
        let forged = lot < self.forged_below;
        if !forged
            && lot < self.repeat_below
            && let Some(webhook) = self.earlier.pick(&mut self.dice)
        {
            return Some(webhook);
        }
        let (body, updates) = self.composer.compose();
        let signer = if forged { &self.wrong } else { &self.genuine };
        let webhook = Webhook { signature: signer.sign(&body), body, updates, forged, repeat: false };
        if !forged {
            self.earlier.keep(&webhook);
        }
        Some(webhook)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match usize::try_from(self.left) {
            Ok(left) => (left, Some(left)),
            Err(_) => (usize::MAX, None),
        }
    }
}

#[cfg(test)]
mod tests;
