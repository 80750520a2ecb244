//! `wharf check`: tries a running Wharf from outside, as its senders and readers do, and tells what held.
//!
//! It sends real webhooks, with the secrets of the environment, to a number of its own; the messages stay. What it cannot
//! try it says, and why. Nothing it sends is kept here.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use common::{Clock as _, SystemClock};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::remote::{Endpoint, value_part};

/// Within this a webhook must be answered.
const ANSWERED: Duration = Duration::from_secs(2);
/// Within this a message must be found.
const FOUND: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The number that all is sent to, unless another is named: nobody's at Meta.
const NUMBER: &str = "100000000000001";
const WABA: &str = "100000000000002";
/// Another number and account that nobody has, where somebody's number is named.
const NOBODYS_NUMBER: &str = "999999999999999";
const NOBODYS_WABA: &str = "999999999999998";
/// Within this many digits is a phone number, without its `+`.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// Flags of `wharf check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Where webhooks go
    #[arg(long, env = "WHARF_GATEWAY_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    #[command(flatten)]
    api: Endpoint,
    /// The secret of Meta's app; without it Meta is not tried
    #[arg(long, env = "WHATSAPP_APP_SECRET", hide_env_values = true)]
    app_secret: Option<String>,
    /// The token of Meta's verification request
    #[arg(long, env = "WHATSAPP_VERIFY_TOKEN", hide_env_values = true)]
    verify_token: Option<String>,
    /// Twilio's auth token; without it Twilio is not tried
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true)]
    twilio_token: Option<String>,
    /// Twilio's account
    #[arg(long, env = "TWILIO_ACCOUNT_SID", default_value = "AC00000000000000000000000000000000")]
    twilio_account: String,
    /// Where Twilio believes to send, if that is not --url
    #[arg(long, env = "WHARF__INGRESS__PUBLIC_URL")]
    public_url: Option<String>,
    /// The number that messages of Twilio are sent to: a tenant's, where there is more than one
    #[arg(long, value_name = "+E164", value_parser = phone, default_value = "+15550000000")]
    twilio_number: String,
    /// The secret of the generic provider; without it that is not tried
    #[arg(long, env = "WEBHOOK_SECRET", hide_env_values = true)]
    generic_secret: Option<String>,
    /// The number that generic messages are sent to: a tenant's, where there is more than one
    #[arg(long, value_name = "+E164", value_parser = phone, default_value = "+15550000000")]
    generic_number: String,
    /// The number that messages of Meta are sent to, as WABA_ID:PHONE_NUMBER_ID: a tenant's, where there is more than one
    #[arg(long, value_name = "WABA:NUMBER")]
    number: Option<simulator::Number>,
    /// The prefix that webhooks and statistics are served under too (ingress.prefix)
    #[arg(long, env = "WHARF__INGRESS__PREFIX", default_value = "/api/v1/whatsapp-hardened")]
    prefix: String,
    /// Do not try the limits, which takes two hundred webhooks and refuses this address for a second
    #[arg(long)]
    without_limits: bool,
}

/// What came of a check.
enum Outcome {
    Held(String),
    Failed(String),
    NotTried(&'static str),
}

struct Check {
    args: CheckArgs,
    client: reqwest::Client,
    /// Stands in every id and text of this run.
    marker: String,
    failed: usize,
}

/// What was answered, and how soon.
struct Answer {
    status: StatusCode,
    body: String,
    retry_after: bool,
    took: Duration,
}

/// A phone number as Twilio and the generic provider name it.
fn phone(text: &str) -> Result<String, &'static str> {
    let digits = text.strip_prefix('+').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let is_phone = digits.is_some_and(|digits| PHONE_DIGITS.contains(&digits.len()) && !digits.starts_with('0'));
    if is_phone { Ok(text.to_owned()) } else { Err("must be + and 7 to 15 digits, the first of them not 0") }
}

