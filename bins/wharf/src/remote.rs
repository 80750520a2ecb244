//! The API of a running Wharf, as the commands of operators speak to it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

/// Where the API is, and with what to come.
#[derive(Clone, Debug, Args)]
pub(crate) struct Endpoint {
    /// The API of the running Wharf
    #[arg(long, global = true, env = "WHARF_API_URL", default_value = "http://127.0.0.1:8081", value_name = "URL")]
    api_url: String,
    /// The API's token; without it the file admin.token in the data folder is read
    #[arg(long, global = true, env = "WHARF_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The data folder of the running Wharf, for its token
    #[arg(long, global = true, env = "WHARF_DATA_DIR", default_value = "wharf-data", value_name = "FOLDER")]
    data_dir: PathBuf,
}

/// The same for a command that shows what the API answers.
#[derive(Clone, Debug, Args)]
pub(crate) struct Remote {
    #[command(flatten)]
    api: Endpoint,
    /// Print the API's answer as JSON
    #[arg(long, global = true)]
    json: bool,
}

/// An answer that is none of success.
#[derive(Debug)]
pub(crate) struct Refused(Value, reqwest::StatusCode);

impl Endpoint {
    fn token(&self) -> anyhow::Result<String> {
        if let Some(token) = self.token.as_ref().filter(|token| !token.is_empty()) {
            return Ok(token.clone());
        }
        let path = self.data_dir.join("admin.token");
        let read = std::fs::read_to_string(&path);
        Ok(read.with_context(|| format!("no --token, and {} cannot be read", path.display()))?.trim().to_owned())
    }

    /// Asks; the answer's JSON (null if it is empty), or why it was refused.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Result<Value, Refused>> {
        let client = reqwest::Client::builder().build().context("cannot make an HTTP client")?;
        let url = format!("{}{path}", self.api_url.trim_end_matches('/'));
        let mut request = client.request(method, &url).bearer_auth(self.token()?);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| {
            format!(
                "cannot reach the API at {}; is it running? (--api-url or WHARF_API_URL names another)",
                self.api_url
            )
        })?;
        let status = response.status();
        let answer: Value = response.json().await.unwrap_or_default();
        Ok(if status.is_success() { Ok(answer) } else { Err(Refused(answer, status)) })
    }

    /// The entries of all pages of a list.
    async fn pages(&self, path: &str, on: &str) -> anyhow::Result<Result<Vec<Value>, Refused>> {
        let (mut all, mut page) = (Vec::new(), path.to_owned());
        loop {
            let mut answer = match self.ask(Method::GET, &page, None).await? {
                Ok(answer) => answer,
                Err(refused) => return Ok(Err(refused)),
            };
            if let Some(Value::Array(data)) = answer.get_mut("data") {
                all.append(data);
            }
            match answer["next"].as_str() {
                Some(next) => page = format!("{path}&{on}={}", value_part(next)),
                None => return Ok(Ok(all)),
            }
        }
    }

    /// Whether a path is served to this token.
    pub(crate) async fn serves(&self, path: &str) -> anyhow::Result<bool> {
        let client = reqwest::Client::builder().build().context("cannot make an HTTP client")?;
        let url = format!("{}{path}", self.api_url.trim_end_matches('/'));
        let response = client.get(&url).bearer_auth(self.token()?).send().await;
        let response = response.with_context(|| format!("cannot reach the API at {}", self.api_url))?;
        Ok(response.status().is_success())
    }
}

impl Remote {
    /// Asks, and shows the answer with `show`, or as JSON if that is wanted.
    pub(crate) async fn run(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        show: impl FnOnce(&Value) -> String,
    ) -> anyhow::Result<ExitCode> {
        match self.api.ask(method, path, body.as_ref()).await? {
            Ok(answer) => {
                self.print(&answer, show)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(refused) => Ok(refused.report()),
        }
    }

    /// Asks for a list with a limit page by page, to its end, and shows all of it; `on` is the parameter that goes on.
    pub(crate) async fn list(
        &self,
        path: &str,
        on: &str,
        show: impl FnOnce(&Value) -> String,
    ) -> anyhow::Result<ExitCode> {
        match self.api.pages(path, on).await? {
            Ok(all) => {
                self.print(&json!({ "data": all }), show)?;
                Ok(ExitCode::SUCCESS)
            }
            Err(refused) => Ok(refused.report()),
        }
    }

    fn print(&self, answer: &Value, show: impl FnOnce(&Value) -> String) -> anyhow::Result<()> {
        let text = if self.json { format!("{answer:#}") } else { show(answer) };
        match writeln!(std::io::stdout(), "{}", text.trim_end()) {
            // Who has read enough may close its end.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot write the answer"),
        }
    }
}

impl Refused {
    /// Says what was wrong.
    #[expect(clippy::print_stderr, reason = "the command line speaks to a person")]
    pub(crate) fn report(&self) -> ExitCode {
        let Self(body, status) = self;
        eprintln!("error: refused with {status}");
        for problem in body["errors"].as_array().into_iter().flatten() {
            eprintln!("  {}: {}", text(&problem["field"]), text(&problem["message"]));
        }
        if body["errors"].is_null() {
            let said = body["detail"].as_str().or(body["title"].as_str());
            eprintln!("  {}", said.unwrap_or("no explanation"));
        }
        ExitCode::FAILURE
    }
}

/// Entries of one page of a list that is shown whole.
pub(crate) const PAGE: u32 = 1000;

/// A value as a person reads it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows under a head, in columns as wide as they must be.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "none".to_owned();
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(&mut row.iter().map(String::as_str)));
    std::iter::once(line(&mut head.iter().copied())).chain(body).collect::<Vec<_>>().join("\n")
}

/// The rows of a list that the API answers: of each entry these columns.
pub(crate) fn rows(answer: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let row = |each: &Value| columns.iter().map(|column| text(&each[*column])).collect();
    answer["data"].as_array().into_iter().flatten().map(row).collect()
}

/// The path of a list, so many entries of it, and of the filters those that are given.
pub(crate) fn filtered<const N: usize>(path: &str, limit: u32, filters: [(&str, Option<String>); N]) -> String {
    let given = filters.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", value_part(&value?))));
    format!("{path}?limit={limit}{}", given.collect::<String>())
}

/// A value in a query, where `+` would be a space.
pub(crate) fn value_part(text: &str) -> String {
    part(text).replace('+', "%2B")
}

/// One part of a path, from what a person typed.
pub(crate) fn part(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~+:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["bbb".to_owned(), "c".to_owned()]];
        assert_eq!(table(&["id", "name"], &rows), "id   name\na    long cell\nbbb  c");
        assert_eq!(table(&["id"], &[]), "none");
    }

    #[test]
    fn what_a_person_types_stays_one_part_of_the_path() {
        assert_eq!(part("acme-1"), "acme-1");
        assert_eq!(part("../x?y"), "..%2Fx%3Fy");
        let filters = [("from", Some("+49 1".to_owned())), ("since", None), ("id", Some("a/b+c=&d".to_owned()))];
        assert_eq!(filtered("/x", 5, filters), "/x?limit=5&from=%2B49%201&id=a%2Fb%2Bc%3D%26d");
    }
}
