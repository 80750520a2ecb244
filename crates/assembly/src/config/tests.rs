use super::*;

fn load_env(pairs: &[(&str, &str)]) -> Loaded {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(None, &environment, &[], Purpose::Run(Jobs::All))
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
    assert_eq!(config.ingress().sender_limits.meta, SenderLimit { max: 7, window: Duration::from_mins(2) });
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
    assert_eq!(config.ingress().sender_limits.twilio.max, 8);
    assert_eq!(config.normalizer().throttle, config.ingress().sender_limits, "they are let go as they were held back");
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
fn each_provider_has_an_app_once_it_has_a_secret() {
    let config = load_env(&[
        ("TWILIO_AUTH_TOKEN", "t"),
        ("TWILIO_ACCOUNT_SID", "AC1"),
        ("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef"),
        ("WHARF__GENERIC__SECRET_2", "0123456789abcdef0123456789abcdee"),
    ]);
    let config = config.config.unwrap();
    let apps = config.apps();
    let told: Vec<_> = apps.iter().map(|app| (app.id, app.secrets.len(), app.account)).collect();
    assert_eq!(told, [("twilio", 1, Some("AC1")), ("generic", 2, None)]);
    assert!(load_env(&[]).config.unwrap().apps().is_empty());
}

#[test]
fn production_is_not_open_to_others_without_tls() {
    let open = ("HOST", "0.0.0.0");
    assert!(problems(&[open])[0].contains("without TLS"));
    for mended in [
        vec![("WHARF__INGRESS__TRUSTED_PROXIES", "10.0.0.0/8")],
        vec![("WHARF__LISTEN__TLS__CERTIFICATE", "cert.pem"), ("WHARF__LISTEN__TLS__KEY", "key.pem")],
        vec![("WHARF_MODE", "development")],
    ] {
        assert_eq!(problems(&[&[open], &mended[..]].concat()), [""; 0], "{mended:?}");
    }
}

#[test]
fn what_weakens_signatures_is_refused_in_production() {
    let found = problems(&[("WHARF__TWILIO__UNSAFE_SKIP_VALIDATION", "true"), ("WEBHOOK_SECRET", "short")]);
    assert_eq!(found.len(), 2, "{found:?}");
    let development = ("WHARF_MODE", "development");
    assert_eq!(problems(&[development, ("TWILIO_SKIP_VALIDATION", "true"), ("WEBHOOK_SECRET", "short")]), [""; 0]);
}

#[test]
fn settings_of_the_public_listener_belong_together() {
    for (name, value) in [
        ("WHARF__LISTEN__TLS__CERTIFICATE", "cert.pem"),
        ("WHARF__LISTEN__TLS__CLIENT_CA", "ca.pem"),
        ("WHARF__LISTEN__TLS__CLIENT_NAMES", "client.example.com"),
        ("WHARF__INGRESS__CLIENT_NAME_HEADER", "x-client"),
        ("WHARF__INGRESS__TRUSTED_PROXIES", "10.0.0.0/80"),
        ("WHARF__INGRESS__PREFIX", "api"),
        ("WHARF__INGRESS__PUBLIC_URL", "hooks.example.com"),
    ] {
        assert_eq!(problems(&[(name, value)]).len(), 1, "{name}");
    }
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

const SERVERS: [(&str, &str); 3] = [
    ("WHARF__NATS__URL", "nats://user:p4ssw0rd@bus:4222"),
    ("WHARF__NATS__MONITOR_URL", "http://bus:8222"),
    ("WHARF__KEYS__FILE", "/run/keys"),
];
const REDIS: (&str, &str) = ("WHARF__REDIS__URL", "redis://:p4ssw0rd@memory:6379");
const POSTGRES: (&str, &str) = ("WHARF__POSTGRES__URL", "postgres://user:p4ssw0rd@data/wharf");
const TOKEN: (&str, &str) = ("WHARF_ADMIN_TOKEN", "0123456789abcdef");
const DISTRIBUTED: (&str, &str) = ("WHARF__BACKEND__KIND", "distributed");

fn load_for(purpose: Purpose, pairs: &[Pairs<'_>]) -> Loaded {
    let environment = pairs.concat().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(None, &environment, &[], purpose)
}

fn problems_for(purpose: Purpose, pairs: &[Pairs<'_>]) -> Vec<String> {
    load_for(purpose, pairs).config.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn a_job_needs_only_its_own_servers() {
    let needs: [(Job, Pairs<'_>, SocketAddr); 3] = [
        (Job::Gateway, &[REDIS], "127.0.0.1:8082".parse().unwrap()),
        (Job::Normalizer, &[POSTGRES], "127.0.0.1:8083".parse().unwrap()),
        (Job::Api, &[POSTGRES, TOKEN], "127.0.0.1:8084".parse().unwrap()),
    ];
    for (job, further, admin) in needs {
        let purpose = Purpose::Run(Jobs::Only(job));
        let config = load_for(purpose, &[&SERVERS, further]).config.unwrap();
        assert_eq!((config.backend.kind, config.listen.admin), (BackendKind::Distributed, admin), "{job:?}");
        assert_eq!(config.key_file(), PathBuf::from("/run/keys"));
        assert_eq!(config.startup_wait(), Duration::from_secs(30));
        let missing = problems_for(purpose, &[]);
        assert_eq!(missing.len(), 2 + further.len(), "{job:?}: {missing:#?}");
    }
}

#[test]
fn what_is_another_processs_business_does_not_stop_a_job() {
    let foreign: [(&str, &str); 6] = [
        ("WHARF__POSTGRES__MAX_CONNECTIONS", "many"),
        ("WHARF__POSTGRES__URL", "mysql://x"),
        ("DATABASE_URL", "sqlite:///x"),
        ("WHARF__NORMALIZER__BATCH", "0"),
        ("WHATSAPP_APP_SECRET", "a secret without a token"),
        ("WHARF_ADMIN_TOKEN", "short"),
    ];
    let loaded = load_for(Purpose::Run(Jobs::Only(Job::Gateway)), &[&SERVERS, &[REDIS], &foreign]);
    assert!(loaded.config.is_ok(), "{loaded:?}");
    assert!(loaded.notes[0].contains("the gateway takes secrets from the directory"), "{loaded:?}");
    let found = problems_for(Purpose::Run(Jobs::Only(Job::Normalizer)), &[&SERVERS, &foreign]);
    assert_eq!(found.len(), 5, "a batch of 0 is wrong twice: {found:#?}");
}

#[test]
fn jobs_of_their_own_refuse_the_embedded_backend() {
    for job in [Job::Gateway, Job::Normalizer, Job::Api] {
        let found = problems_for(Purpose::Run(Jobs::Only(job)), &[&[("WHARF__BACKEND__KIND", "embedded")]]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("run `wharf up`"), "{found:#?}");
    }
}

#[test]
fn everything_in_one_process_needs_every_server() {
    let purpose = Purpose::Run(Jobs::All);
    let found = problems_for(purpose, &[&[DISTRIBUTED]]);
    for key in ["nats.url", "nats.monitor_url", "redis.url", "postgres.url", "api.admin_token"] {
        assert!(found.iter().any(|problem| problem.starts_with(key)), "{key}: {found:#?}");
    }
    assert_eq!(found.len(), 5);
    let all: [Pairs<'_>; 3] = [&SERVERS, &[REDIS, POSTGRES, TOKEN], &[DISTRIBUTED]];
    let config = load_for(purpose, &all).config.unwrap();
    assert!(!config.nats("wharf").allow_lazy_sync);
    let shown = format!("{config:?}");
    assert!(!shown.contains("p4ssw0rd"), "{shown}");
    assert_eq!(load_for(Purpose::Migrate, &[&[SERVERS[0], POSTGRES, DISTRIBUTED]]).config.err(), None);
}

#[test]
fn development_needs_no_token_but_a_monitoring_endpoint_or_the_switch() {
    let development = [SERVERS[0], REDIS, POSTGRES, DISTRIBUTED, ("WHARF_MODE", "development")];
    let found = problems_for(Purpose::Run(Jobs::All), &[&development]);
    assert!(found.len() == 1 && found[0].contains("nats.unsafe_lazy_sync"), "{found:?}");
    let monitored = load_for(Purpose::Run(Jobs::All), &[&development, &[SERVERS[1]]]).config.unwrap();
    assert!(!monitored.nats("wharf").allow_lazy_sync);
    let switched = [SERVERS[0], REDIS, ("WHARF__NATS__UNSAFE_LAZY_SYNC", "true")];
    let gateway = Purpose::Run(Jobs::Only(Job::Gateway));
    let config = load_for(gateway, &[&switched, &[("WHARF_MODE", "development")]]).config.unwrap();
    assert!(config.nats("gateway").allow_lazy_sync);
    let found = problems_for(gateway, &[&switched]);
    assert!(found.len() == 1 && found[0].starts_with("nats.unsafe_lazy_sync"), "{found:?}");
}

#[test]
fn database_url_is_another_name_of_the_postgres_url_and_must_not_contradict_it() {
    let with = |pairs: &[(&str, &str)]| load_for(Purpose::Migrate, &[&[SERVERS[0], DISTRIBUTED], pairs]).config;
    let url = |config: Config| config.postgres().url.expose_secret().to_owned();
    let other = ("DATABASE_URL", "postgresql://user:p4ssw0rd@data/wharf");
    assert_eq!(url(with(&[other]).unwrap()), other.1);
    assert_eq!(url(with(&[other, POSTGRES]).unwrap()), POSTGRES.1, "the same in other words");
    for contradiction in ["postgres://user:p4ssw0rd@elsewhere/wharf", "sqlite:///x.db", "x.db"] {
        let found = with(&[POSTGRES, ("DATABASE_URL", contradiction)]).unwrap_err();
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(!found[0].to_string().contains("p4ssw0rd"));
    }
    assert_eq!(with(&[("DATABASE_URL", "sqlite:///x.db")]).unwrap_err().len(), 1);
}
