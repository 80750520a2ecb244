//! Where the configuration comes from, and what a process says if it cannot be had.

use crate::meta::{self, SECRET, VERIFY_TOKEN};
use crate::wharf::Setup;

#[test]
fn an_address_in_use_is_named() {
    let wharf = Setup::new().start();
    let address = wharf.public();
    let failed = Setup::new().listen(address).fail_to_start();
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
