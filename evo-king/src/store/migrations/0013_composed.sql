-- What the skills of a composed version's steps may be, as its package says: a JSON list of classes.
ALTER TABLE skill_versions ADD COLUMN classes TEXT;
