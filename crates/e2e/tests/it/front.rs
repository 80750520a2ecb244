//! Who may come to the public listener, and how.

use crate::http::{exchange, post};
use crate::meta;
use crate::wait;
use crate::wharf::{Setup, Wharf};

fn send(wharf: &Wharf, headers: &str) -> u16 {
    let body = meta::messages(&[meta::text("wamid.FRONT", "hello")]);
    let headers = format!("{}{headers}", meta::signature(meta::SECRET, &body));
    exchange(wharf.public(), &post(meta::PATH, &headers, &body)).unwrap().status
}

#[test]
fn only_addresses_on_the_list_may_send_and_the_list_may_change() {
    let setup = Setup::new().set("WHARF__INGRESS__TRUSTED_PROXIES", "127.0.0.0/8").set("WHARF_MODE", "development");
    let list = setup.file("allowed.txt", "# Meta's\n203.0.113.0/24, 2001:db8::/32\n");
    let wharf = setup.set("WHARF__INGRESS__ALLOW_LIST_FILE", list.to_str().unwrap()).start();
    assert_eq!(send(&wharf, ""), 403, "the proxy itself is not on it");
    assert_eq!(send(&wharf, "X-Forwarded-For: 203.0.113.9\r\n"), 200);
    assert_eq!(send(&wharf, "X-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n"), 403, "what a client says of itself");
    assert_eq!(send(&wharf, "X-Forwarded-For: 2001:db8::7\r\n"), 200);
    assert_eq!(send(&wharf, "Forwarded: for=\"[2001:db8::7]:4711\"\r\n"), 200);
    std::fs::write(&list, "prefix,country,region,city,postal\n").unwrap();
    std::fs::write(&list, "198.51.100.0/24,PT,,,\n").unwrap();
    wait::until("the new list counts", || (send(&wharf, "X-Forwarded-For: 198.51.100.1\r\n") == 200).then_some(()));
    assert_eq!(send(&wharf, "X-Forwarded-For: 203.0.113.9\r\n"), 403);
    // What is no list is not taken, and the last good one stays.
    std::fs::write(&list, "nonsense\n").unwrap();
    wait::until("it is reported", || wharf.log().contains("changed files are not usable").then_some(()));
    assert_eq!(send(&wharf, "X-Forwarded-For: 198.51.100.1\r\n"), 200);
}

#[test]
fn what_a_client_says_of_itself_does_not_count() {
    let wharf = Setup::new().set("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", "3").start();
    let answers: Vec<u16> = (0..4).map(|n| send(&wharf, &format!("X-Forwarded-For: 203.0.113.{n}\r\n"))).collect();
    assert_eq!(answers, [200, 200, 200, 429]);
}

#[test]
fn behind_a_tls_proxy_production_takes_only_what_came_over_tls() {
    let wharf = Setup::new().set("WHARF__INGRESS__TRUSTED_PROXIES", "127.0.0.1").start();
    assert_eq!(send(&wharf, ""), 403);
    assert_eq!(send(&wharf, "X-Forwarded-Proto: http\r\n"), 403);
    assert_eq!(send(&wharf, "X-Forwarded-Proto: https, http\r\n"), 403, "the nearest proxy counts");
    assert_eq!(send(&wharf, "X-Forwarded-Proto: https\r\n"), 200);
}

#[test]
fn a_proxy_may_have_to_name_the_clients_certificate() {
    let wharf = Setup::new()
        .set("WHARF_MODE", "development")
        .set("WHARF__INGRESS__TRUSTED_PROXIES", "127.0.0.1")
        .set("WHARF__INGRESS__CLIENT_NAME_HEADER", "X-Amzn-Mtls-Clientcert-Subject")
        .set("WHARF__LISTEN__TLS__CLIENT_NAMES", "client.webhooks.fbclientcerts.com")
        .start();
    let named = |subject: &str| send(&wharf, &format!("X-Amzn-Mtls-Clientcert-Subject: {subject}\r\n"));
    assert_eq!(named("CN=client.webhooks.fbclientcerts.com,O=Meta Platforms"), 200);
    assert_eq!(named("CN=somebody.example.com,O=client.webhooks.fbclientcerts.com"), 403);
    assert_eq!(send(&wharf, ""), 403);
}
