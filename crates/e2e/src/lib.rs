//! Scenarios against the real binary, as an operator, a provider or an attacker meets it.
//!
//! All of it is in `tests/it`; there is nothing to use here. Every scenario starts `wharf up` itself, with a data folder
//! of its own and on ports that the system chooses, talks to it over sockets only, and ends it. What is inside a process
//! is not looked at: events are read through the API, figures through `/metrics`.
//!
//! The binary is `WHARF_BIN` if that is set, else the one beside the tests' own build, which is brought up to date first.
