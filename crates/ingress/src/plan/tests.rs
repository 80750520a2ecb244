use super::*;
use common::directory::{App, Assignment, Directory, Entry, Number, Tenant};
use common::envelope;
use common::ids::WabaId;
use common::keys::KeyRing;
use common::sealing::open;

const NOW: i64 = 1_795_000_000;

fn ring() -> KeyRing {
    KeyRing::parse(&KeyRing::generate_file("m1")).unwrap()
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

fn number(id: &str, app: &str, owner: &str) -> Entry {
    Entry::Number(Number {
        id: Some(NumberId::new(id).unwrap()),
        waba: Some(WabaId::new(&format!("w{id}")).unwrap()),
        app: AppId::new(app).unwrap(),
        assignments: vec![Assignment { tenant: Some(tenant(owner)), valid_from: Timestamp::default() }],
    })
}

fn app_of(provider: Provider) -> &'static str {
    match provider {
        Provider::Meta => "main",
        other => other.as_str(),
    }
}

fn directory() -> OpenDirectory {
    let ring = ring();
    let mut entries = vec![
        Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring)),
        Entry::Tenant(Tenant::create(tenant("acme"), None, &ring)),
        Entry::Tenant(Tenant::create(tenant("beta"), None, &ring)),
        Entry::App(App::create(AppId::new("main").unwrap(), Provider::Meta, &["s"], &[], &ring)),
        number("1", "main", "acme"),
        number("2", "main", "beta"),
        number("3", "other", "beta"),
        number("+15550001111", "twilio", "beta"),
        number("+15550002222", "generic", "acme"),
    ];
    let mut suspended = Tenant::create(tenant("gone"), None, &ring);
    suspended.status = TenantStatus::Suspended;
    entries.extend([Entry::Tenant(suspended), number("4", "main", "gone")]);
    let entries = entries.into_iter().map(|entry| (entry.key(), entry)).collect();
    OpenDirectory::open(&Directory { revision: 1, entries }, &ring).unwrap()
}

fn request() -> Request {
    Request {
        id: RequestId::fresh(),
        provider: Provider::Meta,
        app: AppId::new("main").unwrap(),
        source_ip: "192.0.2.1".parse().unwrap(),
        received_at: Timestamp::from_secs(NOW),
        trace: TraceContext::fresh(),
        delivery: None,
    }
}

