//! The words that may stand in the labels of the metric of unsupported updates.
//!
//! A label that took its value from a webhook could hold anything, and any number of different things. So only words of
//! Meta's documentation pass; everything else is `other`. The event itself always carries the original word.

/// Webhook fields. Source: platform reference, sections 2 and 5.
const FIELDS: [&str; 35] = [
    "account_alerts",
    "account_review_update",
    "account_settings_update",
    "account_update",
    "automatic_events",
    "business_capability_update",
    "business_username_update",
    "business_username_updates",
    "calls",
    "consumer_profile",
    "flows",
    "group_lifecycle_update",
    "group_participants_update",
    "group_settings_update",
    "group_status_update",
    "history",
    "message_echoes",
    "message_template_components_update",
    "message_template_quality_update",
    "message_template_status_update",
    "messages",
    "messaging_handovers",
    "partner_solutions",
    "payment_configuration_update",
    "phone_number_name_update",
    "phone_number_quality_update",
    "security",
    "smb_app_state_sync",
    "smb_message_echoes",
    "standby",
    "template_category_update",
    "template_correct_category_detection",
    "tracking_events",
    "user_id_update",
    "user_preferences",
];

/// Types of messages and statuses. Source: platform reference, section 2.4 and 3.
const TYPES: [&str; 26] = [
    "audio",
    "button",
    "call",
    "contacts",
    "document",
    "edit",
    "ephemeral",
    "hsm",
    "image",
    "interactive",
    "location",
    "media_placeholder",
    "message",
    "order",
    "payment",
    "reaction",
    "request_welcome",
    "revoke",
    "sticker",
    "system",
    "template",
    "text",
    "unknown",
    "unsupported",
    "video",
    "voice",
];

/// The field, if it is a documented one.
pub(crate) fn field(word: Option<&str>) -> &'static str {
    documented(&FIELDS, word)
}

/// The type, if it is a documented one.
pub(crate) fn kind(word: Option<&str>) -> &'static str {
    documented(&TYPES, word)
}

fn documented(words: &[&'static str], word: Option<&str>) -> &'static str {
    let Some(word) = word else { return "none" };
    words.binary_search(&word).map_or("other", |index| words[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documented_words_become_labels() {
        assert!(FIELDS.is_sorted() && TYPES.is_sorted(), "they are searched by halves");
        assert_eq!([field(Some("history")), field(Some("+4915112345678")), field(None)], ["history", "other", "none"]);
        assert_eq!([kind(Some("sticker")), kind(Some("Sticker"))], ["sticker", "other"]);
    }
}
