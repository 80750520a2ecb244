//! How long the gateway's and the normalizer's work on a webhook takes: nanoseconds per operation.
//!
//! `cargo bench -p providers`. Prints a table; compares nothing. Allocations are not counted: a counting allocator would
//! need unsafe code.
#![expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement reads the clock and prints")]

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use common::Timestamp;
use providers::meta::cut::cut;
use providers::meta::parse::parse;
use providers::meta::peek::peek;
use providers::meta::signature::signed_by;
use providers::{generic, twilio};
use ring::hmac;

/// A body with `count` text messages of one number, each with a text of `length` characters.
fn body(count: usize, length: usize) -> Vec<u8> {
    let (mut contacts, mut messages) = (String::new(), String::new());
    for index in 0..count {
        let comma = if index == 0 { "" } else { "," };
        let user = 351_910_000_000 + index;
        let text = "ol\\u00e1 Welt\\/ ".repeat(length / 16 + 1);
        let text = &text[..length / 16 * 16];
        let _ = write!(contacts, r#"{comma}{{"profile":{{"name":"Ada"}},"wa_id":"{user}","user_id":"PT.{user}"}}"#);
        let _ = write!(
            messages,
            r#"{comma}{{"from":"{user}","from_user_id":"PT.{user}","id":"wamid.HBgMMzUxOTEwMDAwMDAxFQIAEhgUM0E{index:08}","timestamp":"1795000000","type":"text","text":{{"body":"{text}"}}}}"#
        );
    }
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"300111222333444","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"4915155500011","phone_number_id":"777000111222333"}},"contacts":[{contacts}],"messages":[{messages}]}},"field":"messages"}}]}}]}}"#
    )
    .into_bytes()
}

/// The median over 15 rounds of the time of one call.
fn measure(name: &str, bytes: usize, mut call: impl FnMut()) {
    let start = Instant::now();
    call();
    let once = start.elapsed().max(Duration::from_nanos(50));
    let calls = u32::try_from(20_000_000 / once.as_nanos()).unwrap_or(u32::MAX).clamp(1, 200_000);
    let mut rounds: Vec<f64> = (0..15)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                call();
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<40}{:>14.0} ns{:>10.2} ns/byte", rounds[7], rounds[7] / bytes as f64);
}

/// A text message of one person as Twilio sends it.
const TWILIO: &str = "SmsMessageSid=SM00000000000000000000000000000001&NumMedia=0&ProfileName=Ada&MessageType=text&\
                      SmsSid=SM00000000000000000000000000000001&WaId=4915155500023&SmsStatus=received&\
                      Body=ol%C3%A1+Welt%2C+is+the+shop+open%3F&To=whatsapp%3A%2B15550001111&NumSegments=1&\
                      ReferralNumMedia=0&MessageSid=SM00000000000000000000000000000001&\
                      AccountSid=AC00000000000000000000000000000001&From=whatsapp%3A%2B4915155500023&\
                      ApiVersion=2010-04-01";

/// The same in the generic form.
const GENERIC: &str = r#"{"message_id":"m1","from":"+4915155500023","to":"+15550001111","ts":"2026-11-18T11:06:40Z","text":"ol\u00e1 Welt, is the shop open?"}"#;

/// Verification and peek of the providers that send one update at a time.
fn single_updates() {
    const URL: &str = "https://gateway.example.com/webhooks/twilio/shop?x=1";
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"0123456789abcdef0123456789abcdef");
    println!("\ntwilio, {} bytes", TWILIO.len());
    // No spelling of the address matches, so all are tried.
    measure("verify + peek", TWILIO.len(), || {
        let Ok(signed) = twilio::signature::Signed::form(black_box(TWILIO.as_bytes())) else { return };
        black_box(twilio::signature::signed_by(&[0; 20], URL, &signed, [((), &key)]));
        black_box(twilio::peek::peek(TWILIO.as_bytes()).is_ok());
    });
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
    println!("\ngeneric, {} bytes", GENERIC.len());
    measure("verify + peek", GENERIC.len(), || {
        black_box(generic::signature::signed_by(&[0; 32], black_box(GENERIC.as_bytes()), [((), &key)]));
        black_box(generic::peek::peek(GENERIC.as_bytes()).is_ok());
    });
}

fn main() {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
    let received_at = Timestamp::from_secs(1_795_000_001);
    let empty_items =
        format!(r#"{{"entry":[{{"changes":[{{"value":{{"messages":[{}{{}}]}}}}]}}]}}"#, "{},".repeat(1_398_000));
    for (name, body) in [
        ("1 update", body(1, 16)),
        ("30 updates", body(30, 304)),
        ("1000 updates", body(1000, 2704)),
        ("1398001 empty updates", empty_items.into_bytes()),
    ] {
        let size = body.len();
        println!("\n{name}, {size} bytes");
        let mut tag = [0; 32];
        tag.copy_from_slice(hmac::sign(&key, &body).as_ref());
        measure("verify", size, || {
            black_box(signed_by(&tag, black_box(&body), [((), &key)]));
        });
        measure("peek", size, || {
            black_box(peek(black_box(&body)).is_ok());
        });
        let Ok(peeked) = peek(&body) else { continue };
        let count = peeked.updates.len();
        let keep: Vec<bool> = (0..count).map(|index| index % 2 == 1).collect();
        measure("cut to every other update", size, || {
            black_box(cut(&body, black_box(&peeked), &keep));
        });
        if count <= 1000 {
            measure("parse all updates", size, || {
                for index in 0..count {
                    black_box(parse(&body, black_box(&peeked), index, received_at).is_ok());
                }
            });
        }
    }
    single_updates();
}
