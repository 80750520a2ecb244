//! The parameters of a request, whether they came as a form or as a JSON object.

use std::borrow::Cow;

use serde_json::map::{Entry, Map};

use super::form;
use crate::json::{self, Scanner};
use crate::parse::ParseError;
use crate::peek::{Ambiguous, MAX_ID, Unreadable};

const TOO_MANY: Unreadable = Unreadable { reason: "the body has more than 1000 parameters" };

/// The parameters of a body.
pub(super) struct Parameters<'a> {
    list: Vec<(Cow<'a, [u8]>, Value<'a>)>,
    /// The body, if it is JSON.
    json: Option<&'a str>,
}

enum Value<'a> {
    Form(Cow<'a, [u8]>),
    Json(json::Value<'a>),
}

/// What a name stands for. The texts of a form are those of its values.
pub(super) struct Parameter<'p, 'a> {
    value: Option<&'p Value<'a>>,
    /// Whether the name comes again with another value.
    differs: bool,
}

impl<'a> Parameters<'a> {
    /// Reads a body: JSON if it begins with `{`, else a form. At most 1000 parameters.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Unreadable> {
        if body.trim_ascii_start().starts_with(b"{") { Self::read_json(body) } else { Self::read_form(body) }
    }

    fn read_form(body: &'a [u8]) -> Result<Self, Unreadable> {
        let parameters = form::parse(body).map_err(|form::TooMany| TOO_MANY)?;
        let list = parameters.into_iter().map(|(name, value)| (name, Value::Form(value))).collect();
        Ok(Self { list, json: None })
    }

    fn read_json(body: &'a [u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(body).map_err(|_| Unreadable { reason: "the body is not UTF-8" })?;
        let mut scanner = Scanner::new(text);
        let (mut list, mut first) = (Vec::new(), true);
        scanner.enter(b'{');
        while let Some(name) = scanner.key(&mut first)? {
            if list.len() == form::MAX_PARAMETERS {
                return Err(TOO_MANY);
            }
            let name = match name.lossy() {
                Cow::Borrowed(name) => Cow::Borrowed(name.as_bytes()),
                Cow::Owned(name) => Cow::Owned(name.into_bytes()),
            };
            list.push((name, Value::Json(scanner.value()?)));
        }
        if scanner.next().is_some() {
            return Err(Unreadable { reason: "the body goes on after the JSON object" });
        }
        Ok(Self { list, json: Some(text) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What a name stands for.
    pub(super) fn get(&self, name: &str) -> Parameter<'_, 'a> {
        let mut values = self.list.iter().filter(|(each, _)| **each == *name.as_bytes()).map(|(_, value)| value);
        let value = values.next();
        let differs = value.is_some_and(|first| values.any(|other| !first.equals(other)));
        Parameter { value, differs }
    }

    /// The whole as a JSON object: as it is, or the texts of the form, those of a repeated name as a list.
    pub(super) fn to_json(&self) -> Result<Cow<'a, str>, ParseError> {
        if let Some(json) = self.json {
            return Ok(Cow::Borrowed(json));
        }
        let mut object = Map::new();
        for (name, value) in &self.list {
            let Value::Form(value) = value else { continue };
            let text = serde_json::Value::String(String::from_utf8_lossy(value).into_owned());
            match object.entry(String::from_utf8_lossy(name)) {
                Entry::Vacant(entry) => drop(entry.insert(text)),
                Entry::Occupied(mut entry) => match entry.get_mut() {
                    serde_json::Value::Array(list) => list.push(text),
                    first => *first = serde_json::Value::Array(vec![first.take(), text]),
                },
            }
        }
        let json = serde_json::to_string(&object);
        json.map(Cow::Owned).map_err(|_| ParseError { reason: "the form cannot be written as JSON" })
    }
}

impl<'a> Value<'a> {
    /// The text, if it is one and readable in one way.
    fn strict(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Form(Cow::Borrowed(bytes)) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Self::Form(Cow::Owned(bytes)) => std::str::from_utf8(bytes).ok().map(|text| Cow::Owned(text.to_owned())),
            Self::Json(value) => value.strict(),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Form(one), Self::Form(other)) => one == other,
            _ => self.strict().is_some_and(|text| Some(text) == other.strict()),
        }
    }
}

impl<'a> Parameter<'_, 'a> {
    /// Whether it is there, with whatever value.
    pub(super) fn is_there(&self) -> bool {
        !matches!(self.value, None | Some(Value::Json(json::Value::Null)))
    }

    /// Whether the name comes again with another value.
    pub(super) fn differs(&self) -> bool {
        self.differs
    }

    /// Part of an identity: absent (also when empty), or a text of at most 512 bytes with one reading.
    pub(super) fn identifying(&self) -> Result<Option<Cow<'a, str>>, Ambiguous> {
        if self.differs {
            return Err(Ambiguous);
        }
        let Some(value) = self.value.filter(|_| self.is_there()) else { return Ok(None) };
        match value.strict() {
            Some(text) if text.is_empty() => Ok(None),
            Some(text) if text.len() <= MAX_ID => Ok(Some(text)),
            _ => Err(Ambiguous),
        }
    }

    /// A text that helps if it is readable.
    pub(super) fn context(&self) -> Option<Cow<'a, str>> {
        self.identifying().ok().flatten()
    }

    /// A text of any length, also an empty one, with U+FFFD for what is no text; `None` if it has two readings.
    pub(super) fn text(&self) -> Option<String> {
        if self.differs {
            return None;
        }
        match self.value? {
            Value::Form(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::Json(json::Value::Text(text)) => Some(text.lossy().into_owned()),
            Value::Json(value) => value.lossy().map(Cow::into_owned),
        }
    }

    /// As [`Parameter::text`], without the empty one.
    pub(super) fn filled(&self) -> Option<String> {
        self.text().filter(|text| !text.is_empty())
    }
}
