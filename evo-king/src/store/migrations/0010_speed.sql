-- Indexes and columns of the hot path.

-- A lease says by itself what is to be sent.
DELETE FROM outbox WHERE kind = 'dispatch';

-- Whether the run has a trace. Many direct runs in a short time are not all traced.
ALTER TABLE runs ADD COLUMN traced INTEGER NOT NULL DEFAULT 1;
