-- TRUNCATE with its options, logical messages, an origin.
CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE other (id int PRIMARY KEY);

BEGIN;
TRUNCATE parent CASCADE;
TRUNCATE other RESTART IDENTITY;
TRUNCATE other, child;
TRUNCATE parent RESTART IDENTITY CASCADE;
COMMIT;

BEGIN;
SELECT pg_logical_emit_message(true, 'unstale', 'in the transaction');
INSERT INTO other VALUES (1);
COMMIT;
SELECT pg_logical_emit_message(false, 'unstale', '\x00ff'::bytea);

SELECT pg_replication_origin_create('upstream');
SELECT pg_replication_origin_session_setup('upstream');
BEGIN;
SELECT pg_replication_origin_xact_setup('1/2345678', '2024-02-29 12:34:56.789012+00');
INSERT INTO other VALUES (2);
COMMIT;
SELECT pg_replication_origin_session_reset();
