-- The user's own part of the dashboard: the quick actions that the user's permissions
-- allow. A superuser may do all, an inactive user nothing, as Django has it. No row unless
-- the user belongs to the organization.
with actions (position, id, label, href, codename) as (
    values (1, 'create_deal', 'Create deal', '/deals/new/', 'add_deal'),
           (2, 'view_deals', 'View deals', '/deals/', 'view_deal'),
           (3, 'verify_deals', 'Verify deals', '/deals/verify/', 'verify_deal'),
           (4, 'record_payment', 'Record payment', '/payments/new/', 'add_payment'),
           (5, 'add_client', 'Add client', '/clients/new/', 'add_client'),
           (6, 'view_analytics', 'View analytics', '/analytics/', 'view_analytics'),
           (7, 'manage_users', 'Manage users', '/users/', 'change_user'),
           (8, 'manage_roles', 'Manage roles', '/roles/', 'change_role')
)
select row_to_json(value) as value
  from (select u.id as user_id,
               u.organization_id,
               array_to_json(array(
                   select row_to_json(action)
                     from (select a.id, a.label, a.href
                             from actions a
                            where u.is_active
                              and (u.is_superuser
                                   or exists (select
                                                from permissions_role_permissions rp
                                                join auth_permission p on p.id = rp.permission_id
                                               where rp.role_id = u.role_id
                                                 and p.codename = a.codename))
                            order by a.position) action
               )) as quick_actions
          from authentication_user u
         where u.id = $user_id::bigint
           and u.organization_id = $org_id::bigint) value
