-- The option binary: values in their types' binary form, where there is one.
CREATE TABLE item (id bigint PRIMARY KEY, active bool, name text, acl aclitem);

BEGIN;
INSERT INTO item VALUES (258, true, 'thing', NULL);
UPDATE item SET acl = 'postgres=r/postgres';
UPDATE item SET id = 259;
COMMIT;
