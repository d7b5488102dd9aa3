-- What a user may do in an organization. No row unless the user belongs to it: else a
-- warm-up after a move would fill the key of the organization that was left, for good.
select row_to_json(value) as value
  from (select u.id as user_id,
               u.organization_id,
               (select row_to_json(role)
                  from (select r.id,
                               r.name,
                               array_to_json(array(
                                   select row_to_json(permission)
                                     from (select p.id,
                                                  p.codename,
                                                  p.name,
                                                  ct.app_label || '.' || ct.model as content_type
                                             from permissions_role_permissions rp
                                             join auth_permission p on p.id = rp.permission_id
                                             join django_content_type ct on ct.id = p.content_type_id
                                            where rp.role_id = r.id
                                            order by p.id) permission
                               )) as permissions
                          from permissions_role r
                         where r.id = u.role_id) role
               ) as role,
               u.is_active,
               u.is_superuser
          from authentication_user u
         where u.id = $user_id::bigint
           and u.organization_id = $org_id::bigint) value
