//! `wharf doctor`: looks at everything an installation needs, and says what to do.

use std::process::ExitCode;

use assembly::Jobs;
use assembly::checks::{self, Finding, Grade};
use assembly::config::{self, Purpose};
use assembly::program::{self, ConfigArgs};

use crate::subscription;

/// The command: a line for each check. Fails if one of them has.
pub(crate) async fn run(args: &ConfigArgs) -> ExitCode {
    let loaded = config::load(args.config.as_deref(), &program::environment(), &args.flags(), Purpose::Run(Jobs::All));
    let mut findings: Vec<Finding> =
        loaded.notes.into_iter().map(|note| Finding::warning("configuration", note)).collect();
    match loaded.config {
        Err(problems) => {
            findings.extend(problems.iter().map(|problem| Finding::failed("configuration", problem.to_string())));
        }
        Ok(config) => {
            findings.push(Finding::ok("configuration", "valid"));
            findings.extend(checks::check(&config).await);
            let secret = config.meta.secrets().first().copied();
            findings.push(subscription::check(&config.graph.base_url, &config.meta.app_id, secret).await);
        }
    }
    print(&findings);
    if findings.iter().any(|finding| finding.grade == Grade::Failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::print_stdout, reason = "the command line speaks to a person")]
fn print(findings: &[Finding]) {
    for Finding { grade, subject, text } in findings {
        println!("{grade:<8} {subject:<14} {text}");
    }
}
