//! The fakes under the laws, the faults they make, and whether every law is put to the test.

mod complete;
mod faults;
mod laws;
