-- What the start with this idempotency key asked for, so that another request with the same key is
-- known as one.
ALTER TABLE runs ADD COLUMN idempotency_digest TEXT;
