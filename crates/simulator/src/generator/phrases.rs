//! What people write and what they are called, in several scripts and with everything that breaks
//! careless programs: quotes, newlines, U+0000, emoji of several code points, right-to-left text. Texts
//! are escaped once at the start and copied afterwards.

use super::{dice::Dice, json::Json};

pub(super) const NAMES: [&str; 16] = [
    "Ada",
    "João Conceição",
    "Мария",
    "नीला",
    "李小龙",
    "さくら",
    "محمد",
    "שרה",
    "Ọládélé",
    "Jürgen \"Jo\" Müller",
    "O'Neil / Söhne",
    "🌻 Fleur 🌻",
    "สมชาย",
    "Łukasz",
    "김민준",
    "Zoë\u{200d}",
];

const TEXTS: [&str; 28] = [
    "Hello",
    "ok",
    "Is the blue one still available?",
    "olá, bom dia!",
    "Quanto custa o envio para Setúbal?",
    "¿A qué hora abren mañana?",
    "Grüße aus Köln, ich hätte gern eine Größe größer",
    "Когда придёт мой заказ №",
    "नमस्ते, मेरा ऑर्डर कहाँ है?",
    "请问什么时候发货？",
    "ありがとうございます🙇",
    "언제 도착하나요?",
    "مرحبا، هل يمكنني تغيير العنوان؟",
    "שלום, מה שלומך?",
    "ขอบคุณครับ",
    "👍🏽",
    "👨‍👩‍👧‍👦 🇧🇷 ❤️‍🔥",
    "😀",
    "She said \"yes\" and then 'no'",
    "C:\\orders\\new\tcolumn",
    "first line\nsecond line\r\nthird line\n",
    "https://shop.example.com/a/b?c=d&e=f#g",
    "mail me: someone@example.com, 100 % <b>sure</b> & {\"not\":\"json\"}",
    "a\u{0}b",
    "\u{200f}\u{202e}reversed\u{202c}",
    "é is not e\u{301}",
    "\u{feff}\u{fffd} \u{1f}",
    "+49 151 555 000 11",
];

/// Phrases in the longest text, so many that it stays within Meta's 4096 characters.
const LONGEST: u32 = 55;

/// The texts, escaped.
pub(super) struct Phrases(Vec<String>);

impl Phrases {
    pub(super) fn new() -> Self {
        Self(TEXTS.iter().map(|text| escape(text)).collect())
    }

    /// Writes a text of one to three phrases, one in 64 times a long one of up to 4096 characters.
    pub(super) fn write(&self, json: &mut Json, dice: &mut Dice) {
        let phrases = if dice.one_in(64) { 4 + dice.below(LONGEST - 3) } else { 1 + dice.below(3) };
        for number in 0..phrases {
            if number > 0 {
                json.raw(" ");
            }
            json.raw(&self.0[dice.index(self.0.len())]);
        }
    }
}

fn escape(text: &str) -> String {
    let mut json = Json::with_capacity(text.len() * 2);
    json.text(text);
    // Escaped text is ASCII.
    json.into_bytes().into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, TEXTS};

    #[test]
    fn the_longest_text_stays_within_metas_limit() {
        let longest = TEXTS.iter().map(|text| text.chars().count()).max().unwrap();
        assert!(LONGEST as usize * (longest + 1) <= 4096, "{longest}");
    }
}
