//! The GET by which Meta verifies an address.

use crate::http::get;
use crate::meta::VERIFY_TOKEN;
use crate::wharf::Setup;

#[test]
fn the_challenge_is_repeated_for_the_right_token_only() {
    let wharf = Setup::new().without_limits().start();
    let good = format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=1158201444");
    let table: [(String, Option<&str>); 18] = [
        (good.clone(), Some("1158201444")),
        (format!("hub.challenge=a%20b&hub.verify_token={VERIFY_TOKEN}&hub.mode=subscribe"), Some("a b")),
        (format!("{good}&more=1"), Some("1158201444")),
        (format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=%3Cb%3E"), Some("<b>")),
        (
            format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}&hub.challenge=1%0D%0ASet-Cookie:%20a=b"),
            Some("1\r\nSet-Cookie: a=b"),
        ),
        (format!("hub%2Emode=subscribe&hub.verify%5Ftoken={VERIFY_TOKEN}&hub.challenge=7"), Some("7")),
        (good.replace(VERIFY_TOKEN, "wrong"), None),
        (good.replace(VERIFY_TOKEN, &VERIFY_TOKEN[1..]), None),
        (good.replace(VERIFY_TOKEN, &format!("{VERIFY_TOKEN}0")), None),
        (good.replace(VERIFY_TOKEN, &VERIFY_TOKEN.to_uppercase()), None),
        (good.replace(VERIFY_TOKEN, ""), None),
        (good.replace("mode=subscribe", "mode=unsubscribe"), None),
        (good.replace("hub.mode=subscribe&", ""), None),
        (good.replace("&hub.challenge=1158201444", ""), None),
        (good.replace("1158201444", ""), None),
        (good.replace(&format!("&hub.verify_token={VERIFY_TOKEN}"), ""), None),
        (format!("{good}&hub.verify_token=wrong"), None),
        (String::new(), None),
    ];
    for path in ["/webhooks/meta", "/webhooks/meta/default", "/webhook"] {
        for (query, challenge) in &table {
            let answer = get(wharf.public(), &format!("{path}?{query}"), "");
            assert_eq!(answer.header("set-cookie"), None);
            if let Some(challenge) = challenge {
                assert_eq!((answer.status, answer.text()), (200, *challenge), "{path}?{query}");
                assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
            } else {
                assert_eq!(answer.status, 403, "{path}?{query}");
                assert!(!answer.text().contains("1158201444"), "{answer:?}");
            }
        }
        assert_eq!(get(wharf.public(), path, "").status, 403, "{path} without a query");
    }
    for path in ["/webhooks/meta/other", "/webhooks/meta/DEFAULT", "/webhooks/meta/_", "/webhooks/meta/%00"] {
        assert_eq!(get(wharf.public(), &format!("{path}?{good}"), "").status, 403, "{path} is no app's");
    }
    assert!(!wharf.log().contains(VERIFY_TOKEN), "a token is not logged, right or wrong");
}
