//! The webhooks a repeat may repeat: a short memory of genuine ones, bounded in number and in bytes. It
//! does not decide when to repeat.

use std::collections::VecDeque;

use crate::Webhook;

use super::dice::Dice;

const WEBHOOKS: usize = 512;
const BYTES: usize = 16 << 20;

pub(super) struct Earlier {
    webhooks: VecDeque<Webhook>,
    bytes: usize,
    wanted: bool,
}

impl Earlier {
    /// Remembers nothing unless `wanted`.
    pub(super) fn new(wanted: bool) -> Self {
        Self { webhooks: VecDeque::new(), bytes: 0, wanted }
    }

    pub(super) fn keep(&mut self, webhook: &Webhook) {
        if !self.wanted {
            return;
        }
        self.bytes += webhook.body.len();
        self.webhooks.push_back(webhook.clone());
        while self.webhooks.len() > WEBHOOKS || (self.bytes > BYTES && self.webhooks.len() > 1) {
            if let Some(oldest) = self.webhooks.pop_front() {
                self.bytes -= oldest.body.len();
            }
        }
    }

    /// Any of the remembered ones, marked as a repeat; none if there is none yet.
    pub(super) fn pick(&self, dice: &mut Dice) -> Option<Webhook> {
        let webhook = self.webhooks.get(dice.index(self.webhooks.len()))?;
        Some(Webhook { repeat: true, ..webhook.clone() })
    }
}
