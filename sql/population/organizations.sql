-- The organizations whose entries are warmed: the active ones, or the one that is named
-- ($organization, by id, or by name if there is none of that id) whether it is active or not.
select o.id as org_id
  from organization_organization o
 where case when $organization::text is null then o.is_active
            when exists (select from organization_organization
                          where id::text = $organization::text)
            then o.id::text = $organization::text
            else o.name = $organization::text end
