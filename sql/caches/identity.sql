-- Who a user is, as far as access depends on it. No row when there is no such user.
select row_to_json(value) as value
  from (select u.id as user_id,
               u.organization_id,
               o.is_active as organization_is_active,
               r.name as role_name,
               u.is_active,
               u.is_superuser
          from authentication_user u
          left join organization_organization o on o.id = u.organization_id
          left join permissions_role r on r.id = u.role_id
         where u.id = $user_id::bigint) value
