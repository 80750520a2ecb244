//! The name of one update, as a receiver knows it, and its form as a line of text. It names; it holds
//! no content.

use std::{fmt, str::FromStr};

/// What an update is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpdateKind {
    /// An inbound text message.
    Message,
    /// A status of an outbound message.
    Status,
    /// Any other message type, or a change of an account-level field.
    Other,
}

/// One thing inside a webhook. Its text form is one line, `kind`, number, id and status separated by
/// tabs, kind being `message`, `status` or `other`, and absent parts empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpdateRef {
    /// What it is.
    pub kind: UpdateKind,
    /// Meta's id of the business number; empty for account-level fields, which have none.
    pub phone_number_id: String,
    /// The WhatsApp message id (for a status that of the outbound message), unescaped. For
    /// account-level fields the digits of the one id in the change's value that is unique:
    /// `message_template_id`, or `waba_info.ad_account_linked`.
    pub id: String,
    /// `sent`, `delivered`, `read`, `played` or `failed`; only for statuses.
    pub status: Option<String>,
}

/// The line is not an [`UpdateRef`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUpdateRefError {
    /// The line does not consist of four parts.
    #[error("expected four parts separated by tabs")]
    Parts,
    /// The first part is no kind.
    #[error("unknown kind {0:?}")]
    Kind(String),
}

impl fmt::Display for UpdateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "message",
            Self::Status => "status",
            Self::Other => "other",
        })
    }
}

impl FromStr for UpdateKind {
    type Err = ParseUpdateRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "message" => Ok(Self::Message),
            "status" => Ok(Self::Status),
            "other" => Ok(Self::Other),
            _ => Err(ParseUpdateRefError::Kind(text.to_owned())),
        }
    }
}

impl fmt::Display for UpdateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.as_deref().unwrap_or_default();
        write!(f, "{}\t{}\t{}\t{status}", self.kind, self.phone_number_id, self.id)
    }
}

impl FromStr for UpdateRef {
    type Err = ParseUpdateRefError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let mut parts = line.split('\t');
        let (Some(kind), Some(number), Some(id), Some(status), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseUpdateRefError::Parts);
        };
        Ok(Self {
            kind: kind.parse()?,
            phone_number_id: number.to_owned(),
            id: id.to_owned(),
            status: (!status.is_empty()).then(|| status.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_text_form() {
        for (kind, status) in
            [(UpdateKind::Message, None), (UpdateKind::Status, Some("read".to_owned())), (UpdateKind::Other, None)]
        {
            let update = UpdateRef { kind, phone_number_id: "777".into(), id: "wamid.a+/=".into(), status };
            assert_eq!(update.to_string().parse(), Ok(update));
        }
    }

    #[test]
    fn is_one_line_with_tabs() {
        let update = UpdateRef {
            kind: UpdateKind::Status,
            phone_number_id: "777".into(),
            id: "wamid.A".into(),
            status: Some("sent".into()),
        };
        assert_eq!(update.to_string(), "status\t777\twamid.A\tsent");
    }

    #[test]
    fn refuses_other_lines() {
        for line in ["", "message\t1\t2", "message\t1\t2\t\t"] {
            assert_eq!(line.parse::<UpdateRef>(), Err(ParseUpdateRefError::Parts));
        }
        assert_eq!("media\t1\t2\t".parse::<UpdateRef>(), Err(ParseUpdateRefError::Kind("media".into())));
    }
}
