//! Asks Meta what the app subscribes to.
//!
//! An app that does not subscribe to `messages` gets no webhook, and nothing on our side shows it. The app's own token
//! travels in a header, never in the address, and nowhere but to the configured Graph API.

use std::time::Duration;

use anyhow::Context as _;
use assembly::checks::Finding;
use reqwest::StatusCode;
use serde::Deserialize;

/// The object of WhatsApp among an app's subscriptions.
const OBJECT: &str = "whatsapp_business_account";
/// The field without which there are no messages and no statuses.
const FIELD: &str = "messages";
const SUBJECT: &str = "subscription";
/// How long Meta has to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Subscriptions {
    data: Vec<Subscription>,
}

#[derive(Deserialize)]
struct Subscription {
    object: String,
    #[serde(default)]
    active: bool,
    #[serde(default)]
    callback_url: Option<String>,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
}

/// Asks with the app's token, made of its id and secret.
pub(crate) async fn check(base_url: &str, app_id: &str, secret: Option<&str>) -> Finding {
    if app_id.is_empty() {
        return Finding::warning(SUBJECT, "not checked: set meta.app_id (WHATSAPP_APP_ID)");
    }
    let Some(secret) = secret else {
        return Finding::warning(SUBJECT, "not checked: it needs the app's secret (WHATSAPP_APP_SECRET)");
    };
    match ask(base_url, app_id, secret).await {
        Ok((status, body)) if status.is_success() => judge(&body),
        Ok((StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => Finding::failed(
            SUBJECT,
            "Meta refuses the app's id and secret; compare WHATSAPP_APP_ID and WHATSAPP_APP_SECRET with App settings > \
             Basic",
        ),
        Ok((status, _)) => Finding::warning(SUBJECT, format!("not known: Meta answers {status}")),
        Err(error) => Finding::warning(SUBJECT, format!("not known: {error:#}")),
    }
}

async fn ask(base_url: &str, app_id: &str, secret: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("cannot make an HTTP client")?;
    let url = format!("{}/{app_id}/subscriptions", base_url.trim_end_matches('/'));
    let request = client.get(&url).bearer_auth(format!("{app_id}|{secret}"));
    let response = request.send().await.map_err(reqwest::Error::without_url).context("Meta is not reached")?;
    let status = response.status();
    let body = response.bytes().await.map_err(reqwest::Error::without_url).context("the answer broke off")?;
    Ok((status, body.to_vec()))
}

fn judge(body: &[u8]) -> Finding {
    let Ok(subscriptions) = serde_json::from_slice::<Subscriptions>(body) else {
        return Finding::warning(SUBJECT, "not known: Meta's answer is not a list of subscriptions");
    };
    let Some(found) = subscriptions.data.iter().find(|subscription| subscription.object == OBJECT) else {
        return Finding::failed(
            SUBJECT,
            "the app has no webhook for WhatsApp; set the callback URL and the verify token under WhatsApp > \
             Configuration, then subscribe to `messages`",
        );
    };
    if !found.active {
        return Finding::failed(
            SUBJECT,
            "the app's webhook for WhatsApp is switched off; verify the callback URL again under WhatsApp > Configuration",
        );
    }
    if !found.fields.iter().any(|field| field.name == FIELD) {
        let others: Vec<&str> = found.fields.iter().map(|field| field.name.as_str()).collect();
        let others = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
        return Finding::failed(
            SUBJECT,
            format!(
                "the app subscribes to {others}, but not to `messages`, so no message arrives; subscribe under WhatsApp \
                 > Configuration > Webhook fields"
            ),
        );
    }
    let to = found.callback_url.as_deref().map_or_else(String::new, |url| format!("; webhooks go to {url}"));
    Finding::ok(SUBJECT, format!("the app subscribes to `messages`{to}"))
}

#[cfg(test)]
mod tests {
    use assembly::checks::Grade;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Answers one request with this, and tells what was asked.
    async fn check_against(status: &str, body: &str) -> (Finding, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        tokio::join!(check(&base_url, "1234", Some(SECRET)), serving)
    }

    fn subscriptions(active: bool, fields: &[&str]) -> String {
        let fields: Vec<_> = fields.iter().map(|name| serde_json::json!({"name": name, "version": "v23.0"})).collect();
        serde_json::json!({"data": [
            {"object": "page", "active": true, "fields": [{"name": "messages"}]},
            {"object": OBJECT, "callback_url": "https://hooks.example/webhooks/meta", "active": active, "fields": fields},
        ]})
        .to_string()
    }

    #[tokio::test]
    async fn an_app_that_subscribes_to_messages_is_fine() {
        let body = subscriptions(true, &["account_update", "messages"]);
        let (finding, request) = check_against("200 OK", &body).await;
        assert_eq!(finding.grade, Grade::Ok, "{finding:?}");
        assert!(finding.text.contains("https://hooks.example/webhooks/meta"));
        assert!(request.starts_with("GET /1234/subscriptions HTTP/1.1\r\n"), "the secret is not in it: {request}");
        assert!(request.to_ascii_lowercase().contains(&format!("authorization: bearer 1234|{SECRET}")), "{request}");
    }

    #[tokio::test]
    async fn a_missing_field_is_a_finding_with_advice() {
        let (finding, _) = check_against("200 OK", &subscriptions(true, &["account_update"])).await;
        assert_eq!(finding.grade, Grade::Failed);
        assert!(finding.text.contains("account_update, but not to `messages`"), "{finding:?}");
        assert!(finding.text.contains("Webhook fields"), "{finding:?}");
    }

    #[tokio::test]
    async fn no_webhook_at_all_or_one_that_is_off_is_a_finding() {
        let (none, _) = check_against("200 OK", r#"{"data":[]}"#).await;
        assert!(none.grade == Grade::Failed && none.text.contains("no webhook for WhatsApp"), "{none:?}");
        let (off, _) = check_against("200 OK", &subscriptions(false, &["messages"])).await;
        assert!(off.grade == Grade::Failed && off.text.contains("switched off"), "{off:?}");
    }

    #[tokio::test]
    async fn a_refusal_is_a_finding_and_an_outage_is_not() {
        let error = r#"{"error":{"message":"Error validating application.","type":"OAuthException","code":101}}"#;
        let (refused, _) = check_against("400 Bad Request", error).await;
        assert_eq!(refused.grade, Grade::Failed);
        for (status, body) in [("503 Service Unavailable", ""), ("200 OK", "<html>"), ("302 Found", "")] {
            let (unknown, _) = check_against(status, body).await;
            assert_eq!(unknown.grade, Grade::Warning, "{status}: {unknown:?}");
        }
        let nobody = check("http://127.0.0.1:1", "1234", Some(SECRET)).await;
        assert_eq!(nobody.grade, Grade::Warning);
        assert!(!nobody.text.contains(SECRET), "{nobody:?}");
    }

    #[tokio::test]
    async fn without_an_app_id_or_a_secret_nobody_is_asked() {
        for (app, secret) in [("", Some(SECRET)), ("1234", None)] {
            let finding = check("http://127.0.0.1:1", app, secret).await;
            assert!(finding.grade == Grade::Warning && finding.text.starts_with("not checked"), "{finding:?}");
        }
    }
}
