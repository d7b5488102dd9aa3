-- The deals of an organization's last days: those whose local date is after today less the
-- number of days. Whether there is such an organization is not asked, so that a change of
-- its own row need not drop them.
with deals as materialized (
    select (d.created_at at time zone $timezone::text)::date as date,
           d.client_id,
           d.deal_value,
           d.verification_status,
           d.payment_status,
           d.payment_method,
           d.source_type
      from deals_deal d
     where d.organization_id = $org_id::bigint
       -- What the index can find, a day more than is wanted; then what is wanted.
       and d.created_at >= ((now() at time zone $timezone::text)::date - $days::int)::timestamp at time zone $timezone::text
       and (d.created_at at time zone $timezone::text)::date > (now() at time zone $timezone::text)::date - $days::int
)
select row_to_json(value) as value
  from (select $org_id::bigint as organization_id,
               $days::int as period_days,
               (select row_to_json(stats)
                  from (select count(*) as total_deals,
                               count(*) filter (where verification_status = 'verified') as verified_deals,
                               count(*) filter (where verification_status = 'pending') as pending_deals,
                               count(*) filter (where verification_status = 'rejected') as rejected_deals,
                               round(coalesce(sum(deal_value), 0), 2)::text as total_value,
                               round(coalesce(avg(deal_value), 0), 2)::text as avg_deal_value,
                               count(*) filter (where payment_status = 'full_payment') as full_payment_deals,
                               count(*) filter (where payment_status = 'partial_payment') as partial_payment_deals
                          from deals) stats
               ) as basic_stats,
               array_to_json(array(
                   select row_to_json(day)
                     from (select date, count(*) as count, round(sum(deal_value), 2)::text as total_value
                             from deals
                            group by date
                            order by date) day
               )) as daily_trends,
               array_to_json(array(
                   select row_to_json(source)
                     from (select source_type, count(*) as count, round(sum(deal_value), 2)::text as total_value
                             from deals
                            group by source_type
                            order by source_type collate "C") source
               )) as source_distribution,
               array_to_json(array(
                   select row_to_json(method)
                     from (select payment_method, count(*) as count, round(sum(deal_value), 2)::text as total_value
                             from deals
                            group by payment_method
                            order by payment_method collate "C") method
               )) as payment_method_distribution,
               array_to_json(array(
                   select row_to_json(client)
                     from (select c.client_name, top.deal_count, round(top.total, 2)::text as total_value
                             from (select client_id, count(*) as deal_count, sum(deal_value) as total
                                     from deals
                                    group by client_id
                                    order by total desc, client_id
                                    limit 10) top
                             left join clients_client c on c.id = top.client_id
                            order by top.total desc, top.client_id) client
               )) as top_clients) value
