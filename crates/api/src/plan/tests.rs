use common::directory::Owner;

use super::*;
use crate::import::VerifyTokens;

const SECRET: &str = "0123456789abcdef-top";

fn ring() -> KeyRing {
    KeyRing::parse(&format!("m1 {}\n", "11".repeat(32))).unwrap()
}

fn import(json: serde_json::Value) -> Import {
    serde_json::from_value(json).unwrap()
}

fn full() -> Import {
    import(serde_json::json!({
        "tenants": [{"id": "acme", "name": "Acme"}, {"id": "beta"}],
        "apps": [{"id": "main", "secrets": [SECRET, "fedcba9876543210"], "verify_tokens": ["hello-meta"]}],
        "numbers": [{"phone_number_id": "777", "waba_id": "888", "app": "main", "tenant": "acme"}],
    }))
}

fn tokens(texts: &[&str]) -> VerifyTokens {
    texts.iter().copied().map(str::to_owned).collect()
}

fn applied(mut directory: Directory, entries: Vec<Entry>) -> Directory {
    directory.revision += 1;
    directory.entries.extend(entries.into_iter().map(|entry| (entry.key(), entry)));
    directory
}

fn imported() -> Directory {
    applied(Directory::default(), apply_import(&full(), &Directory::default(), &ring()).unwrap())
}

fn keys_of(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(Entry::key).collect()
}

fn problems(import: &Import, directory: &Directory) -> Vec<String> {
    apply_import(import, directory, &ring()).unwrap_err()
}

#[test]
fn a_document_fills_an_empty_directory() {
    let entries = apply_import(&full(), &Directory::default(), &ring()).unwrap();
    assert_eq!(keys_of(&entries), ["tenant/acme", "tenant/beta", "app/main", "number/777"]);
    let open = OpenDirectory::open(&imported(), &ring()).unwrap();
    let app = open.app("main").unwrap();
    assert!(app.accepts_verify_token("hello-meta") && app.default);
    assert_eq!(app.signature_keys(Timestamp::default()).count(), 2);
    let owner = open.owner(&app.id, Some("777"), None, Timestamp::from_secs(0));
    assert_eq!(owner, Owner::Tenant(TenantId::new("acme").unwrap()));
}

#[test]
fn nothing_changes_the_second_time() {
    assert_eq!(apply_import(&full(), &imported(), &ring()).unwrap(), []);
    assert_eq!(apply_import(&Import::default(), &imported(), &ring()).unwrap(), []);
}

#[test]
fn a_tenant_keeps_its_keys_and_without_a_name_also_that() {
    let before = imported();
    let renamed = import(serde_json::json!({"tenants": [{"id": "acme", "name": "Acme 2"}, {"id": "beta"}]}));
    let entries = apply_import(&renamed, &before, &ring()).unwrap();
    let known = before.tenant(&TenantId::new("acme").unwrap()).unwrap().clone();
    assert_eq!(entries, [Entry::Tenant(Tenant { name: Some("Acme 2".to_owned()), ..known })]);
    assert_eq!(apply_import(&import(serde_json::json!({"tenants": [{"id": "acme"}]})), &before, &ring()).unwrap(), []);
}

#[test]
fn any_difference_replaces_an_app() {
    let change = |change: fn(&mut ImportApp)| {
        let mut document = full();
        change(&mut document.apps[0]);
        apply_import(&document, &imported(), &ring()).unwrap()
    };
    assert_eq!(change(|_| {}), []);
    let changes: [fn(&mut ImportApp); 7] = [
        |app| app.secrets[0].push('x'),
        |app| app.secrets.swap(0, 1),
        |app| app.secrets.truncate(1),
        |app| app.verify_tokens = tokens(&["hello-metax"]),
        |app| app.verify_tokens = tokens(&[]),
        |app| app.verify_tokens = tokens(&["hello-meta", "another"]),
        |app| app.default = false,
    ];
    for (index, each) in changes.into_iter().enumerate() {
        assert_eq!(keys_of(&change(each)), ["app/main"], "change {index}");
    }
    let open =
        OpenDirectory::open(&applied(imported(), change(|app| app.verify_tokens = tokens(&[]))), &ring()).unwrap();
    assert!(!open.app("main").unwrap().has_verify_token(), "replaced as a whole");
}

#[test]
fn an_app_whose_master_key_is_lost_is_brought_back() {
    let other = KeyRing::parse(&format!("m2 {}\n", "22".repeat(32))).unwrap();
    let mut document = full();
    document.tenants.clear();
    assert_eq!(keys_of(&apply_import(&document, &imported(), &other).unwrap()), ["app/main"]);
}

