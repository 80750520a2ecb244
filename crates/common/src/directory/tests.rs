use super::*;

fn ring() -> KeyRing {
    KeyRing::parse(&KeyRing::generate_file("m1")).unwrap()
}

fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

fn app(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

fn number(id: Option<&str>, waba: Option<&str>, app_id: &str, owners: &[(&str, i64)]) -> Entry {
    Entry::Number(Number {
        id: id.map(|id| NumberId::new(id).unwrap()),
        waba: waba.map(|id| WabaId::new(id).unwrap()),
        app: app(app_id),
        assignments: owners
            .iter()
            .map(|(id, from)| Assignment { tenant: Some(tenant(id)), valid_from: Timestamp::from_secs(*from) })
            .collect(),
    })
}

fn directory(entries: Vec<Entry>) -> Directory {
    Directory { revision: 1, entries: entries.into_iter().map(|entry| (entry.key(), entry)).collect() }
}

fn owner(entries: Vec<Entry>, app_id: &str, id: Option<&str>, waba: Option<&str>, at: i64) -> Owner {
    let open = OpenDirectory::open(&directory(entries), &ring()).unwrap();
    open.owner(&app(app_id), id, waba, Timestamp::from_secs(at))
}

#[test]
fn a_number_belongs_to_its_owner_of_the_time() {
    let moved = || vec![number(Some("1"), Some("w"), "a", &[("old", 10), ("new", 20)])];
    assert_eq!(owner(moved(), "a", Some("1"), None, 9), Owner::Unknown);
    assert_eq!(owner(moved(), "a", Some("1"), None, 19), Owner::Tenant(tenant("old")));
    assert_eq!(owner(moved(), "a", Some("1"), None, 20), Owner::Tenant(tenant("new")));
}

#[test]
fn another_apps_number_is_foreign_even_where_a_wildcard_would_take_it() {
    let entries = || vec![number(Some("1"), Some("w"), "a", &[("t", 0)]), number(None, None, "b", &[("u", 0)])];
    assert_eq!(owner(entries(), "b", Some("1"), Some("w"), 1), Owner::ForeignApp);
    assert_eq!(owner(entries(), "b", None, Some("w"), 1), Owner::ForeignApp);
    assert_eq!(owner(entries(), "b", Some("2"), None, 1), Owner::Tenant(tenant("u")));
    assert_eq!(owner(entries(), "a", Some("2"), None, 1), Owner::Unknown);
}

#[test]
fn a_waba_decides_only_when_it_has_one_owner() {
    let entries = |second| {
        vec![number(Some("1"), Some("w"), "a", &[("t", 0)]), number(Some("2"), Some("w"), "a", &[(second, 0)])]
    };
    assert_eq!(owner(entries("t"), "a", None, Some("w"), 1), Owner::Tenant(tenant("t")));
    assert_eq!(owner(entries("t"), "a", Some("3"), Some("w"), 1), Owner::Tenant(tenant("t")));
    assert_eq!(owner(entries("u"), "a", None, Some("w"), 1), Owner::Unknown);
}

#[test]
fn secrets_and_keys_open_and_survive_a_rotation_of_the_master_key() {
    let old_file = KeyRing::generate_file("m1");
    let old = KeyRing::parse(&old_file).unwrap();
    let both = KeyRing::parse(&(KeyRing::generate_file("m2") + &old_file)).unwrap();
    let mut dir = directory(vec![
        Entry::Tenant(Tenant::create(tenant("acme"), None, &old)),
        Entry::App(App::create(app("main"), Provider::Meta, &["s3cret"], &["token"], &old)),
    ]);
    let before = OpenDirectory::open(&dir, &old).unwrap();
    for entry in dir.rewrap(&both).unwrap() {
        dir.entries.insert(entry.key(), entry);
    }
    assert!(dir.rewrap(&both).unwrap().is_empty());
    assert!(OpenDirectory::open(&dir, &old).is_err());
    let after = OpenDirectory::open(&dir, &both).unwrap();
    let hash = |open: &OpenDirectory| open.tenant(&tenant("acme")).unwrap().sender_hash("351910000001");
    assert_eq!(hash(&before), hash(&after));
    let opened = after.app("main").unwrap();
    assert!(opened.accepts_verify_token("token"));
    assert!(!opened.accepts_verify_token("Token"));
    assert!(!opened.accepts_verify_token(""));
}

#[test]
fn an_apps_keys_are_of_its_providers_algorithm() {
    use ring::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
    let ring = ring();
    for (provider, algorithm) in [
        (Provider::Meta, HMAC_SHA256),
        (Provider::Twilio, HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        (Provider::Generic, HMAC_SHA256),
    ] {
        let dir = directory(vec![Entry::App(App::create(app("main"), provider, &["new", "old"], &[], &ring))]);
        let open = OpenDirectory::open(&dir, &ring).unwrap();
        let keys = &open.app("main").unwrap().signature_keys;
        assert_eq!(keys.len(), 2);
        let tag = hmac::sign(&hmac::Key::new(algorithm, b"new"), b"body");
        assert!(hmac::verify(&keys[0].key, b"body", tag.as_ref()).is_ok(), "{provider:?}");
    }
}

#[test]
fn entries_survive_serialisation() {
    let ring = ring();
    for entry in [
        Entry::Tenant(Tenant::create(tenant("acme"), Some("Acme".into()), &ring)),
        Entry::App(App::create(app("main"), Provider::Meta, &["s"], &[], &ring)),
        number(None, None, "main", &[("acme", 0)]),
        Entry::SingleTenant(true),
    ] {
        let json = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
        assert!(!json.contains("\"s\""));
    }
}

#[test]
fn a_path_names_an_app_by_its_id_or_by_its_account() {
    let ring = ring();
    let of = |id: &str, provider, account: Option<&str>| {
        let made = App::create(app(id), provider, &["secret"], &[], &ring);
        Entry::App(App { account: account.map(str::to_owned), default: id != "c", ..made })
    };
    let entries = vec![
        of("a", Provider::Twilio, Some("AC1")),
        of("b", Provider::Twilio, Some("AC1")),
        of("c", Provider::Twilio, None),
        of("d", Provider::Meta, None),
    ];
    let open = OpenDirectory::open(&directory(entries), &ring).unwrap();
    let named = |name: &str| open.named_apps(Provider::Twilio, name).map(|app| app.id.as_str()).collect::<Vec<_>>();
    assert_eq!((named("AC1"), named("c"), named("d"), named("AC2")), (vec!["a", "b"], vec!["c"], vec![], vec![]));
    let defaults = |provider| open.default_apps(provider).map(|app| app.id.as_str()).collect::<Vec<_>>();
    assert_eq!((defaults(Provider::Twilio), defaults(Provider::Meta)), (vec!["a", "b"], vec!["d"]));
    assert!(open.has_secrets(Provider::Meta) && !open.has_secrets(Provider::Generic));
}
