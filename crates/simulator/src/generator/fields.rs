//! Changes of account-level fields: no number, no message, an entry with a time. Of the many fields there
//! are, only two whose value holds an id that is unique, so that a receiver's copy can be told apart.

use super::{dice::Dice, json::Json};

/// Writes an entry of the account `waba_id` whose one change carries the unique number `id`.
pub(super) fn write(json: &mut Json, dice: &mut Dice, waba_id: &str, id: u64, now: i64) {
    json.raw(r#"{"id":""#).text(waba_id).raw(r#"","time":"#).number(now).raw(r#","changes":[{"value":{"#);
    if dice.one_in(2) {
        json.raw(r#""event":"AD_ACCOUNT_LINKED","waba_info":{"waba_id":""#).text(waba_id);
        json.raw(r#"","ad_account_linked":""#).number(id);
        json.raw(r#"","owner_business_id":"200000000000001"}},"field":"account_update"}]}"#);
    } else {
        let (event, reason) = *dice.pick(&[("APPROVED", "NONE"), ("REJECTED", "INVALID_FORMAT"), ("PAUSED", "NONE")]);
        json.raw(r#""event":""#).raw(event).raw(r#"","message_template_id":"#).number(id);
        json.raw(r#","message_template_name":"order_update","message_template_language":"pt-BR","reason":""#);
        json.raw(reason).raw(r#"","message_template_category":"UTILITY"},"#);
        json.raw(r#""field":"message_template_status_update"}]}"#);
    }
}
