//! The data folder of `wharf up`, which is one process' alone.

use crate::binary::run;
use crate::meta;
use crate::wharf::Setup;

#[test]
fn a_folder_in_use_is_left_alone() {
    let setup = Setup::new();
    let data = setup.data();
    let folder = data.to_str().unwrap();
    let migrated = run(&["migrate", "--data-dir", folder], &[]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.stdout.contains("up to date"), "{migrated:?}");
    let again = run(&["migrate", "--data-dir", folder], &[]);
    assert_eq!(again.code, Some(0), "{again:?}");

    let wharf = setup.start();
    meta::accepted(wharf.public(), &meta::messages(&[meta::text("wamid.A", "hello")]));
    let second = wharf.setup().fail_to_start();
    let migrate = run(&["migrate", "--data-dir", folder], &[]);
    for refused in [second, migrate] {
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let advice = "in use by another wharf process; talk to it through its API, or choose another --data-dir";
        assert!(refused.stderr.contains(advice), "{refused:?}");
    }
    wharf.wait_for_message("wamid.A");
}
