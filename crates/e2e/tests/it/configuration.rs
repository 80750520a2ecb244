//! Configuration and the commands around it: every problem at once, and advice.

use crate::binary::run;
use crate::meta::{self, SECRET, VERIFY_TOKEN};
use crate::wharf::Setup;

const PROVIDER: [(&str, &str); 2] = [("WHATSAPP_APP_SECRET", SECRET), ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN)];

#[test]
fn all_problems_are_listed_at_once_and_the_exit_code_is_64() {
    let setup = Setup::new();
    let file = setup.file(
        "wharf.toml",
        "mode = \"staging\"\nsurprise = 1\n[ingress]\nglobal_limit_per_secnd = 5\nper_ip_limit_per_second = \"many\"\n",
    );
    let file = file.to_str().unwrap();
    let environment = [
        ("WHARF__INGRESS__DEADLINE_MS", "soon"),
        ("WHARF__NOWHERE__KEY", "1"),
        ("WHARF_ADMIN_TOKN", "x"),
        ("WHATSAPP_ACCESS_TOKEN", "a-token-that-is-secret"),
        ("WHATSAPP_TOKEN", "another-token-that-is-secret"),
        ("PORT", "http"),
    ];
    let data = setup.data();
    for command in [&["config", "check"][..], &["up"], &["migrate"]] {
        let failed = run(&[command, &["--config", file, "--data-dir", data.to_str().unwrap()]].concat(), &environment);
        assert_eq!(failed.code, Some(64), "{command:?}: {failed:?}");
        for part in [
            "surprise",
            "did you mean `ingress.global_limit_per_second`?",
            "per_ip_limit_per_second",
            "WHARF__INGRESS__DEADLINE_MS",
            "WHARF__NOWHERE__KEY",
            "WHARF_ADMIN_TOKN",
            "WHATSAPP_ACCESS_TOKEN, WHATSAPP_TOKEN",
            "HOST, PORT",
            "`mode`",
        ] {
            assert!(failed.stderr.contains(part), "{command:?} does not tell of {part}:\n{}", failed.stderr);
        }
        assert!(!failed.stderr.contains("that-is-secret"), "a secret is not repeated:\n{}", failed.stderr);
        assert!(!data.exists(), "nothing was begun");
    }
}

#[test]
fn values_that_cannot_hold_together_are_all_listed() {
    let environment = [
        ("WHATSAPP_APP_SECRET", SECRET),
        ("WHARF__INGRESS__DEADLINE_MS", "5000"),
        ("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", "0"),
        ("WHARF__INGRESS__MAX_BODY_BYTES", "8388608"),
        ("WHARF__INGRESS__MAX_EVENT_AGE_HOURS", "1"),
        ("WHARF__LOG__FORMAT", "colourful"),
        ("WHARF_ADMIN_TOKEN", "short"),
        ("DATABASE_URL", "postgresql://localhost/x"),
        ("DEBUG", "true"),
        ("TWILIO_SKIP_VALIDATION", "true"),
    ];
    let failed = run(&["config", "check"], &environment);
    assert_eq!(failed.code, Some(64), "{failed:?}");
    assert_eq!(failed.stderr.lines().skip(1).count(), environment.len(), "{}", failed.stderr);
}

#[test]
fn a_good_configuration_is_valid_and_what_is_not_used_is_noted() {
    let checked = run(&["config", "check"], &[]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "the configuration is valid\n"), "{checked:?}");
    let environment = [PROVIDER[0], PROVIDER[1], ("TWILIO_AUTH_TOKEN", "t"), ("LOG_LEVEL", "WARNING")];
    let checked = run(&["config", "check"], &environment);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("note: TWILIO_AUTH_TOKEN"), "{checked:?}");
}

