use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::{Mix, Number, UpdateKind, UpdateRef, sign};

const SECRET: &str = "test_app_secret";

fn number(n: u32) -> Number {
    Number {
        waba_id: format!("3000000000000{}", n / 2),
        phone_number_id: format!("70000000000000{n}"),
        display_phone_number: format!("491515550000{n}"),
    }
}

fn traffic(seed: u64, count: u64, batch: usize) -> Traffic {
    Traffic {
        seed,
        count,
        batch,
        mix: Mix { messages: 3, statuses: 4, other: 2 },
        duplicates: 0.1,
        forged: 0.05,
        numbers: (0..6).map(number).collect(),
        senders: 500,
        mixed_numbers: true,
        start_time: 1_795_000_000,
    }
}

/// The updates of a body, found the way a receiver would.
fn read(body: &[u8]) -> Vec<UpdateRef> {
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["object"], "whatsapp_business_account");
    let mut updates = Vec::new();
    for entry in body["entry"].as_array().unwrap() {
        assert!(entry["id"].is_string());
        for change in entry["changes"].as_array().unwrap() {
            read_change(change, &mut updates);
        }
    }
    updates
}

fn read_change(change: &Value, updates: &mut Vec<UpdateRef>) {
    let value = &change["value"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    if change["field"] != "messages" {
        let id = match change["field"].as_str().unwrap() {
            "account_update" => text(&value["waba_info"]["ad_account_linked"]),
            _ => value["message_template_id"].to_string(),
        };
        updates.push(UpdateRef { kind: UpdateKind::Other, phone_number_id: String::new(), id, status: None });
        return;
    }
    assert_eq!(value["messaging_product"], "whatsapp");
    let known: HashSet<_> = value["contacts"].as_array().into_iter().flatten().map(|c| text(&c["user_id"])).collect();
    for message in value["messages"].as_array().into_iter().flatten() {
        let kind = if message["type"] == "text" { UpdateKind::Message } else { UpdateKind::Other };
        assert!(kind == UpdateKind::Other || message["text"]["body"].is_string());
        assert!(message["timestamp"].is_string());
        assert!(known.contains(&text(&message["from_user_id"])));
        updates.push(UpdateRef {
            kind,
            phone_number_id: text(&value["metadata"]["phone_number_id"]),
            id: text(&message["id"]),
            status: None,
        });
    }
    for status in value["statuses"].as_array().into_iter().flatten() {
        assert_eq!(status["status"] == "failed", status["errors"].is_array());
        assert!(status["recipient_id"].is_string() || status["recipient_user_id"].is_string());
        updates.push(UpdateRef {
            kind: UpdateKind::Status,
            phone_number_id: text(&value["metadata"]["phone_number_id"]),
            id: text(&status["id"]),
            status: Some(text(&status["status"])),
        });
    }
}

#[test]
fn equal_seeds_give_equal_bytes_and_others_do_not() {
    let bytes = |seed| -> Vec<_> {
        Generator::new(traffic(seed, 300, 5), SECRET).map(|webhook| (webhook.body, webhook.signature)).collect()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}

#[test]
fn the_bytes_of_a_seed_are_frozen() {
    let all: Vec<u8> = Generator::new(traffic(1, 200, 3), SECRET).flat_map(|webhook| webhook.body).collect();
    assert_eq!(sign("frozen", &all), FROZEN, "bodies changed: recorded runs can no longer be compared");
}

const FROZEN: &str = "sha256=6fffa1a1b6eac0f43cef3f135e707d5b7387eca1b9a882a840b0a2753fd1f6fc";

#[test]
fn bodies_hold_exactly_the_updates_named() {
    for batch in [1, 2, 17, 200] {
        for webhook in Generator::new(traffic(3, 200, batch), SECRET) {
            assert_eq!(webhook.updates.len(), batch);
            assert_eq!(read(&webhook.body), webhook.updates);
            assert!(webhook.body.is_ascii());
        }
    }
}

#[test]
fn the_largest_batch_stays_below_metas_limit() {
    for webhook in Generator::new(traffic(4, 5, usize::MAX), SECRET) {
        assert!(webhook.updates.len() <= 1000);
        assert!(webhook.body.len() < 3_000_000, "{}", webhook.body.len());
    }
}

#[test]
fn fractions_and_mix_are_kept() {
    let (mut repeats, mut forged) = (0, 0);
    let mut kinds: HashMap<UpdateKind, u32> = HashMap::new();
    for webhook in Generator::new(traffic(5, 10_000, 2), SECRET) {
        repeats += u32::from(webhook.repeat);
        forged += u32::from(webhook.forged);
        for update in webhook.updates {
            *kinds.entry(update.kind).or_default() += 1;
        }
    }
    assert!((900..1100).contains(&repeats), "{repeats}");
    assert!((430..570).contains(&forged), "{forged}");
    // Weights 3, 4 and 2 of 20,000 updates.
    assert!((6_300..7_030).contains(&kinds[&UpdateKind::Message]), "{kinds:?}");
    assert!((8_500..9_300).contains(&kinds[&UpdateKind::Status]), "{kinds:?}");
    assert!((4_100..4_800).contains(&kinds[&UpdateKind::Other]), "{kinds:?}");
}

#[test]
fn ids_are_unique_except_in_repeats_which_equal_an_earlier_genuine_body() {
    let mut seen = HashSet::new();
    let mut genuine = HashSet::new();
    for webhook in Generator::new(traffic(6, 5_000, 4), SECRET) {
        if webhook.repeat {
            assert!(genuine.contains(&webhook.body) && !webhook.forged);
            continue;
        }
        for update in webhook.updates {
            assert!(seen.insert((update.id.clone(), update.status.clone())), "{update}");
        }
        if !webhook.forged {
            genuine.insert(webhook.body);
        }
    }
}

#[test]
fn only_forgeries_fail_verification() {
    for webhook in Generator::new(traffic(7, 1_000, 1), SECRET) {
        assert_eq!(sign(SECRET, &webhook.body) != webhook.signature, webhook.forged);
        assert_eq!(webhook.signature.len(), 71);
    }
}

#[test]
fn one_number_per_post_unless_mixed() {
    let numbers = |mixed_numbers| -> usize {
        Generator::new(Traffic { mixed_numbers, ..traffic(8, 200, 40) }, SECRET)
            .map(|webhook| {
                let named = webhook.updates.iter().map(|update| update.phone_number_id.as_str());
                named.filter(|number| !number.is_empty()).collect::<HashSet<_>>().len()
            })
            .max()
            .unwrap()
    };
    assert_eq!(numbers(false), 1);
    assert!(numbers(true) > 3);
}

#[test]
fn every_variety_occurs() {
    let all: Vec<u8> = Generator::new(traffic(9, 3_000, 4), SECRET).flat_map(|webhook| webhook.body).collect();
    let all = String::from_utf8(all).unwrap();
    for wanted in [
        r#""type":"image""#,
        r#""type":"location""#,
        r#""type":"reaction""#,
        r#""type":"interactive""#,
        r#""type":"unsupported""#,
        r#""field":"account_update""#,
        r#""status":"played""#,
        r#""pricing_model":"CBP""#,
        r#""pricing_model":"PMP""#,
        r#""conversation":{"#,
        r#""username":"#,
        r#""contacts":[{"user_id""#,
        r#""messages":[{"from_user_id""#,
        r"\ud83d\ude00",
        r"\u0000",
        r#""referral":"#,
        r"\/",
    ] {
        assert!(all.contains(wanted), "{wanted}");
    }
    let escaped_id = all.split(r#""id":"wamid."#).skip(1).any(|rest| rest.split('"').next().unwrap().contains(r"\/"));
    assert!(escaped_id, "no id with an escaped slash");
}

#[test]
fn degenerate_traffic_is_brought_into_range() {
    let traffic = Traffic {
        seed: 0,
        count: 50,
        batch: 0,
        mix: Mix { messages: 0, statuses: 0, other: 0 },
        duplicates: 0.0,
        forged: 0.0,
        numbers: Vec::new(),
        senders: 0,
        mixed_numbers: true,
        start_time: -1,
    };
    let webhooks: Vec<_> = Generator::new(traffic, "").collect();
    assert_eq!(webhooks.len(), 50);
    assert!(webhooks.iter().all(|webhook| read(&webhook.body).len() == 1));
}
