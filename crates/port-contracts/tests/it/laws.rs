//! The memory backend keeps every law.

use port_contracts::memory::MemoryHarness;

port_contracts::contracts!(MemoryHarness);
