use super::*;

fn load_env(pairs: &[(&str, &str)]) -> Loaded {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(None, &environment, &[])
}

fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    load_env(pairs).config.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_defaults_are_valid() {
    let config = load_env(&[]).config.unwrap();
    assert_eq!(config.mode, Mode::Production);
    assert_eq!(config.ingress().per_ip_limit_per_second, 50);
    assert_eq!(config.data_file().unwrap(), PathBuf::from("wharf-data/messages.db"));
}

#[test]
fn the_sources_names_are_understood() {
    let config = load_env(&[
        ("WHATSAPP_APP_SECRET", "one"),
        ("META_APP_SECRET", "two"),
        ("WHATSAPP_VERIFY_TOKEN", "token"),
        ("WEBHOOK_RATE_LIMIT_MAX", "7"),
        ("WEBHOOK_RATE_LIMIT_WINDOW", "2"),
        ("HOST", "127.0.0.1"),
        ("PORT", "9000"),
        ("LOG_LEVEL", "WARNING"),
        ("LOG_FORMAT", "JSON"),
        ("DATABASE_URL", "sqlite:///./data/messages.db"),
    ])
    .config
    .unwrap();
    assert_eq!(config.meta.secrets(), ["one", "two"]);
    assert_eq!(config.ingress().sender_limit, SenderLimit { max: 7, window: Duration::from_mins(2) });
    assert_eq!(config.listen.public.port(), 9000);
    assert_eq!((config.log_level(), config.log_format()), ("warn", Some(LogFormat::Json)));
    assert_eq!(config.data_file().unwrap(), PathBuf::from("./data/messages.db"));
    let absolute = load_env(&[("DATABASE_URL", "sqlite:////var/lib/m.db")]).config.unwrap();
    assert_eq!(absolute.data_file().unwrap(), PathBuf::from("/var/lib/m.db"));
}

#[test]
fn our_names_win_over_the_sources() {
    let config =
        load_env(&[("WEBHOOK_RATE_LIMIT_MAX", "7"), ("WHARF__INGRESS__SENDER_LIMIT_MAX", "8")]).config.unwrap();
    assert_eq!(config.ingress().sender_limit.max, 8);
}

#[test]
fn every_problem_is_found_at_once() {
    let found = problems(&[
        ("WHARF__INGRESS__DEADLINE_MS", "5000"),
        ("WHARF__INGRESS__DEADLIN_MS", "5"),
        ("WHARF_DATADIR", "x"),
        ("WHATSAPP_ACCESS_TOKEN", "a"),
        ("WHATSAPP_TOKEN", "b"),
        ("DEBUG", "true"),
        ("DATABASE_URL", "postgresql://localhost/x"),
        ("WHATSAPP_APP_SECRET", "s"),
        ("LOG_FORMAT", "xml"),
    ]);
    assert!(problems(&[("LOG_LEVEL", "verbose")])[0].contains("must be error, warn"));
    for part in [
        "deadline_ms` ",
        "json, text or auto",
        "DATADIR",
        "both are set",
        "refused in production",
        "postgresql",
        "set together",
    ] {
        let part = part.trim_end_matches("` ");
        assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:#?}");
    }
    assert!(found.iter().any(|problem| problem.contains("did you mean `ingress.deadline_ms`?")), "{found:#?}");
}

#[test]
fn secrets_do_not_print() {
    let config = load_env(&[("WHATSAPP_APP_SECRET", "s3cr3t"), ("WHATSAPP_VERIFY_TOKEN", "t0ken")]).config.unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("s3cr3t") && !shown.contains("t0ken"));
}

#[test]
fn a_provider_that_is_still_to_come_is_said_so() {
    assert_eq!(load_env(&[("TWILIO_AUTH_TOKEN", "x")]).notes.len(), 1);
}
