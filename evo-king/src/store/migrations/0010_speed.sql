-- Indexes and columns of the hot path.

-- A lease says by itself what is to be sent.
DELETE FROM outbox WHERE kind = 'dispatch';
