-- Transactions larger than logical_decoding_work_mem come in blocks, before their end is known.
CREATE TYPE kind AS ENUM ('a', 'b');
CREATE TABLE big (id int PRIMARY KEY, kind kind);
CREATE TABLE other (id int PRIMARY KEY);
INSERT INTO big VALUES (0, 'a');

-- A subtransaction is rolled back, the rest is committed.
BEGIN;
INSERT INTO big SELECT n, 'b' FROM generate_series(1, 100) n;
SAVEPOINT s;
INSERT INTO big SELECT n, 'b' FROM generate_series(101, 700) n;
ROLLBACK TO s;
SELECT pg_logical_emit_message(true, 'unstale', 'in a block');
UPDATE big SET id = 1000000 WHERE id = 1;
DELETE FROM big WHERE id = 2;
TRUNCATE other;
INSERT INTO big SELECT n, 'b' FROM generate_series(701, 1200) n;
COMMIT;

-- All of it is rolled back.
BEGIN;
INSERT INTO big SELECT n, 'a' FROM generate_series(2001, 2700) n;
ROLLBACK;

-- From elsewhere.
SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('1/2345678', '2024-02-29 12:34:56.789012+00');
INSERT INTO big SELECT n, 'a' FROM generate_series(3001, 3700) n;
COMMIT;
SELECT pg_replication_origin_session_reset();
