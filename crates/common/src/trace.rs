//! W3C trace context: what joins the spans of a request, its envelope and the worker that handles it.
//!
//! Only the `traceparent` header, version 00 (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in a distributed trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "&str", into = "String")]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace_id: u128,
    /// The parent span, never zero.
    pub span_id: u64,
    /// Trace flags; bit 0 = sampled.
    pub flags: u8,
}

impl TraceContext {
    /// Starts a new trace.
    pub fn fresh() -> Self {
        Self { trace_id: rand::random::<u128>() | 1, span_id: rand::random::<u64>() | 1, flags: 0 }
    }

    /// A child position of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: rand::random::<u64>() | 1, ..self }
    }

    /// Continues the caller's trace if its header can be read, else starts one.
    pub fn continue_or_fresh(header: Option<&str>) -> Self {
        header.and_then(|text| text.parse().ok()).map_or_else(Self::fresh, Self::child)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The text is not a `traceparent` of version 00.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a traceparent header of version 00")]
pub struct TraceContextError;

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags] = parts[..] else { return Err(TraceContextError) };
        if version != "00" || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
            return Err(TraceContextError);
        }
        if ![trace, span, flags].into_iter().all(lower_hex) {
            return Err(TraceContextError);
        }
        let parsed = Self {
            trace_id: u128::from_str_radix(trace, 16).map_err(|_| TraceContextError)?,
            span_id: u64::from_str_radix(span, 16).map_err(|_| TraceContextError)?,
            flags: u8::from_str_radix(flags, 16).map_err(|_| TraceContextError)?,
        };
        if parsed.trace_id == 0 || parsed.span_id == 0 { Err(TraceContextError) } else { Ok(parsed) }
    }
}

impl From<TraceContext> for String {
    fn from(context: TraceContext) -> Self {
        context.to_string()
    }
}

impl TryFrom<&str> for TraceContext {
    type Error = TraceContextError;
    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_nothing_else() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text.parse::<TraceContext>().unwrap().to_string(), text);
        for bad in [
            "",
            "00-0-0-0",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(TraceContextError), "{bad}");
        }
    }
}
