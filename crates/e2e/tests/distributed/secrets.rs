//! What bystanders of the servers see: the files of NATS, the commands that Redis is given, and URLs with passwords in
//! logs and refusals.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use simulator::Generator;

use crate::meta::{self, SECRET, VERIFY_TOKEN};
use crate::privacy::{SHORTEST, disguises, personal};
use crate::sender::{self, delivery, traffic};
use crate::servers::{Server, Servers};
use crate::wharf::{Job, Setup, tree};
use crate::{binary, wait};

fn address(url: &str) -> SocketAddr {
    url.split_once("://").unwrap().1.parse().unwrap()
}

/// Everything that Redis is told, as it shows it to an operator: commands, keys, values.
#[derive(Clone, Debug, Default)]
struct Overheard(Arc<Mutex<String>>);

impl Overheard {
    fn listen(redis: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(redis).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        let overheard = Self::default();
        let shared = overheard.clone();
        // It ends with the server.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                shared.0.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        overheard
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// All that a stream has on disk.
fn contents(nats: &Path, stream: &str) -> String {
    let is_of_stream = |path: &Path| path.components().any(|part| part.as_os_str() == stream);
    let files: Vec<_> = tree(nats).into_iter().filter(|path| path.is_file() && is_of_stream(path)).collect();
    assert!(!files.is_empty(), "no files of {stream}");
    // A file may go while it is looked at: what is acknowledged is deleted.
    files.iter().filter_map(|path| std::fs::read(path).ok()).map(|b| String::from_utf8_lossy(&b).into_owned()).collect()
}

fn assert_tells_nothing(place: &str, text: &str, forbidden: &BTreeSet<String>) {
    for secret in forbidden.iter().filter(|secret| secret.len() >= SHORTEST) {
        for form in disguises(secret) {
            assert!(!text.contains(&form), "{secret:?} is in {place}, as {form:?}");
        }
    }
    assert!(!text.contains("wamid.") && !text.contains("HBgM"), "a message id in {place}");
}

#[test]
fn what_lies_on_the_bus_and_what_redis_hears_tells_nothing_of_people() {
    let wharf = Setup::new().without_limits().start();
    let servers = wharf.servers();
    let store = servers.nats().folder().join("jetstream");
    let overheard = Overheard::listen(address(&servers.redis().url()));

    // Without a database everything waits on the bus.
    servers.postgres().kill();
    let traffic = traffic(80, 60);
    let bodies: Vec<_> = Generator::new(traffic.clone(), SECRET).map(|webhook| webhook.body).collect();
    let report = sender::start(traffic, delivery(wharf.public())).finish();
    let (phone, words) = ("351987654321", "a text of which nobody may read a word");
    for at in [1_000_000_000, meta::now()] {
        let id = format!("wamid.HBgMTHEIDOFAMESSAGE{at}");
        meta::accepted(wharf.public(), &meta::messages(&[meta::text_from(phone, &id, words, at)]));
    }
    meta::accepted(wharf.public(), format!("{phone} {words}").as_bytes());
    meta::deliver_to(wharf.public(), meta::PATH, "wrong", format!("{phone} {words}").as_bytes());
    wait::until("the request records are on the bus", || (servers.messages_in("audit") > 0).then_some(()));
    assert!(servers.messages_in("inbound_live") > 20);
    assert!(servers.messages_in("directory") > 0);

    let mut forbidden: BTreeSet<String> = [SECRET, VERIFY_TOKEN, phone, words].map(str::to_owned).into();
    for body in &bodies {
        personal(&serde_json::from_slice(body).unwrap(), &mut forbidden);
    }
    // The account is not a person.
    forbidden.remove(meta::WABA);
    assert!(forbidden.len() > 100, "{}", forbidden.len());
    for stream in ["inbound_live", "inbound_bulk", "audit", "directory", "wakeups"] {
        let contents = contents(&store, stream);
        assert!(contents.contains(stream), "the names of subjects are there to be read");
        assert_tells_nothing(stream, &contents, &forbidden);
    }

    servers.postgres().start_again();
    wharf.events_when(crate::feed::expected_events(&report.acknowledged) + 1);
    let id = "wamid.HBgMTHEIDOFAMESSAGE";
    wait::until("the events are on the bus", || {
        let events = contents(&store, "events");
        // They are in the clear, for those who may read them: so this way of looking would find it elsewhere.
        (events.contains(id) && events.contains(words) && events.contains(phone)).then_some(())
    });
    for stream in ["inbound_live", "inbound_bulk", "audit", "directory", "wakeups"] {
        assert_tells_nothing(stream, &contents(&store, stream), &forbidden);
    }
    let overheard = overheard.text();
    assert!(overheard.lines().count() > 20, "{overheard}");
    assert_tells_nothing("what Redis hears", &overheard, &forbidden);
    assert_tells_nothing("the log of NATS", &servers.nats().log(), &forbidden);
}

/// A URL with a user and a password.
fn with_password(url: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let user = if scheme == "redis" { "default" } else { "wharf" };
    format!("{scheme}://{user}:{password}@{rest}")
}

const PASSWORDS: [&str; 4] =
    ["password-of-nats-0451", "password-of-monitoring-0452", "password-of-redis-0453", "password-of-postgres-0454"];

fn assert_no_password(place: &str, text: &str) {
    for password in PASSWORDS.into_iter().chain([SECRET, VERIFY_TOKEN]) {
        assert!(!text.contains(password), "{password} in {place}:\n{text}");
    }
}

/// The URLs of the servers, with passwords.
fn urls(servers: &Servers) -> Vec<(&'static str, String)> {
    let urls = servers.environment(&[Server::Nats, Server::Redis, Server::Postgres]);
    urls.into_iter().zip(PASSWORDS).map(|((name, url), password)| (name, with_password(&url, password))).collect()
}

#[test]
fn no_password_of_a_url_is_ever_logged() {
    through_outages("info");
}

#[test]
fn no_password_of_a_url_is_logged_at_the_finest_level_either() {
    through_outages("trace");
}

fn through_outages(level: &str) {
    let setup = Setup::new();
    let servers = setup.servers();
    let redis = address(&servers.redis().url());
    let protect = || {
        let mut stream = TcpStream::connect(redis).unwrap();
        stream.write_all(format!("CONFIG SET requirepass {}\r\n", PASSWORDS[2]).as_bytes()).unwrap();
        assert_eq!(BufReader::new(stream).lines().next().unwrap().unwrap(), "+OK");
    };
    protect();
    let setup = urls(&servers).into_iter().fold(setup, |setup, (name, url)| setup.set(name, &url));
    let wharf = setup.set("LOG_LEVEL", level).without_limits().start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.A", "hello")]));
    wharf.wait_for_message("wamid.A");
    let redis_answers = || wharf.readiness(Job::Gateway).text().contains(r#""redis":{"ok":true"#).then_some(());
    wait::until("Redis takes the password", redis_answers);

    // Errors love to quote what they were told.
    servers.redis().kill();
    servers.postgres().kill();
    servers.nats().kill();
    for (job, part) in [(Job::Gateway, r#""bus":{"ok":false"#), (Job::Api, r#""database":{"ok":false"#)] {
        wait::until(part, || wharf.readiness(job).text().contains(part).then_some(()));
    }
    wait::until("Redis is missed", || redis_answers().is_none().then_some(()));
    servers.nats().start_again();
    servers.postgres().start_again();
    servers.redis().start_again();
    // Without the password that it is told: an error of its own.
    wait_until_it_is_back(&wharf);
    let metrics = wharf.metrics().0;
    assert_no_password("the metrics", &metrics);
    let log = wharf.stop_and_read_log();
    assert!(log.contains("readiness changed") && log.len() > 5_000, "{} bytes of log", log.len());
    assert_no_password("the log", &log);
    assert_no_password("the log of NATS", &servers.nats().log());
}

/// Waits until a webhook is taken and has come out.
fn wait_until_it_is_back(wharf: &crate::wharf::Wharf) {
    wait::until("webhooks are taken again", || {
        let body = meta::messages(&[meta::text("wamid.BACK", "hello")]);
        (meta::deliver(wharf.public(), &body).status == 200).then_some(())
    });
    wharf.wait_for_message("wamid.BACK");
}

#[test]
fn no_password_of_a_url_is_repeated_in_a_refusal() {
    refusals("info");
}

#[test]
fn no_password_of_a_url_is_repeated_at_the_finest_level_either() {
    refusals("trace");
}

fn refusals(level: &str) {
    let nobody = ["nats://", "http://", "redis://", "postgres://"].map(|scheme| format!("{scheme}127.0.0.1:1"));
    let malformed = ["http://", "ftp://", "http://", "mysql://"].map(|scheme| format!("{scheme}127.0.0.1:1"));
    let without_port = ["nats://", "http://", "redis://", "postgres://"].map(|scheme| format!("{scheme}127.0.0.1:x"));
    let names = ["WHARF__NATS__URL", "WHARF__NATS__MONITOR_URL", "WHARF__REDIS__URL", "WHARF__POSTGRES__URL"];
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    for (what, urls) in [("nobody there", nobody), ("wrong scheme", malformed), ("wrong port", without_port)] {
        let environment: Vec<_> =
            (0..4).map(|index| (names[index], with_password(&urls[index], PASSWORDS[index]))).collect();
        let mut commands = vec![
            ("doctor", binary::wharf(&["doctor", "--data-dir", data])),
            ("migrate", binary::wharf(&["migrate", "--data-dir", data])),
            ("config check", binary::wharf(&["config", "check", "--data-dir", data])),
        ];
        commands.extend(["gateway", "normalizer", "api"].map(|name| (name, binary::program(name))));
        for (name, mut command) in commands {
            command.envs(environment.iter().map(|(name, url)| (name, url)));
            command.env("WHARF_ADMIN_TOKEN", "a-token-of-sixteen-or-more").env("WHARF__STARTUP__WAIT_SECONDS", "0");
            command.envs([("WHATSAPP_APP_SECRET", SECRET), ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN)]);
            command.env("WHARF__BACKEND__KIND", "distributed").env("LOG_LEVEL", level);
            let begin = tokio::time::Instant::now();
            let refused: binary::Finished = command.output().unwrap().into();
            assert!(refused.code != Some(0) || name == "config check", "{what}, {name}: {refused:?}");
            assert!(begin.elapsed() < Duration::from_secs(30), "{what}, {name}: after {:?}", begin.elapsed());
            assert_no_password(&format!("{what}, {name}"), &(refused.stdout + &refused.stderr));
        }
    }
}
