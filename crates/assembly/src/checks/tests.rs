use std::collections::BTreeMap;

use common::TenantId;
use common::directory::{App, Entry, Tenant};
use common::update::Provider;

use super::*;
use crate::config::{self, Purpose};
use crate::jobs::Jobs;

fn config_in(folder: &Path, more: &[(&str, &str)]) -> Config {
    let pairs = [("WHARF_DATA_DIR", folder.to_str().unwrap())];
    let environment: BTreeMap<String, String> =
        pairs.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    config::load(None, &environment, &[], Purpose::Run(Jobs::All)).config.unwrap()
}

fn grades(findings: &[Finding]) -> Vec<(&'static str, Grade)> {
    findings.iter().map(|finding| (finding.subject, finding.grade)).collect()
}

#[tokio::test]
async fn nothing_is_there_before_the_first_start_and_nothing_is_made() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("data");
    let findings = check(&config_in(&folder, &[])).await;
    let expected = [("data folder", Grade::Warning), ("keys", Grade::Warning), ("secrets", Grade::Failed)];
    assert_eq!(grades(&findings), expected, "{findings:#?}");
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_good_data_folder_is_told_from_one_with_other_keys_or_none() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let (keys, _) = KeyFile::open_or_create(&path.join("master.keys")).unwrap();
    {
        let folder = DataFolder::lock(path).unwrap();
        let databases = Embedded::open(&folder, &path.join("messages.db"), Arc::new(SystemClock)).await.unwrap();
        let ring = keys.ring();
        let tenant = Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring));
        let id = common::AppId::new("default").unwrap();
        let app = Entry::App(App::create(id, Provider::Meta, &["secret"], &["token"], &ring));
        databases.directory.write(vec![tenant, app], 0).await.unwrap();
        databases.close().await;
    }
    let config = config_in(path, &[]);
    let good = [("data folder", Grade::Ok), ("keys", Grade::Ok), ("secrets", Grade::Ok)];
    let findings = check(&config).await;
    assert_eq!(grades(&findings), good, "{findings:#?}");

    let in_use = DataFolder::lock(path).unwrap();
    let findings = check(&config).await;
    assert_eq!(grades(&findings)[..2], good[..2], "{findings:#?}");
    assert_eq!(findings[2].grade, Grade::Warning, "{findings:#?}");
    drop(in_use);

    std::fs::write(path.join("master.keys"), KeyRing::generate_file("m2")).unwrap();
    let findings = check(&config).await;
    assert_eq!(findings[1].grade, Grade::Failed, "{findings:#?}");
    std::fs::remove_file(path.join("master.keys")).unwrap();
    let findings = check(&config).await;
    assert!(findings[1].text.contains("put the copy back"), "{findings:#?}");
}

#[tokio::test]
async fn a_key_file_that_others_can_read_is_a_warning() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("keys");
    std::fs::write(&path, KeyRing::generate_file("m1")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let findings = check(&config_in(temporary.path(), &[("WHARF__KEYS__FILE", path.to_str().unwrap())])).await;
    assert_eq!(findings[1].grade, Grade::Warning, "{findings:#?}");
    assert!(findings[1].text.contains("chmod 600"), "{findings:#?}");
}

#[test]
fn a_stream_that_lags_behind_the_database_is_a_finding() {
    let ring = KeyRing::parse(&KeyRing::generate_file("m1")).unwrap();
    let entry = Entry::Tenant(Tenant::create(TenantId::unassigned(), None, &ring));
    let written = Directory { revision: 2, entries: BTreeMap::from([(entry.key(), entry)]) };
    let empty = Directory::default();
    assert_eq!(compare(&written, &written).grade, Grade::Ok);
    assert_eq!(compare(&empty, &written).grade, Grade::Failed);
}

#[test]
fn a_cause_that_an_error_repeats_is_said_once() {
    let innermost = std::io::Error::other("connection refused");
    let repeating =
        std::io::Error::other(anyhow::Error::new(innermost).context("io: connection refused").into_boxed_dyn_error());
    let error = ports::Unavailable::new("NATS", repeating);
    assert_eq!(chain(&error), "NATS is unavailable: io: connection refused");
}

#[test]
fn a_clock_is_said_with_the_server_that_it_is_of() {
    let mut findings = Vec::new();
    for server in ["NATS", "PostgreSQL"] {
        clock(server, Some(SystemClock.now()), &mut findings);
    }
    assert!(findings[0].text.contains("NATS") && findings[1].text.contains("PostgreSQL"), "{findings:#?}");
}
