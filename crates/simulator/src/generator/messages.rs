//! The elements of `messages[]`: text, and the types a receiver may not know yet. Only the shapes; who
//! writes and when is decided elsewhere. Left out on purpose: `system`, which comes without contacts, and
//! groups.

use super::{
    dice::Dice,
    json::Json,
    people::Person,
    phrases::Phrases,
    wamid::{Direction, wamid},
};

/// One message to be written.
pub(super) struct Inbound {
    pub(super) id: String,
    pub(super) from: Person,
    pub(super) text: bool,
    serial: u64,
}

impl Inbound {
    pub(super) fn new(from: Person, serial: u64, text: bool) -> Self {
        Self { id: wamid(Direction::Inbound, from.address(), serial), from, text, serial }
    }

    /// The element of `messages[]` for a message to `business`, the number's digits.
    pub(super) fn write(&self, json: &mut Json, dice: &mut Dice, phrases: &Phrases, business: &str, now: i64) {
        json.raw("{");
        if let Some(phone) = &self.from.phone {
            json.raw(r#""from":""#).raw(phone).raw(r#"","#);
        }
        json.raw(r#""from_user_id":""#).raw(&self.from.user_id);
        json.raw(r#"","id":""#).text(&self.id).raw(r#"","timestamp":""#).number(now).raw("\"");
        if self.text {
            self.context(json, dice, business);
            json.raw(r#","type":"text","text":{"body":""#);
            phrases.write(json, dice);
            json.raw("\"}");
        } else {
            self.other(json, dice, phrases);
        }
        json.raw("}");
    }

    /// A quote, a forward, an ad, or mostly nothing.
    fn context(&self, json: &mut Json, dice: &mut Dice, business: &str) {
        match dice.below(64) {
            0..8 => {
                json.raw(r#","context":{"from":""#).text(business).raw(r#"","id":""#);
                json.text(&self.answered()).raw("\"}");
            }
            8..10 => {
                json.raw(r#","context":{"forwarded":true}"#);
            }
            10 => {
                json.raw(r#","referral":{"source_url":"https:\/\/fb.me\/3cr4Wqqkv","source_id":""#);
                json.number(self.serial).raw(r#"","source_type":"ad","headline":"50 % off","body":"caf\u00e9","#);
                json.raw(r#""media_type":"image","image_url":"https:\/\/scontent.example.com\/a.jpg","#);
                json.raw(r#""ctwa_clid":"ARAkLkA8rmlFeiCktEJQ-QTwRiyYHAFDLMNDBH0CD3qpjd0HR4irJ6LEkR7JwFF4"}"#);
            }
            _ => {}
        }
    }

    /// Id of a message of the business that this one answers; nobody has seen it.
    fn answered(&self) -> String {
        wamid(Direction::Outbound, self.from.address(), !self.serial)
    }

    fn other(&self, json: &mut Json, dice: &mut Dice, phrases: &Phrases) {
        match dice.below(8) {
            0 => {
                json.raw(r#","type":"image","image":{"caption":""#);
                phrases.write(json, dice);
                json.raw(r#"","mime_type":"image\/jpeg","#);
                self.media(json);
            }
            1 => {
                json.raw(r#","type":"audio","audio":{"mime_type":"audio\/ogg; codecs=opus","voice":true,"#);
                self.media(json);
            }
            2 => {
                json.raw(r#","type":"document","document":{"filename":"..\/Rechnung \u2116 1.pdf","#);
                json.raw(r#""mime_type":"application\/pdf","#);
                self.media(json);
            }
            3 => {
                json.raw(r#","type":"location","location":{"latitude":38.722252,"longitude":-9.139337,"#);
                json.raw(r#""name":"Pra\u00e7a do Com\u00e9rcio","address":"Lisboa"}"#);
            }
            4 => {
                json.raw(
                    r#","type":"contacts","contacts":[{"name":{"formatted_name":"Jane Doe","first_name":"Jane"},"#,
                );
                json.raw(r#""phones":[{"phone":"+1 555 0100","type":"HOME"}]}]"#);
            }
            5 => {
                json.raw(r#","context":{"id":""#).text(&self.answered());
                json.raw(r#""},"type":"interactive","interactive":{"type":"button_reply","#);
                json.raw(r#""button_reply":{"id":"yes\/1","title":"Yes \u2713"}}"#);
            }
            6 => {
                json.raw(r#","type":"reaction","reaction":{"message_id":""#).text(&self.answered()).raw("\"");
                // Without the key the reaction was taken back.
                json.raw(if dice.one_in(4) { "}" } else { r#","emoji":"\ud83d\udc4d\ud83c\udffd"}"# });
            }
            _ => {
                json.raw(
                    r#","errors":[{"code":131051,"title":"Message type unknown","message":"Message type unknown","#,
                );
                json.raw(r#""error_data":{"details":"Message type is currently not supported."}}],"#);
                json.raw(r#""type":"unsupported","unsupported":{"type":"poll_creation"}"#);
            }
        }
    }

    /// What all media share; ends the object. The digest is that of nothing.
    fn media(&self, json: &mut Json) {
        json.raw(r#""sha256":"47DEQpj8HBSa+\/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","id":""#);
        json.number(self.serial >> 14).raw("\"}");
    }
}
