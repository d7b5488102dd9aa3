-- The users whose entries are warmed: of each organization (the active ones, or the one that is
-- named, by id, or by name if there is none of that id) the active users who logged in last, $users of them at the most; or the one that is
-- named ($user, by id).
select u.id as user_id,
       u.organization_id as org_id
  from organization_organization o
 cross join lateral (select id, organization_id
                       from authentication_user
                      where organization_id = o.id
                        and case when $user::text is null then is_active
                                 else id::text = $user::text end
                      order by last_login desc nulls last, id
                      limit $users::int) u
 where case when $organization::text is null then o.is_active
            when exists (select from organization_organization
                          where id::text = $organization::text)
            then o.id::text = $organization::text
            else o.name = $organization::text end