#[test]
fn the_defaults_are_a_configuration() {
    let printed = run(&["config", "print-defaults"], &[]);
    assert_eq!(printed.code, Some(0));
    let table: toml::Table = printed.stdout.parse().unwrap();
    for section in ["listen", "ingress", "keys", "api", "log", "meta"] {
        assert!(table.contains_key(section), "{section}");
    }
    for name in ["WHATSAPP_APP_SECRET", "WEBHOOK_RATE_LIMIT_MAX", "DATABASE_URL", "WHARF_DATA_DIR", "LOG_LEVEL"] {
        assert!(printed.stdout.contains(name), "{name} is documented");
    }
    let setup = Setup::new();
    let file = setup.file("all.toml", &printed.stdout);
    let checked = run(&["config", "check", "--config", file.to_str().unwrap()], &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn a_new_secret_is_32_bytes_in_hex_and_never_the_same() {
    let secrets = [(); 3].map(|()| {
        let made = run(&["secret", "new"], &[]);
        assert_eq!(made.code, Some(0));
        let text = made.stdout.trim_end().to_owned();
        assert_eq!(hex::decode(&text).unwrap().len(), 32, "{text}");
        text
    });
    assert!(secrets[0] != secrets[1] && secrets[1] != secrets[2]);
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let setup = Setup::new();
    let data = setup.data();
    let folder = data.to_str().unwrap();
    let migrated = run(&["migrate", "--data-dir", folder], &[]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.stdout.contains("up to date"), "{migrated:?}");
    let again = run(&["migrate", "--data-dir", folder], &[]);
    assert_eq!(again.code, Some(0), "{again:?}");

    let wharf = setup.start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.A", "hello")]));
    let second = wharf.setup().fail_to_start();
    let migrate = run(&["migrate", "--data-dir", folder], &[]);
    for refused in [second, migrate] {
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let advice = "in use by another wharf process; talk to it through its API, or choose another --data-dir";
        assert!(refused.stderr.contains(advice), "{refused:?}");
    }
    wharf.wait_for_message("wamid.A");
}

#[test]
fn an_address_in_use_is_named() {
    let wharf = Setup::new().start();
    let address = wharf.public().to_string();
    let other = Setup::new();
    let data = other.data();
    let arguments = ["up", "--data-dir", data.to_str().unwrap(), "--listen", &address, "--api-listen", "127.0.0.1:0"];
    let failed = run(&[&arguments[..], &["--admin-listen", "127.0.0.1:0"]].concat(), &PROVIDER);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains(&format!("cannot listen on {address}")), "{failed:?}");
    assert!(!failed.stderr.contains("unexpectedly"), "one cause, one message: {failed:?}");
}

#[test]
fn later_layers_win_and_secrets_come_from_a_file_as_well() {
    let setup = Setup::without_provider();
    let file = setup.file(
        "wharf.toml",
        &format!(
            "[meta]\napp_secret = \"{SECRET}\"\nverify_token = \"{VERIFY_TOKEN}\"\n[ingress]\nmax_body_bytes = 1000\n"
        ),
    );
    let wharf = setup
        .set("WHARF_CONFIG", file.to_str().unwrap())
        .set("WHARF__INGRESS__MAX_BODY_BYTES", "2000")
        .set("META_APP_SECRET", "a-second-secret-for-a-rotation")
        .set("WHARF_ADMIN_TOKEN", "a-token-from-the-environment")
        .start();
    assert_eq!(meta::deliver(wharf.public(), &b"x".repeat(1500)).status, 200, "the environment wins over the file");
    assert_eq!(meta::deliver(wharf.public(), &b"x".repeat(2001)).status, 413);
    let body = meta::messages(&[meta::text("wamid.A", "hello")]);
    let second = "a-second-secret-for-a-rotation";
    assert_eq!(meta::deliver_to(wharf.public(), meta::PATH, second, &body).status, 200, "both secrets count");
    assert_eq!(wharf.ask("/stats").status, 200, "the token from the environment opens the API");
    assert!(!wharf.setup().data().join("admin.token").exists());
}
