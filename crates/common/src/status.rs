//! The life cycle of an outbound message, which only moves forward.
//!
//! Statuses arrive repeated, late and out of order; every one is kept with its own time, and the state of the message
//! is the furthest that was ever reported. Platform reference: Meta, "messages webhook reference: status".

use serde::{Deserialize, Serialize};

/// The state of an outbound message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Stored by us, not yet sent.
    Queued,
    /// The provider took it.
    Accepted,
    /// It left the provider's servers (one tick).
    Sent,
    /// It is on the device (two ticks).
    Delivered,
    /// It was shown in the open chat (blue ticks).
    Read,
    /// A voice message was played.
    Played,
    /// It was not delivered; final.
    Failed,
}

impl DeliveryState {
    /// Reads a status as Meta spells it; `None` for one that is not part of the life cycle.
    pub fn from_meta(status: &str) -> Option<Self> {
        Some(match status {
            "sent" => Self::Sent,
            "delivered" => Self::Delivered,
            "read" => Self::Read,
            "played" => Self::Played,
            "failed" => Self::Failed,
            _ => return None,
        })
    }

    /// The name stored in rows and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Played => "played",
            Self::Failed => "failed",
        }
    }

    /// The order of the states as stored: a higher rank replaces a lower one.
    ///
    /// `failed` ranks between `sent` and `delivered`: it ends a message that was at most sent, and a message that
    /// reached the device is not undone by it. Once failed, only `delivered` and later would contradict it; see
    /// [`DeliveryState::after`].
    pub const fn rank(self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Accepted => 1,
            Self::Sent => 2,
            Self::Failed => 3,
            Self::Delivered => 4,
            Self::Read => 5,
            Self::Played => 6,
        }
    }

    /// The state after `reported` arrives while the message is in `self`. Never goes back; `failed` is terminal.
    #[must_use]
    pub fn after(self, reported: Self) -> Self {
        if self == Self::Failed || reported.rank() <= self.rank() { self } else { reported }
    }
}

#[cfg(test)]
mod tests {
    use super::DeliveryState::{self, Accepted, Delivered, Failed, Played, Queued, Read, Sent};

    const ALL: [DeliveryState; 7] = [Queued, Accepted, Sent, Delivered, Read, Played, Failed];

    #[test]
    fn no_report_ever_moves_a_message_back() {
        for before in ALL {
            for reported in ALL {
                assert!(before.after(reported).rank() >= before.rank());
            }
        }
    }

    #[test]
    fn a_late_sent_does_not_undo_read() {
        assert_eq!(Read.after(Sent), Read);
        assert_eq!(Sent.after(Read), Read);
    }

    #[test]
    fn failed_ends_a_message_that_was_at_most_sent() {
        assert_eq!(Sent.after(Failed), Failed);
        assert_eq!(Delivered.after(Failed), Delivered);
        assert_eq!(Failed.after(Delivered), Failed);
    }
}
