-- Null, unchanged TOAST and value apart; types by name; names that need quotes.
CREATE TYPE status AS ENUM ('pending', 'verified');
CREATE DOMAIN amount AS numeric(12, 2);
CREATE TABLE deal (
    id uuid PRIMARY KEY,
    status status,
    amount amount,
    doubled numeric GENERATED ALWAYS AS (amount * 2) STORED,
    remarks text
);
ALTER TABLE deal ALTER remarks SET STORAGE EXTERNAL;
CREATE TABLE full_deal (id int PRIMARY KEY, org int, remarks text);
ALTER TABLE full_deal ALTER remarks SET STORAGE EXTERNAL;
ALTER TABLE full_deal REPLICA IDENTITY FULL;
CREATE TABLE "Größe ""x""" ("a b" text PRIMARY KEY, rule pg_catalog.pg_rules);
CREATE TABLE no_columns ();
CREATE TABLE visit (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE visit_2024 PARTITION OF visit FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');

BEGIN;
INSERT INTO deal (id, status, amount, remarks)
VALUES ('00000000-0000-0000-0000-000000000001', 'pending', 12.5, repeat('r', 2100)),
       ('00000000-0000-0000-0000-000000000002', NULL, NULL, '');
UPDATE deal SET status = 'verified' WHERE amount > 0;
COMMIT;

BEGIN;
INSERT INTO full_deal VALUES (1, 10, repeat('r', 2100));
UPDATE full_deal SET org = 11;
COMMIT;

BEGIN;
INSERT INTO "Größe ""x""" VALUES ('ä', NULL);
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO visit VALUES (1, '2024-02-29');
COMMIT;

-- The shape changes between two changes: the relation is announced again.
BEGIN;
INSERT INTO full_deal VALUES (2, NULL, NULL);
ALTER TABLE full_deal DROP COLUMN org;
ALTER TABLE full_deal RENAME COLUMN remarks TO notes;
INSERT INTO full_deal VALUES (3, 'n');
COMMIT;

ALTER PUBLICATION everything SET (publish_via_partition_root = true);
BEGIN;
INSERT INTO visit VALUES (2, '2024-02-29');
COMMIT;