/// The command.
pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build();
    let marker = format!("check-{}", hex::encode(rand::random::<[u8; 8]>()));
    let mut check = Check { args, client: client.context("cannot make an HTTP client")?, marker, failed: 0 };
    check.reachable().await?;
    check.meta().await?;
    check.twilio().await?;
    check.generic().await?;
    check.reading().await?;
    if !check.args.without_limits {
        check.limits().await?;
    }
    Ok(if check.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn expect(what: bool, held: impl Into<String>, failed: impl Into<String>) -> Outcome {
    if what { Outcome::Held(held.into()) } else { Outcome::Failed(failed.into()) }
}

fn not_found(number: &str, flag: &str) -> String {
    format!("not found: does a tenant have {number}? {flag} names another")
}

impl Answer {
    fn is(&self, status: u16) -> Outcome {
        let took = format!("{status} in {} ms", self.took.as_millis());
        let other = format!("answered {} in {} ms, not {status}: {}", self.status, self.took.as_millis(), self.body);
        expect(self.status == status && self.took <= ANSWERED, took, other)
    }
}

impl Check {
    #[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
    fn say(&mut self, what: &str, outcome: Outcome) {
        let (grade, text) = match outcome {
            Outcome::Held(text) => ("ok", text),
            Outcome::NotTried(why) => ("not tried", why.to_owned()),
            Outcome::Failed(text) => {
                self.failed += 1;
                ("FAILED", text)
            }
        };
        println!("{grade:<10} {what:<48} {text}");
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: String,
    ) -> anyhow::Result<Answer> {
        let url = format!("{}{path}", self.args.url.trim_end_matches('/'));
        let mut request = self.client.request(method, &url).body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let begun = Instant::now();
        let response = request
            .send()
            .await
            .with_context(|| format!("cannot reach {} (--url or WHARF_GATEWAY_URL names another)", self.args.url))?;
        let (status, retry_after) = (response.status(), response.headers().contains_key("retry-after"));
        let body = response.text().await.unwrap_or_default();
        Ok(Answer { status, body, retry_after, took: begun.elapsed() })
    }

    async fn post(&self, path: &str, headers: &[(&str, String)], body: &str) -> anyhow::Result<Answer> {
        self.send(Method::POST, path, headers, body.to_owned()).await
    }

    async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, path, &[], String::new()).await
    }

    /// Asks the API.
    async fn ask(&self, path: &str) -> anyhow::Result<Value> {
        self.args.api.ask(Method::GET, path, None).await?.map_err(|refused| {
            refused.report();
            anyhow::anyhow!("the API refused {path}")
        })
    }

    /// How many messages have this word in their text.
    async fn found(&self, word: &str) -> anyhow::Result<u64> {
        Ok(self.ask(&format!("/messages?q={}", value_part(word))).await?["total"].as_u64().unwrap_or(0))
    }

    /// Waits until a message is found; false if it is not in time.
    async fn comes(&self, word: &str) -> anyhow::Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < FOUND {
            if self.found(word).await? > 0 {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(false)
    }

    async fn reachable(&mut self) -> anyhow::Result<()> {
        let (live, ready) = (self.get("/health").await?, self.get("/health/ready").await?);
        self.say("health", live.is(200));
        self.say("readiness", ready.is(200));
        let metrics = self.args.api.serves("/metrics").await?;
        self.say("metrics", expect(metrics, "served by the API", "not served by the API with this token"));
        Ok(())
    }

    /// A message to the number of this run.
    fn message(&self, sender: &str, word: &str) -> String {
        let named = self.args.number.as_ref();
        let (waba, number) = named.map_or((WABA, NUMBER), |named| (&named.waba_id, &named.phone_number_id));
        Self::message_to(waba, number, sender, word)
    }

    fn message_to(waba: &str, number: &str, sender: &str, word: &str) -> String {
        let now = SystemClock.now().as_secs();
        let id = format!("wamid.{word}");
        let message = json!({"from": sender, "id": id, "timestamp": now.to_string(), "type": "text",
                             "text": {"body": word}});
        let metadata = json!({"display_phone_number": "15550000000", "phone_number_id": number});
        let value = json!({"messaging_product": "whatsapp", "metadata": metadata, "messages": [message]});
        let change = json!({"field": "messages", "value": value});
        json!({"object": "whatsapp_business_account", "entry": [{"id": waba, "changes": [change]}]}).to_string()
    }

    async fn meta(&mut self) -> anyhow::Result<()> {
        let handshake = "/webhook?hub.mode=subscribe&hub.challenge=4711&hub.verify_token=";
        match self.args.verify_token.clone() {
            Some(token) => {
                let good = self.get(&format!("{handshake}{}", value_part(&token))).await?;
                let echoed = good.status == 200 && good.body == "4711";
                self.say("Meta: verification, right token", expect(echoed, "the challenge", good.body.clone()));
            }
            None => self.say("Meta: verification, right token", Outcome::NotTried("WHATSAPP_VERIFY_TOKEN is not set")),
        }
        let bad = self.get(&format!("{handshake}wrong")).await?;
        self.say("Meta: verification, wrong token", bad.is(403));
        let Some(secret) = self.args.app_secret.clone() else {
            self.say("Meta: webhooks", Outcome::NotTried("WHATSAPP_APP_SECRET is not set"));
            return Ok(());
        };
        let word = format!("{}-meta", self.marker);
        let body = self.message("15550100001", &word);
        let signed = [("x-hub-signature-256", simulator::sign(&secret, body.as_bytes()))];
        let forged = [("x-hub-signature-256", simulator::sign("wrong", body.as_bytes()))];
        let (good, wrong, none) = (
            self.post("/webhook", &signed, &body).await?,
            self.post("/webhook", &forged, &body).await?,
            self.post("/webhook", &[], &body).await?,
        );
        self.say("Meta: right signature", good.is(200));
        self.say("Meta: wrong signature", wrong.is(403));
        self.say("Meta: no signature", none.is(403));
        let again = self.post("/webhook", &signed, &body).await?;
        self.say("Meta: the same again", again.is(200));
        let came = good.status == StatusCode::OK && self.comes(&word).await?;
        self.say("Meta: the message comes out", expect(came, "found by the API", not_found("the number", "--number")));
        let count = self.found(&word).await?;
        self.say(
            "Meta: the same again has no second effect",
            expect(count == 1, "one message", format!("{count} messages")),
        );

        if !came {
            return Ok(());
        }
        let nobody = format!("{}-nobody", self.marker);
        // Under an account of somebody it would be that one's: who has an account has the numbers nobody has listed.
        let body = Self::message_to(NOBODYS_WABA, NOBODYS_NUMBER, "15550100001", &nobody);
        let signed = [("x-hub-signature-256", simulator::sign(&secret, body.as_bytes()))];
        self.say("Meta: a number that nobody has", self.post("/webhook", &signed, &body).await?.is(200));
        let later = format!("{}-later", self.marker);
        let body = self.message("15550100001", &later);
        let signed = [("x-hub-signature-256", simulator::sign(&secret, body.as_bytes()))];
        self.post("/webhook", &signed, &body).await?;
        if self.comes(&later).await? {
            let outcome = if self.found(&nobody).await? == 0 {
                Outcome::Held("not handed out".to_owned())
            } else {
                Outcome::NotTried("the app owns every number (single-tenant operation)")
            };
            self.say("Meta: what nobody has is kept back", outcome);
        }
        Ok(())
    }

    async fn twilio(&mut self) -> anyhow::Result<()> {
        const PATH: &str = "/webhooks/twilio";
        let Some(token) = self.args.twilio_token.clone() else {
            self.say("Twilio: webhooks", Outcome::NotTried("TWILIO_AUTH_TOKEN is not set"));
            return Ok(());
        };
        let word = format!("{}-twilio", self.marker);
        let account = self.args.twilio_account.clone();
        let to = format!("whatsapp:{}", self.args.twilio_number);
        let parameters = [
            ("MessageSid", word.as_str()),
            ("AccountSid", account.as_str()),
            ("From", "whatsapp:+15550100002"),
            ("To", to.as_str()),
            ("Body", word.as_str()),
            ("NumMedia", "0"),
            ("SmsStatus", "received"),
        ];
        let encoded = parameters.map(|(name, value)| format!("{name}={}", value_part(value)));
        let body = encoded.join("&");
        let origin = self.args.public_url.clone().unwrap_or_else(|| self.args.url.clone());
        let url = format!("{}{PATH}", origin.trim_end_matches('/'));
        let form = ("content-type", "application/x-www-form-urlencoded".to_owned());
        let with =
            |token: &str| [form.clone(), ("x-twilio-signature", simulator::sign_twilio(token, &url, &parameters))];
        let (good, wrong, none) = (
            self.post(PATH, &with(&token), &body).await?,
            self.post(PATH, &with("wrong"), &body).await?,
            self.post(PATH, std::slice::from_ref(&form), &body).await?,
        );
        self.say("Twilio: right signature", good.is(200));
        self.say("Twilio: wrong signature", wrong.is(403));
        self.say("Twilio: no signature", none.is(403));
        let came = good.status == StatusCode::OK && self.comes(&word).await?;
        self.say(
            "Twilio: the message comes out",
            expect(came, "found by the API", not_found(&self.args.twilio_number, "--twilio-number")),
        );
        Ok(())
    }

    async fn generic(&mut self) -> anyhow::Result<()> {
        const PATH: &str = "/webhooks/generic";
        let Some(secret) = self.args.generic_secret.clone() else {
            self.say("generic: webhooks", Outcome::NotTried("WEBHOOK_SECRET is not set"));
            return Ok(());
        };
        let word = format!("{}-generic", self.marker);
        let body = json!({"message_id": word, "from": "+15550100003", "to": self.args.generic_number,
                          "ts": SystemClock.now().to_string(), "text": word})
        .to_string();
        let with = |secret: &str, body: &str| [("x-signature", simulator::sign_generic(secret, body.as_bytes()))];
        let (good, wrong, none) = (
            self.post(PATH, &with(&secret, &body), &body).await?,
            self.post(PATH, &with("wrong", &body), &body).await?,
            self.post(PATH, &[], &body).await?,
        );
        self.say("generic: right signature", good.is(200));
        self.say("generic: wrong signature", wrong.is(403));
        self.say("generic: no signature", none.is(403));
        let invalid = self.post(PATH, &with(&secret, "{}"), "{}").await?;
        self.say("generic: signed, but not as it must be", invalid.is(422));
        let came = good.status == StatusCode::OK && self.comes(&word).await?;
        self.say(
            "generic: the message comes out",
            expect(came, "found by the API", not_found(&self.args.generic_number, "--generic-number")),
        );
        Ok(())
    }

    async fn reading(&mut self) -> anyhow::Result<()> {
        let page = self.ask("/messages?limit=1").await?;
        let is_page = page["data"].as_array().is_some_and(|data| data.len() <= 1) && page["total"].is_u64();
        self.say("messages: pages", expect(is_page, "as documented", page.to_string()));
        let filtered = self.ask("/messages?from=%2B15550100001&limit=100").await?;
        let mut senders = filtered["data"].as_array().into_iter().flatten().map(|message| message["from"].clone());
        self.say(
            "messages: filters",
            expect(senders.all(|from| from == "+15550100001"), "hold", "another sender is shown"),
        );
        let counts = self.ask("/stats").await?;
        self.say(
            "statistics of messages",
            expect(counts["total_messages"].is_u64(), "as documented", counts.to_string()),
        );
        let prefix = self.args.prefix.trim_end_matches('/').to_owned();
        for path in ["/stats?hours=24".to_owned(), format!("{prefix}/stats")] {
            let requests = self.ask(&path).await?;
            let data = &requests["data"];
            let is_whole = requests["success"] == true
                && ["processing", "security", "performance"].iter().all(|part| data[part].is_array());
            self.say(
                &format!("statistics of requests, {path}"),
                expect(is_whole, "as documented", requests.to_string()),
            );
        }
        Ok(())
    }

    /// Sends a message, again where the limit of an address refuses it, which is a second's. Whatever else refuses is not
    /// waited for.
    async fn send_patiently(&self, secret: &str, sender: &str, word: &str) -> anyhow::Result<Answer> {
        let body = self.message(sender, word);
        let signed = [("x-hub-signature-256", simulator::sign(secret, body.as_bytes()))];
        let mut answer = self.post("/webhook", &signed, &body).await?;
        for _ in 0..3 {
            if answer.status != 429 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = self.post("/webhook", &signed, &body).await?;
        }
        Ok(answer)
    }

    async fn limits(&mut self) -> anyhow::Result<()> {
        // The address first: the 51st within a second. It may take a second try to begin within one.
        let mut refused = None;
        let begun = Instant::now();
        for n in 1..=120 {
            let answer = self.get("/webhook").await?;
            if answer.status == 429 {
                refused = Some((n, answer.retry_after));
                break;
            }
            if begun.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        let outcome = match refused {
            Some((n, true)) => Outcome::Held(format!("429 with Retry-After at request {n}")),
            Some((n, false)) => Outcome::Failed(format!("429 without Retry-After at request {n}")),
            None => Outcome::NotTried("no 429 within a second: the limit is higher than this can send"),
        };
        self.say("limit of an address", outcome);
        let Some(secret) = self.args.app_secret.clone() else {
            self.say("limit of a sender", Outcome::NotTried("WHATSAPP_APP_SECRET is not set"));
            return Ok(());
        };
        let mut all_taken = true;
        let sender = format!("1555{:07}", rand::random::<u32>() % 10_000_000);
        for n in 1..=101 {
            let answer = self.send_patiently(&secret, &sender, &format!("{}-limit-{n:03}", self.marker)).await?;
            all_taken &= answer.status == 200;
            if answer.status == 429 {
                break;
            }
        }
        // What comes after the last one, from somebody else, comes out after it too.
        let after = format!("{}-limit-after", self.marker);
        all_taken &= self.send_patiently(&secret, "15550100004", &after).await?.status == 200;
        let came = self.comes(&format!("{}-limit-100", self.marker)).await? && self.comes(&after).await?;
        let last = self.found(&format!("{}-limit-101", self.marker)).await?;
        let held = all_taken && came && last == 0;
        let failed = format!(
            "all answered 200: {all_taken}, the 100th came out: {came}, the 101st: {} (if Redis is late nobody is \
             limited: wharf_ingress_admission_skipped_total)",
            last > 0
        );
        self.say("limit of a sender", expect(held, "message 101 within the hour is parked, with 200", failed));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::phone;

    #[test]
    fn a_number_is_a_plus_and_digits() {
        assert_eq!(phone("+15550000000").as_deref(), Ok("+15550000000"));
        for wrong in ["", "+", "15550000000", "+0155500000", "+155500", "+1555000000000000", "+1 555 000 0000"] {
            assert!(phone(wrong).is_err(), "{wrong}");
        }
    }
}
