//! Writes signed webhooks to a file as whole HTTP requests, so that a load generator needs no time for making them.
//! `scripts/bench-distributed` sends the same file to two gateways.
//!
//! `signed_requests FILE HOST PATH SECRET COUNT SENDERS SEED WABA:NUMBER[,…]`: each request is preceded by its length as
//! eight decimal digits. One update each, 25 % messages and 75 % statuses.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use simulator::{Generator, Traffic};

#[expect(clippy::disallowed_methods, reason = "a tool that no test turns the time of")]
fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, host, path, secret, count, senders, seed, numbers] = arguments.as_slice() else {
        return Err("usage: signed_requests FILE HOST PATH SECRET COUNT SENDERS SEED WABA:NUMBER[,…]".into());
    };
    let traffic = Traffic {
        seed: seed.parse()?,
        count: count.parse()?,
        numbers: numbers.split(',').map(str::parse).collect::<Result<_, _>>()?,
        senders: senders.parse()?,
        start_time: i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?,
        ..Traffic::default()
    };
    let mut file = BufWriter::with_capacity(1 << 20, File::create(file)?);
    let mut request = Vec::new();
    for webhook in Generator::new(traffic, secret) {
        request.clear();
        write!(
            request,
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nuser-agent: facebookexternalua\r\n\
             x-hub-signature-256: {}\r\ncontent-length: {}\r\n\r\n",
            webhook.signature,
            webhook.body.len()
        )?;
        request.extend_from_slice(&webhook.body);
        write!(file, "{:08}", request.len())?;
        file.write_all(&request)?;
    }
    file.flush()?;
    Ok(())
}
