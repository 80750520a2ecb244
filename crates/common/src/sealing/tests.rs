use super::*;
use crate::clock::Timestamp;
use crate::envelope::{Disposition, Lane, ParkReason, decode};
use crate::ids::{AppId, NumberId, RequestId, TenantId};
use crate::update::Provider;
use uuid::Uuid;

fn header() -> Header {
    Header {
        id: EnvelopeId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001)),
        request: RequestId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002)),
        provider: Provider::Meta,
        app: AppId::new("main").unwrap(),
        tenant: TenantId::new("acme").unwrap(),
        number: Some(NumberId::new("777000111222333").unwrap()),
        received_at: Timestamp::from_millis(1_795_000_000_123),
        disposition: Disposition::Parked(ParkReason::Throttled),
        lane: Lane::Live,
        source_ip: "192.0.2.1".parse().unwrap(),
        body_sha256: "00".repeat(32),
        key: "k1".into(),
        packing: Packing::Plain,
        size: 0,
        updates: 1,
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap(),
        delivery: None,
    }
}

fn key() -> DataKey {
    DataKey::from_secret("k1", [9; 32])
}

#[test]
fn opens_what_it_sealed_small_and_large() {
    for size in [0, 1, 1024, 1025, 3 << 20] {
        let payload: Vec<u8> = (0..size).map(|i| u8::try_from(i % 61).unwrap() + b' ').collect();
        let envelope = seal(header(), &payload, &key());
        let parts = decode(&envelope).unwrap();
        assert_eq!(parts.header.packing, if size > 1024 { Packing::Zstd } else { Packing::Plain });
        assert_eq!(open(&parts, &key()).unwrap(), payload);
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let envelope = seal(header(), b"{\"a\":1}", &key());
    for index in 0..envelope.len() {
        let mut changed = envelope.clone();
        changed[index] ^= 1;
        let opened = decode(&changed).map_err(OpenError::from).and_then(|parts| open(&parts, &key()));
        assert!(opened.is_err(), "byte {index}");
    }
}

#[test]
fn another_tenants_key_does_not_open_it() {
    let envelope = seal(header(), b"secret", &key());
    let other = DataKey::from_secret("k1", [8; 32]);
    assert_eq!(open(&decode(&envelope).unwrap(), &other), Err(OpenError::NotAuthentic));
}

#[test]
fn equal_payloads_seal_to_different_bytes() {
    let first = seal(header(), b"same", &key());
    let second = seal(header(), b"same", &key());
    assert_ne!(first, second);
}

/// Frozen in version 1: software of every later version opens these bytes.
#[test]
fn the_frozen_envelopes_of_version_1_open() {
    for (name, payload) in [("plain", &b"{\"object\":\"whatsapp_business_account\"}"[..]), ("zstd", &[b'w'; 2048][..])]
    {
        let path = format!("{}/fixtures/envelope-v1-{name}.hex", env!("CARGO_MANIFEST_DIR"));
        let frozen = hex::decode(std::fs::read_to_string(&path).unwrap().trim()).unwrap();
        let parts = decode(&frozen).unwrap();
        assert_eq!(parts.header.tenant.as_str(), "acme");
        assert_eq!(parts.header.disposition, Disposition::Parked(ParkReason::Throttled));
        assert_eq!(open(&parts, &key()).unwrap(), payload, "{name}");
    }
}

/// Frozen too: what today's software writes with a fixed nonce is byte for byte what version 1 wrote.
#[test]
fn version_1_is_still_written_as_it_was() {
    let mut fixed = header();
    fixed.size = 38;
    let payload = b"{\"object\":\"whatsapp_business_account\"}";
    let written = hex::encode(seal_packed(&fixed, payload, &key(), [3; 12]));
    let path = format!("{}/fixtures/envelope-v1-plain.hex", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(written, std::fs::read_to_string(&path).unwrap_or_default().trim(), "frozen file: {path}");
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut envelope = seal(header(), b"x", &key());
    envelope[4] = 2;
    assert_eq!(decode(&envelope), Err(EnvelopeError::UnknownVersion(2)));
    assert!(matches!(decode(b"WHRF\x01\xff\xff\xff\xff{}"), Err(EnvelopeError::Corrupt(_))));
    assert!(matches!(decode(b""), Err(EnvelopeError::Corrupt(_))));
}
