-- What was not sent of a delivery that was taken, and why; for people.
ALTER TABLE deliveries ADD COLUMN left_out TEXT;
