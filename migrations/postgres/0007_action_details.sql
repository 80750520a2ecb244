-- What was changed, in words.
ALTER TABLE actions ADD COLUMN details text;
