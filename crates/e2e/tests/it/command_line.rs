//! Commands that start nothing or end what they start: configuration, help, the demo. They are the same whatever the
//! jobs run on.

use crate::binary::run;
use crate::meta::{SECRET, VERIFY_TOKEN};
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
fn a_good_configuration_is_valid() {
    let checked = run(&["config", "check"], &[]);
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(0), "the configuration is valid\n"), "{checked:?}");
    let environment = [PROVIDER[0], PROVIDER[1], ("TWILIO_AUTH_TOKEN", "t"), ("LOG_LEVEL", "WARNING")];
    let checked = run(&["config", "check"], &environment);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!(checked.stdout, "the configuration is valid\n");
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
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let demo = run(&["demo", "--once"], &[("TMPDIR", temporary.path().to_str().unwrap())]);
    assert_eq!(demo.code, Some(0), "{demo:?}");
    for part in ["Every event came out exactly once.", "wharf.message.received", "wharf.message.status", "p99"] {
        assert!(demo.stdout.contains(part), "{part}: {demo:?}");
    }
    assert!(!demo.stderr.contains("panicked"), "{demo:?}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "its folder is gone");
}

#[test]
fn the_command_line_explains_itself() {
    for arguments in [&["--help"][..], &["up", "--help"], &["simulate", "send", "--help"], &["tenants", "--help"]] {
        let help = run(arguments, &[]);
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.stdout.contains("Usage: wharf"), "{help:?}");
    }
    let version = run(&["--version"], &[]);
    assert!(version.stdout.starts_with("wharf "), "{version:?}");
    assert_eq!(run(&["sail"], &[]).code, Some(2));
    let with_secret = run(&["simulate", "send", "--help"], &[("WHATSAPP_APP_SECRET", SECRET)]);
    assert!(!with_secret.stdout.contains(SECRET), "help does not show what is set");
}
