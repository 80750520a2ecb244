//! WhatsApp message ids with the inner form of real ones: `wamid.` and base64 of a small record with the
//! person's address, the direction and a serial number, mostly as hex digits, sometimes as bytes. The form
//! matters because the latter bring `/` and `+` into ids. Receivers must treat them as opaque.

use base64::{Engine as _, engine::general_purpose::STANDARD};

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

#[derive(Clone, Copy)]
pub(super) enum Direction {
    Inbound,
    Outbound,
}

/// The id of message `serial` with a person at `address` (at most 32 bytes). Distinct serials give
/// distinct ids.
pub(super) fn wamid(direction: Direction, address: &str, serial: u64) -> String {
    let mut record = [0_u8; 64];
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        record[len..len + bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    let tag = match direction {
        Direction::Inbound => 0x12,
        Direction::Outbound => 0x11,
    };
    let address = &address.as_bytes()[..address.len().min(32)];
    put(&[0x1c, 0x18, u8::try_from(address.len()).unwrap_or_default()]);
    put(address);
    put(&[0x15, 0x02, 0x00, tag, 0x18]);
    if serial.is_multiple_of(4) {
        put(&[16]);
        put(&serial.to_be_bytes());
        put(&(!serial).to_le_bytes());
    } else {
        put(&[20]);
        put(b"3EB0");
        for shift in (0..16).rev() {
            put(&[DIGITS[(serial >> (shift * 4) & 15) as usize]]);
        }
    }
    put(&[0]);
    let mut id = String::with_capacity(96);
    id.push_str("wamid.");
    STANDARD.encode_string(&record[..len], &mut id);
    id
}

#[cfg(test)]
mod tests {
    use super::{Direction, wamid};

    #[test]
    fn looks_like_a_real_one() {
        let id = wamid(Direction::Inbound, "351910000001", 0xab);
        assert!(id.starts_with("wamid.HBgMMzUxOTEwMDAwMDAxFQIAEhgU"), "{id}");
        let id = wamid(Direction::Outbound, "351910000001", 0xab);
        assert!(id.starts_with("wamid.HBgMMzUxOTEwMDAwMDAxFQIAERgU"), "{id}");
    }
}
