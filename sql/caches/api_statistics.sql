-- The figures of org_data alone. They follow from users and deals: whether there is such
-- an organization is not asked, so that a change of its own row need not drop them.
select row_to_json(value) as value
  from (select users.total_users,
               users.active_users,
               deals.total_deals,
               deals.verified_deals,
               deals.total_deal_value
          from (select count(*) as total_users,
                       count(*) filter (where u.is_active) as active_users
                  from authentication_user u
                 where u.organization_id = $org_id::bigint) users,
               (select count(*) as total_deals,
                       count(*) filter (where d.verification_status = 'verified') as verified_deals,
                       round(coalesce(sum(d.deal_value), 0), 2)::text as total_deal_value
                  from deals_deal d
                 where d.organization_id = $org_id::bigint) deals) value
