//! What a bystander sees: logs, metrics, names of files. No secret and nobody's phone number, id or words, in any of
//! the forms that such things take. And the files themselves are their owner's alone.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;
use simulator::Generator;

use crate::http::post;
use crate::meta::{self, PATH, SECRET, VERIFY_TOKEN};
use crate::sender::{self, delivery, traffic};
use crate::wharf::{DISTRIBUTED, Setup, tree};

/// Shorter texts stand in logs by chance.
pub(crate) const SHORTEST: usize = 8;

/// What must not be seen: a text and its disguises.
pub(crate) fn disguises(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let mut forms = vec![text.to_owned(), hex::encode(bytes), hex::encode_upper(bytes)];
    for encoding in [STANDARD, URL_SAFE] {
        // Within a longer input it stands at any of three offsets; the ends depend on what is beside it.
        for offset in 0..3 {
            let encoded = encoding.encode([&b"\0\0"[..offset], bytes].concat());
            let begin = [0, 2, 3][offset];
            let end = (offset + bytes.len()) / 3 * 4;
            forms.push(encoded[begin..end].to_owned());
        }
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

/// Every text in a webhook that belongs to a person.
pub(crate) fn personal(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|each| personal(each, found)),
        Value::Object(members) => {
            for (name, member) in members {
                let of_a_person = [
                    "from",
                    "wa_id",
                    "user_id",
                    "from_user_id",
                    "recipient_id",
                    "recipient_user_id",
                    "id",
                    "body",
                    "name",
                    "username",
                    "display_phone_number",
                    "message_id",
                    "caption",
                ];
                match member {
                    Value::String(text) if of_a_person.contains(&name.as_str()) => {
                        found.insert(text.clone());
                    }
                    other => personal(other, found),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn logs_metrics_and_file_names_tell_nothing_of_people_and_secrets() {
    let admin_token = "e2e-admin-token-00112233445566778899";
    let setup = Setup::new().without_limits().set("LOG_LEVEL", "debug").set("WHARF_ADMIN_TOKEN", admin_token);
    let wharf = setup.start();
    let traffic = simulator::Traffic { forged: 0.1, duplicates: 0.1, ..traffic(50, 120) };
    let bodies: Vec<_> = Generator::new(traffic.clone(), SECRET).map(|webhook| webhook.body).collect();
    sender::start(traffic, delivery(wharf.public())).finish();

    // What goes wrong is what logs love to quote.
    let phone = "351987654321";
    let words = "a text of which nobody may read a word";
    let old = meta::text_from(phone, "wamid.HBgMTOOOLDTOBEHANDEDOUT", words, 1_000_000_000);
    let own = [
        meta::messages(&[old]),
        meta::messages(&[meta::text_from(phone, &format!("wamid.{}", "HBgM".repeat(1000)), words, meta::now())]),
        format!(r#"{{"entry":[{{"from":"{phone}","body":"{words}""#).into_bytes(),
        format!("{phone} {words}").into_bytes(),
    ];
    for body in &own {
        meta::accepted(wharf.public(), body);
        // Forged, and with a header that cannot be read.
        meta::deliver_to(wharf.public(), PATH, "wrong", body);
        crate::http::exchange(wharf.public(), &post(PATH, &format!("X-Hub-Signature-256: {phone}\r\n"), body));
        crate::http::exchange(wharf.public(), &post(&format!("/webhooks/meta/{phone}"), "", body));
        crate::http::exchange(
            wharf.public(),
            &post(&format!("/{phone}?{phone}"), "Content-Length: 351987654321x\r\n", body),
        );
    }
    let handshake = |token: &str| format!("{PATH}?hub.mode=subscribe&hub.verify_token={token}&hub.challenge={phone}");
    crate::http::get(wharf.public(), &handshake(VERIFY_TOKEN), "");
    crate::http::get(wharf.public(), &handshake(&VERIFY_TOKEN[1..]), "");
    wharf.ask(&format!("/messages?from={phone}&q={}", words.replace(' ', "+")));
    wharf.ask(&format!("/v1/events?after={phone}x"));
    crate::http::get(wharf.api(), "/stats", &format!("Authorization: Bearer {}\r\n", &admin_token[1..]));
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.END", "the end")]));
    wharf.wait_for_message("wamid.END");
    assert!(wharf.events().len() > 100, "there was something to tell");

    let data = wharf.setup().data();
    let master_key = std::fs::read_to_string(data.join("master.keys")).unwrap();
    let master_key = master_key.lines().last().unwrap().split_whitespace().last().unwrap().to_owned();
    assert_eq!(master_key.len(), 64);
    let mut forbidden: BTreeSet<String> = [SECRET, VERIFY_TOKEN, &VERIFY_TOKEN[1..], admin_token, phone, words]
        .map(str::to_owned)
        .into_iter()
        .chain([master_key.clone(), "wamid.".to_owned(), "HBgM".to_owned()])
        .collect();
    for body in &bodies {
        personal(&serde_json::from_slice(body).unwrap(), &mut forbidden);
    }
    // The account is not a person, and its id is the tenant's own.
    forbidden.remove(meta::WABA);
    assert!(forbidden.len() > 300, "{}", forbidden.len());

    let metrics = wharf.metrics().0;
    let names: String = tree(&data).iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join("\n");
    assert!(names.contains("blobs"), "{names}");
    let log = wharf.stop_and_read_log();
    assert!(log.len() > 20_000 && log.contains("DEBUG"), "{} bytes of log", log.len());
    let master_bytes = hex::decode(&master_key).unwrap();
    let in_base64 = STANDARD.encode(&master_bytes);
    for (place, text) in [("the log", &log), ("the metrics", &metrics), ("names of files", &names)] {
        assert!(!text.contains(in_base64.trim_end_matches('=')), "the master key in {place}");
        for secret in forbidden.iter().filter(|text| text.len() >= SHORTEST) {
            for form in disguises(secret) {
                if let Some(line) = text.lines().find(|line| line.contains(&form)) {
                    panic!("{secret:?} is in {place}, as {form:?}:\n{line}");
                }
            }
        }
        assert!(!text.contains("wamid.") && !text.contains("HBgM"), "a message id in {place}");
    }
}

#[test]
fn what_is_stored_of_a_webhook_raw_is_sealed() {
    let wharf = Setup::new().start();
    let words = "words that only the database and its readers know";
    let body = meta::messages(&[meta::text("wamid.SEALED", words)]);
    meta::accepted(wharf.public(), &body);
    meta::accepted(wharf.public(), format!("unreadable: {words}").as_bytes());
    wharf.wait_for_message("wamid.SEALED");
    let setup = wharf.stop();
    let data = setup.data();
    let blobs: Vec<_> = tree(&data.join("blobs")).into_iter().filter(|path| path.is_file()).collect();
    assert!(!blobs.is_empty());
    for blob in blobs {
        let bytes = std::fs::read(&blob).unwrap();
        assert!(!bytes.windows(words.len()).any(|window| window == words.as_bytes()), "{}", blob.display());
    }
    for secret in [SECRET, VERIFY_TOKEN] {
        for file in tree(&data).into_iter().filter(|path| path.is_file()) {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{}", file.display());
        }
    }
}

#[cfg(unix)]
#[test]
fn the_data_folder_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let wharf = Setup::new().start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.A", "hello")]));
    wharf.wait_for_message("wamid.A");
    let data = wharf.setup().data();
    assert_eq!(mode(&data), 0o700);
    // On servers there may be several APIs: their token is configured.
    let files: &[&str] = if DISTRIBUTED { &["master.keys"] } else { &["master.keys", "admin.token"] };
    for name in files {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    let others_may: Vec<_> = tree(&data)
        .into_iter()
        .filter(|path| mode(path) & 0o077 != 0)
        .map(|path| format!("{} {:o}", path.strip_prefix(&data).unwrap().display(), mode(&path)))
        .collect();
    assert!(others_may.is_empty(), "open to others: {others_may:#?}");
}
