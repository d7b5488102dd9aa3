BEGIN;
DROP EVENT TRIGGER IF EXISTS unstale_table_rewrite;
DROP EVENT TRIGGER IF EXISTS unstale_table_parts;
DROP EVENT TRIGGER IF EXISTS unstale_publication;
DROP EVENT TRIGGER IF EXISTS unstale_publication_part;
-- Not replaced: whoever had made one of this name before would go on being its owner.
DROP FUNCTION IF EXISTS unstale_table_rewrite();
DROP FUNCTION IF EXISTS unstale_publication_change();
CREATE FUNCTION unstale_table_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $unstale$
DECLARE
  changed oid[];
BEGIN
  IF TG_EVENT = 'table_rewrite' THEN
    -- ALTER TABLE is about to write every row anew, and no row of it is sent to anybody.
    changed := ARRAY[pg_event_trigger_table_rewrite_oid()];
  ELSE
    -- ATTACH PARTITION, DETACH PARTITION, INHERIT: rows have come or gone, and none is sent. Which
    -- of the forms of ALTER TABLE it was is not told, so each counts of what has partitions or
    -- is a child.
    SELECT array_agg(DISTINCT altered.objid) INTO changed
      FROM pg_event_trigger_ddl_commands() AS altered
      JOIN pg_class c ON c.oid = altered.objid AND altered.classid = 'pg_class'::regclass
     WHERE c.relkind = 'p'
        OR c.relkind IN ('r', 'f') AND NOT c.relispartition
           AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid);
    IF changed IS NULL THEN RETURN; END IF;
  END IF;
  PERFORM pg_logical_emit_message(true, 'unstale.rewrite', string_agg(above.id::text, ','))
     FROM (WITH RECURSIVE above (id) AS (
             SELECT unnest(changed)
              UNION
             SELECT i.inhparent FROM above JOIN pg_inherits i ON i.inhrelid = above.id)
           SELECT id FROM above) AS above;
END
$unstale$;
CREATE FUNCTION unstale_publication_change() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $unstale$
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    -- A publication that goes; a table or a schema that leaves one, by itself or because it goes.
    IF NOT EXISTS (
         SELECT FROM pg_event_trigger_dropped_objects()
          WHERE NOT is_temporary AND object_type IN
                ('publication', 'publication relation', 'publication namespace', 'table'))
    THEN RETURN; END IF;
  ELSIF TG_TAG IN ('ALTER TABLE', 'CREATE TABLE') THEN
    -- A table that takes another's name, moves to another schema, is UNLOGGED, has another replica
    -- identity; a partition that comes with one of its own. Which form it was is not told.
    IF NOT EXISTS (
         SELECT FROM pg_event_trigger_ddl_commands() AS altered
           JOIN pg_class c ON c.oid = altered.objid AND altered.classid = 'pg_class'::regclass
          WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
            AND (TG_TAG = 'ALTER TABLE' OR c.relispartition))
    THEN RETURN; END IF;
  END IF;
  -- Which tables it is about the daemon asks the catalog: a message too many costs it a question.
  PERFORM pg_logical_emit_message(true, 'unstale.publication', '');
END
$unstale$;
CREATE EVENT TRIGGER unstale_table_rewrite ON table_rewrite
  EXECUTE FUNCTION unstale_table_rewrite();
ALTER EVENT TRIGGER unstale_table_rewrite ENABLE ALWAYS;
CREATE EVENT TRIGGER unstale_table_parts ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
  EXECUTE FUNCTION unstale_table_rewrite();
ALTER EVENT TRIGGER unstale_table_parts ENABLE ALWAYS;
CREATE EVENT TRIGGER unstale_publication ON ddl_command_end
  WHEN TAG IN ('ALTER PUBLICATION', 'ALTER SCHEMA', 'ALTER TABLE', 'CREATE PUBLICATION', 'CREATE TABLE')
  EXECUTE FUNCTION unstale_publication_change();
ALTER EVENT TRIGGER unstale_publication ENABLE ALWAYS;
CREATE EVENT TRIGGER unstale_publication_part ON sql_drop
  EXECUTE FUNCTION unstale_publication_change();
ALTER EVENT TRIGGER unstale_publication_part ENABLE ALWAYS;
COMMIT;
