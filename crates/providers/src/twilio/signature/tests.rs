use proptest::prelude::*;

use super::*;

const FORM: &[u8] =
    b"Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE";
const URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const GATEWAY: &str = "https://gw.example.com/twilio/t1?x=1&y=two";
const GATEWAY_FORM: &str = "MessageSid=SM00000000000000000000000000000002&NumMedia=0&Body=h%C3%A9llo+%2B%26+&ButtonText=&\
                            From=whatsapp%3A%2B15551230000&AccountSid=AC00000000000000000000000000000001";

fn key(token: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes())
}

/// Whether the token `12345` signed this.
fn verifies(signature: &str, url: &str, signed: &Signed) -> bool {
    signed_by(&parse(signature.as_bytes()).unwrap(), url, signed, [((), &key("12345"))]).is_some()
}

/// The signature of exactly these bytes.
fn sign(data: &str) -> String {
    STANDARD.encode(hmac::sign(&key("12345"), data.as_bytes()))
}

fn address_verifies(signed: &str, asked: &str) -> bool {
    verifies(&sign(signed), asked, &Signed::address())
}

#[test]
fn the_published_vectors_verify() {
    assert!(verifies("RSOYDt4T1cUTdK1PDd93/VVr8B8=", URL, &Signed::form(FORM).unwrap()));
    let url = format!("{URL}&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620");
    let body = br#"{"property": "value", "boolean": true}"#;
    assert!(verifies("a9nBmqA0ju/hNViExpshrM61xv4=", &url, &Signed::body(body)));
}

#[test]
fn decoded_values_are_signed_with_their_spaces_and_empty_ones_by_their_names() {
    let form = Signed::form(GATEWAY_FORM.as_bytes()).unwrap();
    assert!(verifies("LJLokcjg9lz7qGI5vfrpj90yTo4=", GATEWAY, &form));
    let trimmed = Signed::form(GATEWAY_FORM.replace("%26+", "%26").as_bytes()).unwrap();
    assert!(!verifies("LJLokcjg9lz7qGI5vfrpj90yTo4=", GATEWAY, &trimmed));
}

#[test]
fn an_address_counts_with_and_without_its_standard_port() {
    let form = Signed::form(GATEWAY_FORM.as_bytes()).unwrap();
    let with_port = GATEWAY.replace(".com", ".com:443");
    for signature in ["DpoULM8e0JFznS7MsP/0dY3uJDA=", "LJLokcjg9lz7qGI5vfrpj90yTo4="] {
        assert!(verifies(signature, GATEWAY, &form) && verifies(signature, &with_port, &form), "{signature}");
    }
    for (signed, asked, counts) in [
        ("http://h/p", "http://h:80/p", true),
        ("http://h:80/p", "http://h/p", true),
        ("http://h:443/p", "http://h/p", false),
        ("https://h:8443/p", "https://h:8443/p", true),
        ("https://h/p", "https://h:8443/p", true),
        ("https://h:443/p", "https://h:8443/p", false),
        ("https://h:8443/p", "https://h/p", false),
        ("https://h:443", "https://h", true),
        ("https://h:443?a=1", "https://h?a=1", true),
        ("https://u:7@h:443/p", "https://u:7@h/p", true),
        ("https://u:7@h/p", "https://u:7@h:443/p", true),
        ("https://[2001:db8::1]:443/p", "https://[2001:db8::1]/p", true),
        ("https://[2001:db8::1]/p", "https://[2001:db8::1]:443/p", true),
        ("https://h/p", "https://h/p#rc=5&rp=all", true),
        ("https://h/p?a=b:443", "https://h/p?a=b:443", true),
        ("https://h/p", "https://h/P", false),
        ("https://h/p", "http://h/p", false),
        ("https://h/p", "https://i/p", false),
        ("other text", "other text", true),
    ] {
        assert_eq!(address_verifies(signed, asked), counts, "{signed} {asked}");
    }
}

#[test]
fn a_query_counts_as_it_came_and_encoded_again() {
    for (signed, asked, counts) in [
        ("https://h/p?a=it's", "https://h/p?a=it's", true),
        ("https://h/p?a=it's", "https://h/p?a=it%27s", true),
        ("https://h/p?a=it%27s", "https://h/p?a=it%27s", true),
        ("https://h/p?a=it%27s", "https://h/p?a=it's", false),
        ("https://h:443/p?a=b%20c&d=", "https://h/p?a=b+c&d", true),
        ("https://h/p?a=%C3%A4%2F", "https://h/p?a=%c3%a4/", true),
        ("https://h/p?a=b%20c", "https://h/p?a=b%2520c", false),
    ] {
        assert_eq!(address_verifies(signed, asked), counts, "{signed} {asked}");
    }
    assert!(spellings("https://h/p?a=it%27s").len() == 4 && spellings("https://h/p").len() == 2);
}

