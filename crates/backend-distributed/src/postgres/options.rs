//! From a URL to the options of a connection. No message here repeats what may be a piece of a password.

use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use crate::OpenError;

/// Parameters of the URL that the driver knows.
const KNOWN: [&str; 10] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "dbname",
    "user",
    "password",
    "statement-cache-capacity",
];

/// Limits of the server for each connection: nothing here takes long, and nobody waits for ever for somebody else.
const LIMITS: [(&str, &str); 3] =
    [("statement_timeout", "10s"), ("lock_timeout", "5s"), ("idle_in_transaction_session_timeout", "5s")];

/// Everything here looks rows up by key or reads an index in order. While PostgreSQL has not analysed a table (a fresh
/// database, a new week's partition, the time after a crash) it takes it for small and reads the whole of it instead,
/// which costs more the more there is. Plans are kept, so one that was made early stays.
const PLANS: [(&str, &str); 4] =
    [("enable_seqscan", "off"), ("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("jit", "off")];

/// Reads `postgres://…`, with `?schema=` (as Prisma spells it) for a schema other than `public`.
pub(super) fn parse(url: &str) -> Result<PgConnectOptions, OpenError> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut schema = None;
    let mut kept = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("schema", name)) => schema = Some(valid_schema(name)?),
            Some((name, _)) if KNOWN.contains(&name) => kept.push(parameter),
            _ => {
                return Err(unsuitable(&format!(
                    "has a parameter that is not known; known are schema, {}",
                    KNOWN.join(", ")
                )));
            }
        }
    }
    if !address.starts_with("postgres://") && !address.starts_with("postgresql://") {
        return Err(unsuitable("does not begin with postgres://"));
    }
    let url = if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    let options = PgConnectOptions::from_str(&url).map_err(|_| unsuitable("cannot be read"))?;
    let options = options.application_name("wharf").options(LIMITS).options(PLANS);
    Ok(match schema {
        Some(schema) => options.options([("search_path", format!("\"{schema}\""))]),
        None => options,
    })
}

fn valid_schema(name: &str) -> Result<&str, OpenError> {
    let valid = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if valid { Ok(name) } else { Err(unsuitable("names a schema with other characters than letters, digits, _ and -")) }
}

fn unsuitable(problem: &str) -> OpenError {
    OpenError::Unsuitable(format!(
        "the URL of PostgreSQL {problem} (example: postgres://user:password@host:5432/database; characters such as \
         @ / ? # in a password are written as %40 %2F %3F %23)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_becomes_the_search_path() {
        let options = parse("postgres://me:secret@db.example:5433/wharf?schema=my-own&sslmode=require").unwrap();
        assert_eq!((options.get_host(), options.get_port()), ("db.example", 5433));
        assert_eq!((options.get_username(), options.get_database()), ("me", Some("wharf")));
        assert!(options.get_options().unwrap().contains(r#"search_path="my-own""#), "{:?}", options.get_options());
        let options = parse("postgres://localhost/wharf").unwrap();
        let options = options.get_options().unwrap();
        assert!(options.contains("statement_timeout") && options.contains("enable_seqscan"), "{options}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_a_piece_of_the_password() {
        let urls = [
            "",
            "mysql://me:hunter2@db/wharf",
            "postgres://me:hunter2?hunter2@db/wharf",
            "postgres://me:hunter2#hunter2@db/wharf",
            "postgres://me:hunter2/hunter2@db/wharf",
            "postgres://me:hunter2@db:port/wharf",
            "postgres://me:hunter2@db/wharf?connection_limit=5",
            "postgres://me:hunter2@db/wharf?sslmode=hunter2",
            "postgres://me:hunter2@db/wharf?schema=a;b",
            "postgres://me:hunter2@db/wharf?schema=",
        ];
        for url in urls {
            let OpenError::Unsuitable(text) = parse(url).unwrap_err() else { panic!("{url}: unsuitable") };
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
