//! What can go wrong, by operation.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ports::Unavailable;
use tokio::sync::watch;

/// A method of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of its name, with its port where the name alone is not clear")]
pub enum Operation {
    Publish,
    PublishWhole,
    Pull,
    Ack,
    RetryAfter,
    Extend,
    Backlog,
    Admit,
    Remember,
    Snapshot,
    Changed,
    WriteDirectory,
    Commit,
    BeginAttempt,
    TakeBackAttempt,
    RawPending,
    RawArchived,
    AcquireSequencer,
    Sequence,
    Claim,
    Mark,
    Unpublished,
    ReadFeed,
    Search,
    Totals,
    Record,
    ReadStatistics,
    Parking,
    Raw,
    ReadAccess,
    WriteAccess,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is done.
    NotDone,
    /// It is done, but the caller does not learn of it.
    DoneButNotAnswered,
}

/// What is arranged for an operation.
#[derive(Debug, Default)]
struct Arranged {
    /// Calls so far.
    calls: usize,
    /// Calls that hang now.
    hanging: usize,
    hangs: bool,
    down: bool,
    next: VecDeque<Fault>,
}

#[derive(Debug, Default)]
struct State {
    operations: HashMap<Operation, Arranged>,
    full: BTreeSet<String>,
    disconnected: bool,
    batches: bool,
}

/// Arranges what goes wrong. Clones are the same.
///
/// A call first hangs for as long as its operation hangs, then takes the next arranged fault; without one it succeeds.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<watch::Sender<State>>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Faults {
    /// The next `times` calls do nothing and answer that the system is unavailable.
    pub fn fail_next(&self, operation: Operation, times: usize) {
        self.arrange(operation, |it| it.next.extend(std::iter::repeat_n(Fault::NotDone, times)));
    }

    /// The next `times` calls do their work, but answer that the system is unavailable: for
    /// [`Operation::Publish`], the messages are stored and not acknowledged. What waits before it works
    /// ([`Operation::Pull`], [`Operation::Changed`]) only fails.
    pub fn lose_next_answers(&self, operation: Operation, times: usize) {
        self.arrange(operation, |it| it.next.extend(std::iter::repeat_n(Fault::DoneButNotAnswered, times)));
    }

    /// Every call answers that the system is unavailable, until [`Faults::restore`].
    pub fn take_down(&self, operation: Operation) {
        self.arrange(operation, |it| it.down = true);
    }

    /// Calls wait until [`Faults::restore`], then go on.
    pub fn hang(&self, operation: Operation) {
        self.arrange(operation, |it| it.hangs = true);
    }

    /// Ends everything that was arranged for the operation.
    pub fn restore(&self, operation: Operation) {
        self.arrange(operation, |it| {
            (it.hangs, it.down) = (false, false);
            it.next.clear();
        });
    }

    /// How often the operation was called, with or without success.
    pub fn calls(&self, operation: Operation) -> usize {
        self.state.borrow().operations.get(&operation).map_or(0, |it| it.calls)
    }

    /// Waits until the operation was called `times` times in all.
    pub async fn called(&self, operation: Operation, times: usize) {
        self.until(|state| state.operations.get(&operation).is_some_and(|it| it.calls >= times)).await;
    }

    /// Waits until `count` calls of the operation hang at once.
    pub async fn hanging(&self, operation: Operation, count: usize) {
        self.until(|state| state.operations.get(&operation).is_some_and(|it| it.hanging >= count)).await;
    }

    /// Lets the bus store many messages as a whole.
    pub fn allow_batches(&self) {
        self.state.send_modify(|state| state.batches = true);
    }

    pub(super) fn has_batches(&self) -> bool {
        self.state.borrow().batches
    }

    /// Makes a subject refuse as full, whatever it holds.
    pub fn fill(&self, subject: &str) {
        self.state.send_modify(|state| state.full.extend([subject.to_owned()]));
    }

    /// Makes room on a subject again.
    pub fn make_room(&self, subject: &str) {
        self.state.send_modify(|state| state.full.retain(|each| each != subject));
    }

    /// Cuts the connection to the bus: it says so, and every operation of it fails.
    pub fn disconnect(&self) {
        self.state.send_modify(|state| state.disconnected = true);
    }

    /// Restores the connection to the bus.
    pub fn reconnect(&self) {
        self.state.send_modify(|state| state.disconnected = false);
    }

    pub(super) fn is_full(&self, subject: &str) -> bool {
        self.state.borrow().full.contains(subject)
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.state.borrow().disconnected
    }

    /// Runs the work of an operation, as arranged.
    pub(super) async fn run<T>(&self, operation: Operation, work: impl FnOnce() -> T) -> Result<T, Unavailable> {
        match self.enter(operation).await {
            None => Ok(work()),
            Some(Fault::NotDone) => Err(Unavailable::new(name(operation), "arranged by the test")),
            Some(Fault::DoneButNotAnswered) => {
                drop(work());
                Err(Unavailable::new(name(operation), "the answer was lost, as arranged by the test"))
            }
        }
    }

    /// Whether the operation may begin, for those that wait before they work.
    pub(super) async fn pass(&self, operation: Operation) -> Result<(), Unavailable> {
        self.run(operation, || ()).await
    }

    async fn enter(&self, operation: Operation) -> Option<Fault> {
        self.arrange(operation, |it| it.calls += 1);
        let hangs = |state: &State| state.operations.get(&operation).is_some_and(|it| it.hangs);
        let must_wait = hangs(&self.state.borrow());
        if must_wait {
            let _counted = Hanging::count(self, operation);
            self.until(|state| !hangs(state)).await;
        }
        let on_bus = matches!(
            operation,
            Operation::Publish
                | Operation::Pull
                | Operation::Ack
                | Operation::RetryAfter
                | Operation::Extend
                | Operation::Backlog
        );
        let mut fault = None;
        self.state.send_modify(|state| {
            let disconnected = on_bus && state.disconnected;
            let it = state.operations.entry(operation).or_default();
            fault = if disconnected || it.down { Some(Fault::NotDone) } else { it.next.pop_front() };
        });
        fault
    }

    fn arrange(&self, operation: Operation, change: impl FnOnce(&mut Arranged)) {
        self.state.send_modify(|state| change(state.operations.entry(operation).or_default()));
    }

    async fn until(&self, condition: impl FnMut(&State) -> bool) {
        let mut changes = self.state.subscribe();
        let seen = changes.wait_for(condition).await;
        debug_assert!(seen.is_ok(), "the sender is here");
    }
}

/// Counts a hanging call for as long as it hangs; its caller may give up.
struct Hanging<'a>(&'a Faults, Operation);

impl<'a> Hanging<'a> {
    fn count(faults: &'a Faults, operation: Operation) -> Self {
        faults.arrange(operation, |it| it.hanging += 1);
        Self(faults, operation)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.arrange(self.1, |it| it.hanging -= 1);
    }
}

/// The system that an operation belongs to.
const fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Publish
        | Operation::Pull
        | Operation::Ack
        | Operation::RetryAfter
        | Operation::Extend
        | Operation::Backlog => "the event bus",
        Operation::Admit | Operation::Remember => "admission",
        Operation::Snapshot | Operation::Changed | Operation::WriteDirectory => "the directory",
        _ => "the database",
    }
}