#[test]
fn another_body_needs_its_hash_in_the_query() {
    let url =
        "https://gw.example.com/twilio/t1?bodySHA256=015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862";
    let signature = "ogKj6tNFRn+V8cRieyEHnqcRR48=";
    assert!(verifies(signature, url, &Signed::body(br#"{"a":1}"#)));
    assert!(!verifies(signature, url, &Signed::body(br#"{"a":2}"#)));
    for query in
        ["", "?bodySHA256=", "?bodySHA256", "?bodysha256=HASH", "?bodySHA256=HASH&bodySHA256=HASH", "?bodySHA256=HASH0"]
    {
        let url = format!("https://gw.example.com/t{}", query.replace("HASH", &url[url.len() - 64..]));
        assert!(!verifies(&sign(&url), &url, &Signed::body(br#"{"a":1}"#)), "{query}");
        assert!(verifies(&sign(&url), &url, &Signed::address()), "{query}");
    }
}

#[test]
fn parameters_are_sorted_by_bytes_and_equal_ones_count_once() {
    for (form, signed) in [
        ("b=2&a=1&B=3", "B3a1b2"),
        ("a=2&a=1&a=2", "a1a2"),
        ("ab=1&a=b1", "ab1ab1"),
        ("%C3%A4=1&z=2", "z2ä1"),
        ("", ""),
    ] {
        let form = Signed::form(form.as_bytes()).unwrap();
        assert!(verifies(&sign(&format!("https://h/p{signed}")), "https://h/p", &form), "{signed}");
    }
    let raw = Signed::form(b"a=%ff").unwrap();
    let tag = hmac::sign(&key("12345"), b"https://h/pa\xff");
    assert!(verifies(&STANDARD.encode(tag), "https://h/p", &raw));
}

#[test]
fn refuses_more_than_a_thousand_parameters() {
    assert!(Signed::form("a=1&".repeat(1000).as_bytes()).is_ok());
    assert_eq!(Signed::form("a=1&".repeat(1001).as_bytes()).err(), Some(TooManyParameters));
}

#[test]
fn tells_which_token_signed() {
    let form = Signed::form(FORM).unwrap();
    let tag = parse(b"RSOYDt4T1cUTdK1PDd93/VVr8B8=").unwrap();
    let (old, new) = (key("54321"), key("12345"));
    assert_eq!(signed_by(&tag, URL, &form, [("old", &old), ("new", &new)]), Some("new"));
    assert_eq!(signed_by(&tag, URL, &form, [("old", &old)]), None);
    assert_eq!(signed_by::<()>(&tag, URL, &form, []), None);
}

#[test]
fn the_content_type_says_what_is_signed() {
    for form in ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded ; charset=utf-8"] {
        assert!(is_form(form), "{form}");
        let signed = Signed::by_content_type(Some(form), FORM).unwrap();
        assert!(verifies("RSOYDt4T1cUTdK1PDd93/VVr8B8=", URL, &signed));
    }
    for other in [None, Some(""), Some("application/json"), Some("application/x-www-form-urlencoded-2")] {
        let signed = Signed::by_content_type(other, FORM).unwrap();
        assert!(!verifies("RSOYDt4T1cUTdK1PDd93/VVr8B8=", URL, &signed), "{other:?}");
    }
}

#[test]
fn refuses_headers_of_another_shape() {
    assert_eq!(parse(b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="), Ok([0; 20]));
    for bad in [
        "",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "AAAAAAAAAAAAAAAAAAAAAAAAAA==",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        " AAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAB=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAA_=",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAA=AAAA",
    ] {
        assert_eq!(parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_and_tries_four_spellings_at_most(url in "\\PC{0,60}", odd in "(https?://)?[a@:/\\[\\]?#&=%0]{0,20}", body in prop::collection::vec(any::<u8>(), 0..80)) {
        for url in [&*url, &*odd] {
            prop_assert!((1..=4).contains(&spellings(url).len()));
            for signed in [Signed::form(&body).unwrap(), Signed::body(&body), Signed::address()] {
                prop_assert!(signed_by(&[0; 20], url, &signed, [((), &key("12345"))]).is_none());
            }
        }
    }

    #[test]
    fn what_was_signed_verifies(url in "https://[a-z]{1,5}(/[a-z%']{0,5})?(\\?[a-z=&%']{0,9})?", parameters in prop::collection::btree_map("[A-Za-z]{1,6}", "\\PC{0,9}", 0..6)) {
        let mut form = String::new();
        let mut signed = url.clone();
        for (name, value) in &parameters {
            encode(&mut form, name.as_bytes());
            form.push('=');
            encode(&mut form, value.as_bytes());
            form.push('&');
            signed.push_str(name);
            signed.push_str(value);
        }
        prop_assert!(verifies(&sign(&signed), &url, &Signed::form(form.as_bytes()).unwrap()));
    }
}
