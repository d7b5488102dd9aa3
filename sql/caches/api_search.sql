-- The deals of an organization whose name, number or client's name contains the text, case
-- aside: how many, and the latest fifty. Nothing in the text is a wildcard.
with deals as materialized (
    select d.id, d.deal_id, d.deal_name, d.client_id, d.deal_value, d.verification_status, d.payment_status, d.deal_date
      from deals_deal d
     where d.organization_id = $org_id::bigint
),
clients as materialized (
    select c.id, c.client_name, strpos(lower(c.client_name), lower($q::text)) > 0 as matches
      from clients_client c
     where c.id in (select client_id from deals)
),
found as materialized (
    select d.*, c.client_name
      from deals d
      left join clients c on c.id = d.client_id
     where c.matches
        or strpos(lower(d.deal_name), lower($q::text)) > 0
        or strpos(lower(d.deal_id), lower($q::text)) > 0
)
select row_to_json(value) as value
  from (select $q::text as query,
               (select count(*) from found) as count,
               array_to_json(array(
                   select row_to_json(deal)
                     from (select id,
                                  deal_id,
                                  deal_name,
                                  client_name,
                                  round(deal_value, 2)::text as deal_value,
                                  verification_status,
                                  payment_status,
                                  deal_date
                             from found
                            order by deal_date desc, id
                            limit 50) deal
               )) as deals) value
