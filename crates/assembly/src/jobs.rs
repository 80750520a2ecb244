//! Which jobs there are, and which of them a process does.

/// A job. Each is a process of its own on the distributed backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Takes webhooks in.
    Gateway,
    /// Turns them into rows and events.
    Normalizer,
    /// Lets people and programs read, and writes the directory.
    Api,
}

/// The jobs of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// Every job: `wharf up`.
    All,
    /// One.
    Only(Job),
}

impl Job {
    /// Its name, which is also its program's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Normalizer => "normalizer",
            Self::Api => "api",
        }
    }
}

impl Jobs {
    /// Whether a job is among them.
    pub fn has(self, job: Job) -> bool {
        match self {
            Self::All => true,
            Self::Only(only) => only == job,
        }
    }

    /// The name of the process.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "wharf",
            Self::Only(job) => job.name(),
        }
    }
}
