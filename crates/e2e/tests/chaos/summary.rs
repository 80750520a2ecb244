//! What a person reads at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use simulator::Report;

use crate::faults::Fault;
use crate::stored::Leftovers;
use crate::verdict::Evidence;

const FORBIDDEN: u16 = 403;
const UNAVAILABLE: u16 = 503;
/// On a machine so busy that a body needs longer than 3 s.
const TIMEOUT: u16 = 408;

/// A fault that happened.
#[derive(Clone, Debug)]
pub(crate) struct Happened {
    pub(crate) fault: Fault,
    /// From its begin until it was put right.
    pub(crate) lasted: Duration,
    /// From then until both gateways had answered 200.
    pub(crate) back: Duration,
    /// The longest time without a 200 from any gateway.
    pub(crate) silence: Duration,
    pub(crate) noticed: &'static str,
}

/// See the module's documentation.
pub(crate) struct Summary<'a> {
    pub(crate) evidence: &'a Evidence<'a>,
    pub(crate) reports: &'a [Report],
    /// The forged webhooks, sent again at the end.
    pub(crate) forgeries: &'a Report,
    pub(crate) probes: usize,
    /// Messages on the bus, repetitions included.
    pub(crate) copies: usize,
    pub(crate) happened: &'a [Happened],
    /// Warnings and errors of all processes, each with the number of times.
    pub(crate) said: &'a BTreeMap<String, usize>,
    pub(crate) sending: Duration,
    pub(crate) drained: Duration,
    pub(crate) disk: &'a str,
}

impl Summary<'_> {
    /// All that is wrong with the sending and with what is left over, a line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for report in self.reports {
            if (report.gave_up, report.unsettled) != (0, 0) {
                problems.push(format!("{} given up, {} unsettled", report.gave_up, report.unsettled));
            }
            // A gateway that has no directory yet cannot know what is forged.
            for (status, count) in
                report.unexpected.iter().filter(|(status, _)| ![TIMEOUT, UNAVAILABLE].contains(*status))
            {
                problems.push(format!("{count} forged webhooks were answered {status}"));
            }
            let known = [200, FORBIDDEN, TIMEOUT, UNAVAILABLE];
            for (status, count) in report.statuses.iter().filter(|(status, _)| !known.contains(status)) {
                problems.push(format!("{count} answers were {status}"));
            }
        }
        let Report { forged_sent, forged_refused, .. } = self.forgeries;
        if forged_sent != forged_refused || self.forgeries.statuses.keys().any(|status| *status != FORBIDDEN) {
            problems
                .push(format!("{forged_refused} of {forged_sent} forged ones refused: {:?}", self.forgeries.statuses));
        }
        if self.evidence.tables.leftovers != Leftovers::default() {
            problems.push(format!("left over: {:?}", self.evidence.tables.leftovers));
        }
        problems
    }

    fn sum(&self, count: impl Fn(&Report) -> u64) -> u64 {
        self.reports.iter().map(count).sum()
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, lasted, back, silence, noticed } = self;
        let [lasted, back, silence] = [lasted, back, silence].map(Duration::as_secs_f64);
        write!(
            f,
            "{fault}: put right after {lasted:.2} s, 200 again {back:.2} s later, longest silence {silence:.2} s"
        )?;
        if noticed.is_empty() { Ok(()) } else { write!(f, ", {noticed}") }
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evidence { sent, acknowledged, tables, feed, followed, published } = self.evidence;
        let mut statuses = BTreeMap::new();
        for (status, count) in self.reports.iter().flat_map(|report| &report.statuses) {
            *statuses.entry(status).or_insert(0) += count;
        }
        let nameless = feed.events.iter().filter(|event| event.update.phone_number_id.is_empty()).count();
        let mut tenants = BTreeMap::new();
        for event in &feed.events {
            *tenants.entry(event.tenant.as_str()).or_insert(0) += 1;
        }
        let forged = (self.sum(|report| report.forged_sent), self.sum(|report| report.forged_refused));
        let p99: Vec<_> = self.reports.iter().map(|report| report.latency.p99 / 1000).collect();
        let rows: [(&str, String); 19] = [
            ("webhooks sent", self.sum(|report| report.posts).to_string()),
            ("of them repeats", sent.repeats.to_string()),
            ("of them acknowledged", self.sum(|report| report.acknowledged_posts).to_string()),
            ("probes acknowledged", self.probes.to_string()),
            ("answers", format!("{statuses:?}, {} without", self.sum(|report| report.transport_errors))),
            ("retries", self.sum(|report| report.retries).to_string()),
            ("99 in 100 acknowledged within (ms)", format!("{p99:?}")),
            ("updates acknowledged, repeats included", acknowledged.len().to_string()),
            ("different updates", sent.genuine.len().to_string()),
            ("in the database", tables.updates.len().to_string()),
            ("in the feed", format!("{}: {tenants:?}", feed.events.len())),
            ("of them without an identity", nameless.to_string()),
            ("on the bus, different and in all", format!("{}, {}", published.len(), self.copies)),
            ("messages, statuses", format!("{}, {}", tables.messages, tables.statuses)),
            ("repetitions folded by the database", tables.folded.to_string()),
            ("left over", format!("{:?}", tables.leftovers)),
            ("the API did not answer the consumer", format!("{} times", followed.failures)),
            ("forged: sent, refused at once, refused at the end", {
                format!("{}, {}, {}", forged.0, forged.1, self.forgeries.forged_refused)
            }),
            ("sent in, drained after (s)", {
                format!("{:.1}, {:.1}", self.sending.as_secs_f64(), self.drained.as_secs_f64())
            }),
        ];
        writeln!(f)?;
        for (name, value) in rows {
            writeln!(f, "{name:<50} {value}")?;
        }
        writeln!(f, "\nfull disk: {}", self.disk)?;
        writeln!(
            f,
            "{:<22} {:>5}  {:>18}  {:>24}  longest silence",
            "fault", "times", "put right after", "then 200 again after"
        )?;
        for fault in Fault::ROUND {
            let of: Vec<_> = self.happened.iter().filter(|each| each.fault == fault).collect();
            let figure = |of_each: fn(&Happened) -> Duration| {
                let all: Vec<_> = of.iter().map(|each| of_each(each).as_secs_f64()).collect();
                let mean = all.iter().fold(0.0, |sum, each| sum + each) / all.len().max(1) as f64;
                format!("{mean:.2} s (≤ {:.2})", all.iter().copied().fold(0.0, f64::max))
            };
            let (lasted, back, silence) =
                (figure(|each| each.lasted), figure(|each| each.back), figure(|each| each.silence));
            writeln!(f, "{fault:<22} {:>5}  {lasted:>18}  {back:>24}  {silence}", of.len())?;
        }
        let mut noticed = BTreeMap::new();
        for each in self.happened.iter().filter(|each| !each.noticed.is_empty()) {
            *noticed.entry(each.noticed).or_insert(0) += 1;
        }
        for (what, times) in noticed {
            writeln!(f, "full disk, {times} times: {what}")?;
        }
        writeln!(f)?;
        for (what, times) in self.said {
            writeln!(f, "logged {times:>6} times: {what}")?;
        }
        Ok(())
    }
}
