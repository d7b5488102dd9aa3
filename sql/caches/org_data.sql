-- An organization and its figures. No row when there is no such organization.
select row_to_json(value) as value
  from (select o.id,
               o.name,
               o.is_active,
               to_char(o.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
               (select row_to_json(statistics)
                  from (select users.total_users,
                               users.active_users,
                               deals.total_deals,
                               deals.verified_deals,
                               deals.total_deal_value
                          from (select count(*) as total_users,
                                       count(*) filter (where u.is_active) as active_users
                                  from authentication_user u
                                 where u.organization_id = o.id) users,
                               (select count(*) as total_deals,
                                       count(*) filter (where d.verification_status = 'verified') as verified_deals,
                                       round(coalesce(sum(d.deal_value), 0), 2)::text as total_deal_value
                                  from deals_deal d
                                 where d.organization_id = o.id) deals
                       ) statistics
               ) as statistics
          from organization_organization o
         where o.id = $org_id::bigint) value
