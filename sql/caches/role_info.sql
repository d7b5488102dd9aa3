-- The roles of an organization, the global ones among them, with its active users in each.
-- Whether there is such an organization is not asked, so that a change of its own row need
-- not drop them.
with roles as (
    select r.id,
           r.name,
           r.organization_id is null as is_global,
           array_to_json(array(
               select row_to_json(permission)
                 from (select p.codename, p.name
                         from permissions_role_permissions rp
                         join auth_permission p on p.id = rp.permission_id
                        where rp.role_id = r.id
                        order by p.id) permission
           )) as permissions,
           (select count(*)
              from authentication_user u
             where u.role_id = r.id
               and u.organization_id = $org_id::bigint
               and u.is_active) as user_count
      from permissions_role r
     where r.organization_id = $org_id::bigint
        or r.organization_id is null
)
select row_to_json(value) as value
  from (select $org_id::bigint as organization_id,
               array_to_json(array(
                   select row_to_json(role)
                     from (select id,
                                  name,
                                  json_array_length(permissions) as permissions_count,
                                  permissions,
                                  user_count
                             from roles
                            order by id) role
               )) as roles,
               -- Of two equal names the organization's own role wins.
               (select ('{' || coalesce(string_agg(to_json(name)::text || ':' || row_to_json(counts)::text, ',' order by name collate "C"), '') || '}')::json
                  from (select distinct on (name) name, user_count, json_array_length(permissions) as permissions_count
                          from roles
                         order by name, is_global, id) named,
                       lateral (select named.user_count, named.permissions_count) counts
               ) as role_statistics) value
