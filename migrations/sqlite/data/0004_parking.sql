-- Parked envelopes are looked at again: at a moment, or when the directory changes (no moment).

ALTER TABLE parked ADD COLUMN due_at INTEGER;
ALTER TABLE parked ADD COLUMN taken_until INTEGER NOT NULL DEFAULT 0;
ALTER TABLE parked ADD COLUMN forced INTEGER NOT NULL DEFAULT 0;
-- Of throttled ones: the keyed hash of the sender, who has to wait for his turn.
ALTER TABLE parked ADD COLUMN sender BLOB;
CREATE INDEX parked_due ON parked (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX parked_sender ON parked (tenant, sender, due_at) WHERE sender IS NOT NULL;
CREATE INDEX parked_received_at ON parked (received_at, envelope);
CREATE INDEX parked_group ON parked (tenant, reason, number);

-- Places of raw bytes go with their objects, whose paths begin with the hour.
CREATE INDEX raw_objects_object ON raw_objects (object);
