//! A stand-in for Meta as the sender of WhatsApp webhooks: it makes signed POSTs of every kind, and
//! delivers them the way Meta does, with retries until the answer is 200.
//!
//! Two halves that know nothing of each other's insides:
//!
//! * [`Generator`] is an iterator of [`Webhook`]s. The same [`Traffic`] and secret give the same bytes,
//!   on every machine and after every upgrade of a dependency, so a run can be repeated and compared.
//! * [`deliver()`] takes any iterator of webhooks and posts them over a number of connections, keeps the
//!   unanswered ones for later, writes down what was acknowledged, and measures.
//!
//! What was sent and what was acknowledged is told as [`UpdateRef`]s: a test compares the lines of the
//! acknowledged log with what came out at the other end. Every line of it must have arrived; more may
//! have arrived, since an answer can be lost on its way.
//!
//! It is deliberately not a Graph API, it does not check the receiver's behaviour, and it shares no code
//! with the gateway: bodies and signatures are written here a second time, so that a mistake in one is
//! not repeated in the other. People, numbers and texts are invented.
//!
//! ```
//! use simulator::{Generator, Traffic};
//!
//! let traffic = Traffic {
//!     count: 3,
//!     numbers: vec!["300111222333444:777000111222333".parse().unwrap()],
//!     start_time: 1_795_000_000,
//!     ..Traffic::default()
//! };
//! let bodies: Vec<_> = Generator::new(traffic, "test_app_secret").map(|webhook| webhook.body).collect();
//! assert_eq!(bodies.len(), 3);
//! ```

mod deliver;
mod generator;
mod signature;
mod traffic;
mod update;

pub use deliver::{DeliverError, Delivery, Latency, Progress, Report, RetrySchedule, deliver};
pub use generator::Generator;
pub use signature::{sign, sign_generic, sign_twilio};
pub use traffic::{Mix, Number, Traffic, Webhook};
pub use update::{ParseUpdateRefError, UpdateKind, UpdateRef};
