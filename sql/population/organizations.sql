-- The organizations whose entries are warmed: the active ones, or the one that is named
-- ($organization, by name or id) whether it is active or not.
select o.id as org_id
  from organization_organization o
 where case when $organization::text is null then o.is_active
            else o.name = $organization::text or o.id::text = $organization::text end
