//! A whole installation: the three servers, and two gateways, three normalizers and an API as processes of their own,
//! with three tenants in the directory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use test_servers::{Nats, Postgres, Redis};

use crate::disk::Disk;
use crate::http;
use crate::job::Job;
use crate::{binaries, load};

/// Where webhooks go.
pub(crate) const PATH: &str = "/webhooks/meta";
/// The secret of the app.
pub(crate) const APP_SECRET: &str = "chaos-app-secret-0123456789abcdef";
/// The token of the API.
pub(crate) const TOKEN: &str = "chaos-admin-token-0123456789abcdef";

/// As Wharf demands it, on a disk of our own. The limit is only there because the server would take three quarters of a
/// small disk, and then reserve no room for streams that may become larger.
const NATS: &str = r#"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
max_payload: 8MB
jetstream {
    store_dir: "{disk}"
    sync_interval: always
    max_file_store: 64GB
}
"#;

/// Fields are dropped in this order: processes, then servers, then what they stand on.
pub(crate) struct Installation {
    pub(crate) gateways: Vec<Job>,
    pub(crate) normalizers: Vec<Job>,
    pub(crate) api: Job,
    pub(crate) nats: Nats,
    pub(crate) redis: Redis,
    pub(crate) postgres: Postgres,
    pub(crate) disk: Disk,
    folder: TempDir,
}

impl Installation {
    /// Starts everything, in the order of the manual.
    pub(crate) fn start(disk_megabytes: u64) -> Self {
        let programs = binaries::folder();
        let folder = tempfile::Builder::new().prefix("wharf-chaos-").tempdir().unwrap();
        let disk = Disk::new(folder.path(), disk_megabytes);
        let nats = Nats::start_with(&NATS.replace("{disk}", disk.folder().to_str().unwrap()));
        let (redis, postgres) = (Redis::start(), Postgres::start());

        let path = |name: &str| folder.path().join(name).display().to_string();
        let environment: Vec<_> = [
            ("WHARF__NATS__URL", nats.url()),
            ("WHARF__NATS__MONITOR_URL", nats.monitor_url()),
            ("WHARF__REDIS__URL", redis.url()),
            ("WHARF__POSTGRES__URL", postgres.url()),
            ("WHARF__POSTGRES__MAX_CONNECTIONS", "8".to_owned()),
            ("WHARF__KEYS__FILE", path("master.keys")),
            ("WHARF__BLOBS__FOLDER", path("blobs")),
            ("WHARF__BACKEND__KIND", "distributed".to_owned()),
            // What a killed normalizer held comes again soon.
            ("WHARF__NORMALIZER__ACK_WAIT_SECONDS", "5".to_owned()),
            ("WHARF__INGRESS__GLOBAL_LIMIT_PER_SECOND", "1000000".to_owned()),
            ("WHARF__INGRESS__PER_IP_LIMIT_PER_SECOND", "1000000".to_owned()),
            ("WEBHOOK_RATE_LIMIT_MAX", "1000000".to_owned()),
            ("WHARF_DATA_DIR", path("data")),
            ("WHARF_ADMIN_TOKEN", TOKEN.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let migrated =
            Command::new(programs.join("wharf")).arg("migrate").env_clear().envs(environment.clone()).output();
        let migrated = migrated.unwrap();
        assert!(migrated.status.success(), "wharf migrate: {migrated:?}");

        let job = |name: &str, program: &str| {
            Job::new(name, programs.join(program), environment.clone(), folder.path().join(format!("{name}.log")))
        };
        let mut installation = Self {
            gateways: (1..=2).map(|at| job(&format!("gateway-{at}"), "gateway")).collect(),
            normalizers: (1..=3).map(|at| job(&format!("normalizer-{at}"), "normalizer")).collect(),
            api: job("api", "api"),
            nats,
            redis,
            postgres,
            disk,
            folder,
        };
        installation.api.start();
        installation.import();
        for job in installation.normalizers.iter_mut().chain(&mut installation.gateways) {
            job.start();
        }
        installation
    }

    /// Registers tenants and numbers.
    fn import(&self) {
        let numbers = load::numbers();
        let row = |(tenant, number): &(&str, simulator::Number)| json!({"phone_number_id": number.phone_number_id, "waba_id": number.waba_id, "app": "chaos", "tenant": tenant});
        let tenants: BTreeSet<_> = numbers.iter().map(|(tenant, _)| *tenant).collect();
        let document = json!({
            "tenants": tenants.iter().map(|id| json!({"id": id})).collect::<Vec<_>>(),
            "apps": [{"id": "chaos", "secrets": [APP_SECRET], "verify_tokens": ["chaos-verify-token-0123456789"]}],
            "numbers": numbers.iter().map(row).collect::<Vec<_>>(),
        });
        let headers = format!("Authorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n");
        let body = document.to_string();
        let answer = http::exchange(self.api.address(), "POST", "/v1/directory/import", &headers, body.as_bytes());
        let answer = answer.expect("an answer of the API");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// Where webhooks are taken.
    pub(crate) fn public(&self) -> Vec<SocketAddr> {
        self.gateways.iter().map(Job::address).collect()
    }

    /// All processes.
    pub(crate) fn jobs(&mut self) -> impl Iterator<Item = &mut Job> {
        self.gateways.iter_mut().chain(&mut self.normalizers).chain([&mut self.api])
    }

    /// Stops all processes as an operator does; none may have panicked. Returns their warnings and errors, each with the
    /// number of times.
    pub(crate) fn stop(&mut self) -> BTreeMap<String, usize> {
        let mut said = BTreeMap::new();
        for job in self.jobs() {
            job.stop();
            let log = job.log();
            assert!(!log.contains("panicked at"), "{} panicked:\n{log}", job.name);
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            for line in lines.filter(|line| ["WARN", "ERROR"].contains(&line["level"].as_str().unwrap_or_default())) {
                let kind = job.name.split('-').next().unwrap_or_default();
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                *said.entry(format!("{} {kind}: {}", text("level"), text("message"))).or_insert(0) += 1;
            }
        }
        said
    }

    /// Leaves the logs for whoever looks for the cause of a failure.
    fn keep_logs(&mut self) -> PathBuf {
        let _ = std::fs::write(self.folder.path().join("nats.log"), self.nats.log());
        let _ = std::fs::write(self.folder.path().join("postgres.log"), self.postgres.log());
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the logs are in {}", self.keep_logs().display());
        }
    }
}