#[test]
fn a_number_gets_a_new_owner_from_a_moment_on() {
    let moved = import(serde_json::json!({"numbers": [
        {"phone_number_id": "777", "app": "main", "tenant": "beta", "valid_from": "2026-02-01T00:00:00Z"},
        {"phone_number_id": "777", "app": "main", "tenant": "acme", "valid_from": "2026-01-01T00:00:00+01:00"},
    ]}));
    let entries = apply_import(&moved, &imported(), &ring()).unwrap();
    let [Entry::Number(number)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(number.assignments.len(), 3);
    assert_eq!(number.waba.as_ref().map(WabaId::as_str), Some("888"), "stays");
    let owner = |at: &str| number.owner_at(at.parse().unwrap()).unwrap().as_str().to_owned();
    assert_eq!(owner("2026-01-31T23:59:59.999Z"), "acme");
    assert_eq!(owner("2026-02-01T00:00:00Z"), "beta");
    assert_eq!(apply_import(&moved, &applied(imported(), entries), &ring()).unwrap(), []);
}

#[test]
fn every_problem_is_found_at_once() {
    let document = import(serde_json::json!({
        "tenants": [{"id": "_unassigned"}, {"id": "Bad Id"}, {"id": "twice"}, {"id": "twice"}, {"id": "t", "name": " "}],
        "apps": [
            {"id": "a.b", "secrets": [], "verify_tokens": [""]},
            {"id": "a", "secrets": [SECRET, " ", SECRET, "ends with space "], "verify_tokens": ["v\u{0}"]},
            {"id": "a", "secrets": [SECRET], "verify_tokens": []},
        ],
        "numbers": [
            {"phone_number_id": "", "waba_id": "w w", "app": "nobody", "tenant": "none"},
            {"phone_number_id": "1", "app": "a", "tenant": "_unassigned"},
            {"phone_number_id": "2", "app": "a", "tenant": "t", "waba_id": "8"},
            {"phone_number_id": "2", "app": "a", "tenant": "twice", "waba_id": "9"},
            {"phone_number_id": "777", "app": "a", "tenant": "t"},
        ],
    }));
    let places: Vec<String> =
        problems(&document, &imported()).iter().map(|text| text.split_once(": ").unwrap().0.to_owned()).collect();
    assert_eq!(
        places,
        [
            "tenants[0].id",
            "tenants[1].id",
            "tenants[3].id",
            "tenants[4].name",
            "apps[0].id",
            "apps[0].secrets",
            "apps[0].verify_tokens[0]",
            "apps[1].secrets[1]",
            "apps[1].secrets[2]",
            "apps[1].secrets[3]",
            "apps[1].verify_tokens[0]",
            "apps[2].id",
            "numbers[0].phone_number_id",
            "numbers[0].waba_id",
            "numbers[0].app",
            "numbers[0].tenant",
            "numbers[1].tenant",
            "numbers[3]",
            "numbers[3].waba_id",
            "numbers[4].app",
        ]
    );
}

#[test]
fn a_number_of_another_app_is_refused_within_the_document_too() {
    let document = import(serde_json::json!({
        "apps": [{"id": "other", "secrets": [SECRET], "verify_tokens": []}],
        "numbers": [
            {"phone_number_id": "5", "app": "main", "tenant": "acme"},
            {"phone_number_id": "5", "app": "other", "tenant": "acme", "valid_from": "2026-01-01T00:00:00Z"},
        ],
    }));
    assert_eq!(problems(&document, &imported()), ["numbers[1].app: the number is registered under another app"]);
}

#[test]
fn a_reference_to_a_wrong_entry_of_the_document_is_not_a_second_problem() {
    let document = import(serde_json::json!({
        "tenants": [{"id": "t", "name": ""}],
        "apps": [{"id": "a", "secrets": [], "verify_tokens": []}],
        "numbers": [{"phone_number_id": "5", "app": "a", "tenant": "t"}],
    }));
    let found = problems(&document, &Directory::default());
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn problems_warnings_and_debug_never_show_a_value() {
    let leak = "LEAK secret";
    let document = import(serde_json::json!({
        "tenants": [{"id": leak, "name": "x\u{7}LEAK"}],
        "apps": [{"id": leak, "secrets": ["LEAK ", "LEAK"], "verify_tokens": [" LEAK"]}],
        "numbers": [{"phone_number_id": leak, "waba_id": leak, "app": leak, "tenant": leak}],
    }));
    let problems = problems(&document, &Directory::default());
    assert_eq!(problems.len(), 9, "{problems:?}");
    assert!(!format!("{problems:?}{:?}", document.warnings()).contains("LEAK"));
    assert!(!format!("{:?}", full()).contains(SECRET));
}

#[test]
fn short_secrets_are_warned_about() {
    let document = import(serde_json::json!({"apps": [
        {"id": "a", "secrets": [SECRET, "123456789012345", "1234567890123456"], "verify_tokens": ["x"]},
    ]}));
    assert_eq!(document.warnings(), ["apps[0].secrets[1]: shorter than 16 characters"]);
    assert!(apply_import(&document, &Directory::default(), &ring()).is_ok());
}

#[test]
fn the_document_reads_what_it_writes_and_refuses_unknown_keys() {
    let text = serde_json::to_string(&full()).unwrap();
    assert_eq!(serde_json::from_str::<Import>(&text).unwrap(), full());
    assert!(text.contains(r#""valid_from":"1970-01-01T00:00:00Z""#), "{text}");
    for bad in [
        r#"{"tenant": []}"#,
        r#"{"tenants": [{"id": "a", "keys": []}]}"#,
        r#"{"apps": [{"id": "a", "provider": "nobody", "secrets": ["x"], "verify_tokens": []}]}"#,
        r#"{"numbers": [{"phone_number_id": "1", "app": "a", "tenant": "t", "valid_from": "soon"}]}"#,
    ] {
        assert!(serde_json::from_str::<Import>(bad).is_err(), "{bad}");
    }
}
