-- The four replica identities: what UPDATE and DELETE carry of the old row.
CREATE TABLE by_primary_key (id bigint PRIMARY KEY, org int, name text);
CREATE TABLE by_index (id bigint PRIMARY KEY, org int NOT NULL, name text);
CREATE UNIQUE INDEX by_index_key ON by_index (org, id);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
CREATE TABLE by_nothing (id bigint PRIMARY KEY, org int, name text);
ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE by_full (id bigint PRIMARY KEY, org int, name varchar(20));
ALTER TABLE by_full REPLICA IDENTITY FULL;

BEGIN;
INSERT INTO by_primary_key VALUES (1, 10, 'one');
UPDATE by_primary_key SET org = 11;
UPDATE by_primary_key SET id = 2;
DELETE FROM by_primary_key;
COMMIT;

BEGIN;
INSERT INTO by_index VALUES (1, 10, 'one');
UPDATE by_index SET name = 'eins';
UPDATE by_index SET org = 11;
DELETE FROM by_index;
COMMIT;

-- Published updates and deletes are refused without an identity: inserts only.
BEGIN;
INSERT INTO by_nothing VALUES (1, 10, 'one');
COMMIT;

BEGIN;
INSERT INTO by_full VALUES (1, 10, NULL);
UPDATE by_full SET org = 11;
DELETE FROM by_full;
COMMIT;
