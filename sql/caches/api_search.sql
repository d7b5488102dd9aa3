-- The deals of an organization whose name, number or client's name contains the text, case
-- aside: how many, and the latest fifty. Nothing in the text is a wildcard.
with clients as materialized (
    select c.id
      from clients_client c
     -- An array, so that they are fetched by id, however many clients others have.
     where c.id = any (array(select distinct d.client_id from deals_deal d where d.organization_id = $org_id::bigint))
       and strpos(lower(c.client_name), lower($q::text)) > 0
),
found as materialized (
    select d.id, d.deal_id, d.deal_name, d.client_id, d.deal_value, d.verification_status, d.payment_status, d.deal_date
      from deals_deal d
     where d.organization_id = $org_id::bigint
       and (strpos(lower(d.deal_name), lower($q::text)) > 0
            or strpos(lower(d.deal_id), lower($q::text)) > 0
            or d.client_id in (select id from clients))
)
select row_to_json(value) as value
  from (select $q::text as query,
               (select count(*) from found) as count,
               array_to_json(array(
                   select row_to_json(deal)
                     from (select f.id,
                                  f.deal_id,
                                  f.deal_name,
                                  c.client_name,
                                  round(f.deal_value, 2)::text as deal_value,
                                  f.verification_status,
                                  f.payment_status,
                                  f.deal_date
                             from (select * from found order by deal_date desc, id limit 50) f
                             left join clients_client c on c.id = f.client_id
                            order by f.deal_date desc, f.id) deal
               )) as deals) value
