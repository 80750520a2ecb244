//! What a person reads when a process has started: where it is, where its secrets are, what to do next.

use std::fmt::Write as _;

use crate::config::{BackendKind, Config};
use crate::jobs::Jobs;
use crate::process::Process;

/// This program, as a shell finds it.
pub fn program() -> String {
    std::env::current_exe().map_or_else(|_| "wharf".to_owned(), |path| path.display().to_string())
}

pub(crate) async fn banner(process: &Process, config: &Config) -> String {
    let addresses = process.addresses();
    let mut text = String::from("\n");
    if let Some(public) = addresses.public {
        let _ = writeln!(text, "  webhooks   http://{public}/webhooks/meta");
    }
    if let Some(api) = addresses.api {
        let token = match process.token_file() {
            Some(path) => format!("token in {}", path.display()),
            None => "token as configured".to_owned(),
        };
        let _ = writeln!(text, "  API        http://{api}   ({token})");
    }
    let _ = writeln!(text, "  metrics    http://{}/metrics", addresses.admin);
    if config.backend.kind == BackendKind::Embedded {
        let _ = writeln!(text, "  data       {}", config.data_dir.display());
    }
    let (key_file, is_new) = process.key_file();
    let new = if is_new { " (new: keep a copy, without it nothing stored can be read)" } else { "" };
    let _ = writeln!(text, "  keys       {}{new}", key_file.display());
    if process.jobs() == Jobs::All {
        advise(&mut text, process).await;
    }
    text
}

async fn advise(text: &mut String, process: &Process) {
    let Some(public) = process.addresses().public else { return };
    if process.has_secrets().await {
        let _ = write!(
            text,
            "\n  Send a signed message (it signs with WHATSAPP_APP_SECRET from the environment, or --secret):\n    \
             {} simulate send --url http://{public}/webhooks/meta --messages 1 --statuses 0\n",
            program(),
        );
    } else {
        let _ = write!(
            text,
            "\n  No provider has a secret yet, so every webhook is refused. Either set WHATSAPP_APP_SECRET and\n  \
             WHATSAPP_VERIFY_TOKEN and start again, or register tenants:\n    {0} tenants import FILE\n  \
             To see Wharf at work without either:\n    {0} demo\n",
            program()
        );
        let _ = writeln!(text, "{} demo", program());
    }
}
