pub struct MemoryBackend; pub struct Faults; pub enum Operation {A}
