-- What is due is taken in the order of this index: sorting what is due anew for each portion would take longer the more it is.

DROP INDEX parked_due;
CREATE INDEX parked_due ON parked (due_at, received_at, envelope) WHERE due_at IS NOT NULL;
