use serde_json::Value;
use test_servers::Nats;

use crate::alive::is_alive;
use crate::clients::{ask, ask_on, assert_silent, connect, get};

fn info(nats: &Nats) -> Value {
    let answer = ask(&nats.url(), "");
    serde_json::from_str(answer.strip_prefix("INFO ").unwrap().lines().next().unwrap()).unwrap()
}

fn streams(nats: &Nats) -> u64 {
    let state: Value = serde_json::from_str(&get(&nats.monitor_url(), "/jsz")).unwrap();
    state["streams"].as_u64().unwrap()
}

/// One request over the plain protocol; what comes back.
fn request(nats: &Nats, subject: &str, body: &str) -> String {
    let mut stream = connect(&nats.url());
    ask_on(&mut stream, "").unwrap();
    let text = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\nPING\r\n",
        body.len()
    );
    let mut answer = ask_on(&mut stream, &text).unwrap();
    while !answer.contains("MSG answer") {
        answer.push_str(&ask_on(&mut stream, "").unwrap());
    }
    answer
}

#[test]
fn has_jetstream_that_syncs_and_takes_eight_megabytes() {
    let nats = Nats::start();
    let info = info(&nats);
    assert_eq!(info["jetstream"], true, "{info}");
    assert_eq!(info["max_payload"], 8 * 1024 * 1024, "{info}");
    let state: Value = serde_json::from_str(&get(&nats.monitor_url(), "/jsz")).unwrap();
    assert_eq!(state["config"]["sync_always"], true, "{state}");
    assert!(nats.log().contains("Server is ready"), "{}", nats.log());
}

#[test]
fn takes_a_configuration_of_the_caller() {
    let nats = Nats::start_with("listen: \"127.0.0.1:{port}\"\npid_file: \"{folder}/pid\"\nmax_payload: 4096\n");
    assert_eq!(info(&nats)["max_payload"], 4096);
    let pid = std::fs::read_to_string(nats.folder().join("pid")).unwrap();
    assert_eq!(pid, nats.pid().to_string());
}

#[test]
fn keeps_port_and_streams_over_a_kill() {
    let mut nats = Nats::start();
    let (url, monitor, pid) = (nats.url(), nats.monitor_url(), nats.pid());
    let made = request(&nats, "$JS.API.STREAM.CREATE.KEPT", r#"{"name":"KEPT","subjects":["kept"],"storage":"file"}"#);
    assert!(!made.contains("error"), "{made}");
    assert_eq!(streams(&nats), 1);

    nats.kill();
    assert!(!nats.is_running());
    assert!(!is_alive(pid));
    nats.start_again();

    assert!(nats.is_running());
    assert_ne!(nats.pid(), pid);
    assert_eq!((nats.url(), nats.monitor_url()), (url, monitor));
    assert_eq!(streams(&nats), 1);
}

#[test]
fn is_silent_while_it_is_frozen() {
    let mut nats = Nats::start();
    let mut stream = connect(&nats.url());
    ask_on(&mut stream, "").unwrap();
    nats.freeze();
    assert_silent(&mut stream, "PING\r\n");
    assert!(nats.is_running());
    nats.thaw();
    assert!(ask_on(&mut stream, "").unwrap().contains("PONG"));
}

#[test]
fn two_do_not_meet() {
    let (one, other) = (Nats::start(), Nats::start());
    assert_ne!(one.url(), other.url());
    assert_ne!(info(&one)["server_id"], info(&other)["server_id"]);
}

#[test]
fn nothing_stays_of_it() {
    let nats = Nats::start();
    let (pid, folder) = (nats.pid(), nats.folder().to_owned());
    drop(nats);
    assert!(!is_alive(pid));
    assert!(!folder.exists());
}

#[test]
fn nothing_stays_of_it_after_a_panic() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let nats = Nats::start();
        nats.freeze();
        sender.send((nats.pid(), nats.folder().to_owned())).unwrap();
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    let (pid, folder) = receiver.recv().unwrap();
    assert!(!is_alive(pid));
    assert!(!folder.exists());
}

#[test]
#[should_panic(expected = "nats-server ended early")]
fn a_server_that_does_not_start_is_a_panic_with_its_log() {
    Nats::start_with("listen: {");
}
