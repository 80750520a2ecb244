//! Tasks that a stop waits for, and the signals that ask for one.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The background tasks of a process. A stop is asked for once and waited for.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    failed: CancellationToken,
}

impl Tasks {
    /// No task yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. One that panics ends the process in an orderly way: half a process is worse than none.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let guard = FailureGuard { tasks: self.clone(), name, done: false };
        self.tracker.spawn(async move {
            let mut guard = guard;
            task.await;
            guard.done = true;
        });
    }

    /// Resolves when a stop was asked for.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when a task has panicked.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Asks the tasks to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until all tasks have ended, at most `limit`; false if some have not.
    pub async fn wait(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

struct FailureGuard {
    tasks: Tasks,
    name: &'static str,
    done: bool,
}

impl Drop for FailureGuard {
    fn drop(&mut self) {
        // Not done without a panic: the runtime is being taken down, and everything with it.
        if !self.done && std::thread::panicking() {
            tracing::error!(task = self.name, "a task ended unexpectedly; stopping the process");
            self.tasks.failed.cancel();
        }
    }
}

/// SIGTERM and SIGINT. From its making on they no longer end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    interrupt: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    /// Begins to listen.
    #[cfg(unix)]
    pub fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { terminate: signal(SignalKind::terminate()).ok(), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// Begins to listen.
    #[cfg(not(unix))]
    pub fn listen() -> Self {
        Self {}
    }

    /// Resolves at the next of them, one that came since the last call included.
    #[cfg(unix)]
    pub async fn next(&mut self) {
        async fn one(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = one(&mut self.terminate) => {}
            () = one(&mut self.interrupt) => {}
        }
    }

    /// Resolves at the next of them.
    #[cfg(not(unix))]
    pub async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Resolves at the next SIGTERM or SIGINT.
pub async fn wait_for_signal() {
    Signals::listen().next().await;
}
