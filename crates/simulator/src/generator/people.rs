//! The people who write: phone, business-scoped user id, name, all computed from seed and index, so that
//! a million of them take no memory. One portfolio is assumed: a person has the same user id at every
//! number. The phone numbers are invented and not those of real subscribers on purpose.

use super::{dice::scatter, json::Json, phrases};

/// More people than the nine digits after the country code can tell apart.
pub(super) const LIMIT: u32 = 1_000_000_000;

/// Country code of the user id and calling code.
const COUNTRIES: [(&str, &str); 12] = [
    ("PT", "351"),
    ("BR", "55"),
    ("IN", "91"),
    ("DE", "49"),
    ("EG", "20"),
    ("NG", "234"),
    ("ID", "62"),
    ("MX", "52"),
    ("IL", "972"),
    ("TH", "66"),
    ("JP", "81"),
    ("US", "1"),
];

#[derive(Clone)]
pub(super) struct Person {
    /// Digits; none if the person withholds the number.
    pub(super) phone: Option<String>,
    /// The business-scoped user id.
    pub(super) user_id: String,
    index: u32,
    name: usize,
}

/// The people of one seed.
pub(super) struct People {
    key: u64,
    count: u32,
}

impl People {
    pub(super) fn new(seed: u64, count: u32) -> Self {
        Self { key: scatter(seed ^ 0x7065_6f70_6c65), count: count.clamp(1, LIMIT) }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn person(&self, index: u32) -> Person {
        let lot = scatter(self.key.wrapping_add(u64::from(index)));
        let (country, calling) = COUNTRIES[(lot % 12) as usize];
        // One to one, since the factor shares no divisor with the modulus.
        let subscriber = (u64::from(index) * 387_420_489 + self.key % 1_000_000_000) % u64::from(LIMIT);
        let withheld = (lot >> 8).is_multiple_of(8);
        Person {
            phone: (!withheld).then(|| format!("{calling}{subscriber:09}")),
            user_id: format!("{country}.7{:04}{subscriber:09}", (lot >> 16) % 10_000),
            index,
            name: (lot >> 32) as usize % phrases::NAMES.len(),
        }
    }
}

impl Person {
    /// Phone or, for want of it, user id: what a message id is made from.
    pub(super) fn address(&self) -> &str {
        self.phone.as_deref().unwrap_or(&self.user_id)
    }

    /// The element of `contacts[]`. Statuses carry no name, and the username only from `delivered` on,
    /// hence the two switches.
    pub(super) fn contact(&self, json: &mut Json, named: bool, username: bool) {
        json.raw("{");
        let username = username && self.phone.is_none();
        if named || username {
            json.raw(r#""profile":{"#);
            if named {
                json.raw(r#""name":""#).text(phrases::NAMES[self.name]).raw("\"");
            }
            if username {
                json.raw(if named { r#","username":"user."# } else { r#""username":"user."# });
                json.number(self.index).raw("\"");
            }
            json.raw("},");
        }
        if let Some(phone) = &self.phone {
            json.raw(r#""wa_id":""#).raw(phone).raw(r#"","#);
        }
        json.raw(r#""user_id":""#).raw(&self.user_id).raw("\"}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::People;

    #[test]
    fn are_distinct_and_some_withhold_their_number() {
        let people = People::new(3, 20_000);
        let everyone: Vec<_> = (0..20_000).map(|index| people.person(index)).collect();
        let ids: HashSet<_> = everyone.iter().map(|person| person.user_id.as_str()).collect();
        assert_eq!(ids.len(), 20_000);
        let phones: HashSet<_> = everyone.iter().filter_map(|person| person.phone.as_deref()).collect();
        assert!((17_000..18_000).contains(&phones.len()), "{}", phones.len());
    }
}
