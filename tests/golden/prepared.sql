-- Two-phase commit, small and streamed.
CREATE TABLE big (id int PRIMARY KEY);

BEGIN;
INSERT INTO big VALUES (0);
PREPARE TRANSACTION 'to commit';
COMMIT PREPARED 'to commit';

BEGIN;
INSERT INTO big VALUES (-1);
PREPARE TRANSACTION 'to roll back';
ROLLBACK PREPARED 'to roll back';

BEGIN;
INSERT INTO big SELECT generate_series(1, 700);
PREPARE TRANSACTION 'large';
COMMIT PREPARED 'large';
