BEGIN;
CREATE OR REPLACE FUNCTION unstale_table_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $unstale$
BEGIN
  -- ALTER TABLE is about to write every row anew, and no row of it is sent to anybody.
  PERFORM pg_logical_emit_message(true, 'unstale.rewrite', string_agg(above.id::text, ','))
     FROM (WITH RECURSIVE above (id) AS (
             SELECT pg_event_trigger_table_rewrite_oid()
              UNION
             SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.id)
           SELECT id FROM above) AS above;
END
$unstale$;
DROP EVENT TRIGGER IF EXISTS unstale_table_rewrite;
CREATE EVENT TRIGGER unstale_table_rewrite ON table_rewrite
  EXECUTE FUNCTION unstale_table_rewrite();
COMMIT;