fn message(id: &str, at: i64) -> String {
    format!(r#"{{"from":"351910000001","id":"{id}","timestamp":"{at}","type":"text","text":{{"body":"x"}}}}"#)
}

fn change(number: &str, messages: &[String]) -> String {
    let list = messages.join(",");
    format!(r#"{{"value":{{"metadata":{{"phone_number_id":"{number}"}},"messages":[{list}]}},"field":"messages"}}"#)
}

fn body(changes: &[String]) -> Vec<u8> {
    format!(r#"{{"entry":[{{"id":"w","changes":[{}]}}]}}"#, changes.join(",")).into_bytes()
}

const WEEK: Duration = Duration::from_hours(192);

/// What an envelope says: tenant, disposition and the ids inside.
fn told(directory: &OpenDirectory, outgoing: &Outgoing) -> (String, Disposition, Vec<String>) {
    let parts = envelope::decode(&outgoing.payload).unwrap();
    let keys = directory.tenant(&parts.header.tenant).unwrap();
    let payload = open(&parts, keys.data_key(&parts.header.key).unwrap()).unwrap();
    let ids = match peek(parts.header.provider, &payload) {
        Ok(peeked) if !peeked.updates.is_empty() => {
            peeked.updates.iter().map(|update| update.id.as_deref().unwrap_or("-").to_owned()).collect()
        }
        _ => vec![String::from_utf8_lossy(&payload).into_owned()],
    };
    assert_eq!(
        parts.header.updates as usize,
        if ids.iter().any(|id| id.starts_with(['{', 'n'])) { 0 } else { ids.len() }
    );
    (parts.header.tenant.to_string(), parts.header.disposition, ids)
}

fn envelopes(body: &[u8], verdicts: &[Verdict]) -> Vec<(String, Disposition, Vec<String>)> {
    envelopes_of(Provider::Meta, body, verdicts)
}

fn envelopes_of(provider: Provider, body: &[u8], verdicts: &[Verdict]) -> Vec<(String, Disposition, Vec<String>)> {
    let directory = directory();
    let request = Request { provider, app: AppId::new(app_of(provider)).unwrap(), ..request() };
    let planned = plan(body, &request, &directory, WEEK).unwrap();
    planned.envelopes(&request, verdicts).messages.iter().map(|message| told(&directory, message)).collect()
}

fn all(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn one_number_is_one_envelope_with_the_very_bytes_that_came() {
    let body = body(&[change("1", &[message("a", NOW), message("b", NOW)])]);
    assert_eq!(envelopes(&body, &[]), [("acme".into(), Disposition::Deliver, all(&["a", "b"]))]);
    let (directory, request) = (directory(), request());
    let planned = plan(&body, &request, &directory, WEEK).unwrap();
    let sealed = planned.envelopes(&request, &[]).messages.remove(0);
    let parts = envelope::decode(&sealed.payload).unwrap();
    assert_eq!(open(&parts, directory.tenant(&tenant("acme")).unwrap().sealing()).unwrap(), body);
    assert_eq!(parts.header.body_sha256, hex::encode(digest::digest(&digest::SHA256, &body)));
}

#[test]
fn tenants_of_one_body_get_an_envelope_each_in_order() {
    let body = body(&[
        change("1", &[message("a", NOW)]),
        change("2", &[message("b", NOW)]),
        change("1", &[message("c", NOW)]),
    ]);
    assert_eq!(
        envelopes(&body, &[]),
        [("acme".into(), Disposition::Deliver, all(&["a", "c"])), ("beta".into(), Disposition::Deliver, all(&["b"])),]
    );
}

#[test]
fn what_has_no_tenant_is_parked_and_its_neighbours_pass() {
    let body = body(&[
        change("1", &[message("a", NOW)]),
        change("99", &[message("b", NOW)]),
        change("3", &[message("c", NOW)]),
        change("4", &[message("d", NOW)]),
    ]);
    assert_eq!(
        envelopes(&body, &[]),
        [
            ("acme".into(), Disposition::Deliver, all(&["a"])),
            ("_unassigned".into(), Disposition::Parked(ParkReason::UnknownTenant), all(&["b"])),
            ("_unassigned".into(), Disposition::Parked(ParkReason::ForeignApp), all(&["c"])),
            ("gone".into(), Disposition::Parked(ParkReason::Suspended), all(&["d"])),
        ]
    );
}

#[test]
fn a_throttled_senders_updates_form_a_second_envelope() {
    let body = body(&[change("1", &[message("a", NOW), message("b", NOW), message("c", NOW)])]);
    let over = Verdict { known: false, over_limit: true };
    assert_eq!(
        envelopes(&body, &[Verdict::default(), over, Verdict::default()]),
        [
            ("acme".into(), Disposition::Deliver, all(&["a", "c"])),
            ("acme".into(), Disposition::Parked(ParkReason::Throttled), all(&["b"])),
        ]
    );
}

#[test]
fn what_is_older_than_the_limit_is_parked_and_what_is_as_old_is_not() {
    let limit = i64::try_from(WEEK.as_secs()).unwrap();
    let body = body(&[change("1", &[message("a", NOW - limit), message("b", NOW - limit - 1)])]);
    assert_eq!(
        envelopes(&body, &[]),
        [
            ("acme".into(), Disposition::Deliver, all(&["a"])),
            ("acme".into(), Disposition::Parked(ParkReason::TooOld), all(&["b"])),
        ]
    );
}

#[test]
fn a_request_of_twilio_is_one_envelope_of_the_numbers_owner() {
    let form = b"MessageSid=SM1&AccountSid=AC1&From=whatsapp%3A%2B15550009999&To=whatsapp%3A%2B15550001111&SmsStatus=received&Body=x";
    let deliver = ("beta".to_owned(), Disposition::Deliver, all(&["SM1"]));
    assert_eq!(envelopes_of(Provider::Twilio, form, &[]), [deliver]);
    let over = Verdict { known: false, over_limit: true };
    let throttled = ("beta".to_owned(), Disposition::Parked(ParkReason::Throttled), all(&["SM1"]));
    assert_eq!(envelopes_of(Provider::Twilio, form, &[over]), [throttled]);
    let foreign = form.map(|byte| if byte == b'1' { b'2' } else { byte });
    let told = envelopes_of(Provider::Twilio, &foreign, &[]);
    assert_eq!(told[0].1, Disposition::Parked(ParkReason::UnknownTenant));
    let request = Request { provider: Provider::Twilio, ..request() };
    assert!(plan(b"", &request, &directory(), WEEK).unwrap().is_unreadable());
}

#[test]
fn a_generic_message_may_be_as_old_as_it_likes() {
    let body =
        br#"{"message_id":"m1","from":"+15550009999","to":"+15550002222","ts":"1999-01-01T00:00:00Z","text":"x"}"#;
    let deliver = ("acme".to_owned(), Disposition::Deliver, all(&["m1"]));
    assert_eq!(envelopes_of(Provider::Generic, body, &[]), [deliver]);
}

#[test]
fn providers_do_not_share_keys() {
    let directory = directory();
    let key = |provider, body: &[u8]| {
        let request = Request { provider, app: AppId::new(app_of(provider)).unwrap(), ..request() };
        let planned = plan(body, &request, &directory, WEEK).unwrap();
        let candidate = planned.candidates().remove(0);
        (candidate.key, candidate.sender)
    };
    let generic = br#"{"message_id":"SM1","from":"+15550009999","to":"+15550001111","ts":"1999-01-01T00:00:00Z"}"#;
    let twilio = b"MessageSid=SM1&From=%2B15550009999&To=%2B15550001111&Body=x";
    let (one, other) = (key(Provider::Generic, generic), key(Provider::Twilio, twilio));
    assert!(one.0.is_some() && one.0 != other.0);
    assert!(other.1.is_some() && one.1 != other.1);
}

#[test]
fn a_body_without_updates_is_parked_whole() {
    for body in ["{}", r#"{"entry":[]}"#, r#"{"entry":[{"messaging":[{"text":"hello"}]}]}"#] {
        let parked = Disposition::Parked(ParkReason::Unreadable);
        let told = envelopes(body.as_bytes(), &[]);
        assert_eq!((told.len(), told[0].1), (1, parked), "{body}");
    }
}

#[test]
fn unreadable_bytes_are_parked_whole() {
    assert_eq!(
        envelopes(b"not json", &[]),
        [("_unassigned".into(), Disposition::Parked(ParkReason::Unreadable), all(&["not json"]))]
    );
}

#[test]
fn an_escaped_id_has_the_key_of_its_unescaped_twin() {
    let (directory, request) = (directory(), request());
    let key = |id: &str| {
        let body = body(&[change("1", &[message(id, NOW)])]);
        plan(&body, &request, &directory, WEEK).unwrap().candidates()[0].key.unwrap()
    };
    assert_eq!(key("a/b"), key(r"a\/b"));
    assert_eq!(key("a/b"), key(r"a\u002fb"));
    assert_ne!(key("a/b"), key("a-b"));
}

#[test]
fn only_messages_count_against_their_sender() {
    let status = r#"{"value":{"metadata":{"phone_number_id":"1"},"statuses":[{"id":"s","status":"sent","timestamp":"1795000000","recipient_id":"1"}]},"field":"messages"}"#;
    let body = body(&[change("1", &[message("a", NOW)]), status.to_owned()]);
    let (directory, request) = (directory(), request());
    let candidates = plan(&body, &request, &directory, WEEK).unwrap().candidates();
    assert!(candidates[0].sender.is_some());
    assert!(candidates[1].sender.is_none());
}

#[test]
fn envelopes_hold_no_phone_number_and_no_wamid_in_the_clear() {
    let body = body(&[change("1", &[message("wamid.HBgMMzUxOTEwMDAwMDAx", NOW)])]);
    let (directory, request) = (directory(), request());
    let planned = plan(&body, &request, &directory, WEEK).unwrap();
    let message = planned.envelopes(&request, &[]).messages.remove(0);
    let bytes = String::from_utf8_lossy(&message.payload).into_owned();
    assert!(!bytes.contains("351910000001") && !bytes.contains("wamid") && !message.subject.contains("3519"));
}
