//! `wharf up` on servers: every job in one process, for a machine of one's own.

use crate::meta::{SECRET, VERIFY_TOKEN};
use crate::servers::Servers;
use crate::wharf::{Log, Process};
use crate::{binary, http, meta, wait};

#[test]
fn in_development_it_prepares_fresh_servers_itself() {
    let servers = Servers::start();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = |log: &Log| {
        let mut command = binary::wharf(&["up", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        command.envs(servers.environment(&Servers::ALL));
        command.envs([("WHARF__BACKEND__KIND", "distributed"), ("WHARF_MODE", "development")]);
        command.envs([("WHATSAPP_APP_SECRET", SECRET), ("WHATSAPP_VERIFY_TOKEN", VERIFY_TOKEN)]);
        let mut process = Process::spawn(command, log);
        let addresses = process.addresses(["webhooks", "API"]);
        (process, addresses)
    };
    // The second start finds everything there.
    for (index, id) in ["wamid.FIRST", "wamid.SECOND"].into_iter().enumerate() {
        let log = Log::default();
        let (mut process, [public, api]) = start(&log);
        meta::accepted(public, &meta::messages(&[meta::text(id, "hello")]));
        let token = std::fs::read_to_string(data.join("admin.token")).unwrap();
        let headers = format!("Authorization: Bearer {}\r\n", token.trim());
        wait::until("the events", || {
            let answer = http::get(api, "/v1/events", &headers);
            assert_eq!(answer.status, 200, "{answer:?}");
            let page: crate::feed::Page = serde_json::from_slice(&answer.body).unwrap();
            let last = page.events.last().and_then(|event| event.data.message_id.clone());
            (page.events.len() == index + 1 && last.as_deref() == Some(id)).then_some(())
        });
        assert_eq!(http::get(public, "/ready", "").status, 200);
        assert_eq!(log.text().contains("migrated: stream inbound_live: made"), index == 0, "{}", log.text());
        process.terminate();
        assert_eq!(process.wait_for_end(), Some(0), "{}", log.text());
    }
}

#[test]
fn in_production_it_wants_them_prepared() {
    let servers = Servers::start();
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary::wharf(&["up", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    command.args(["--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
    command.envs(servers.environment(&Servers::ALL));
    command.envs([("WHARF__BACKEND__KIND", "distributed"), ("WHARF_ADMIN_TOKEN", "a-token-of-sixteen-or-more")]);
    let refused: binary::Finished = command.output().unwrap().into();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("run `wharf migrate`"), "{refused:?}");
}
