-- Rows for the demo and the tests, the same ones each time. Set these before, as in
-- `set demo.deals = 1000000`, for other sizes:
--
--   demo.organizations  50
--   demo.users          2000
--   demo.deals          50000
--   demo.clients        80, of each organization
--   demo.today          the day before which all of it was made (default: today, UTC)
--
-- Plain SQL, no psql commands: runs through any client as one batch, in a few seconds.
-- Users and deals are spread unevenly, as in life: the first organizations are large.

-- The one source of chance: a number from 0 to sides - 1 that depends on nothing else.
create function pg_temp.roll(n bigint, salt bigint, sides bigint) returns bigint
    language sql immutable parallel safe
    as $$ select abs(mod(hashint8extended(n, salt), sides)) $$;

create function pg_temp.size(setting text, size int) returns int
    language sql stable
    as $$ select coalesce(nullif(current_setting('demo.' || setting, true), '')::int, size) $$;

create function pg_temp.today() returns timestamptz
    language sql stable
    as $$ select coalesce(nullif(current_setting('demo.today', true), '')::date, (now() at time zone 'UTC')::date)::timestamp at time zone 'UTC' $$;

-- Django's own four permissions for each model, then those that the application adds.
insert into django_content_type (id, app_label, model)
select i, m[1], m[2]
  from (values (1, '{organization,organization}'::text[]),
               (2, '{authentication,user}'),
               (3, '{permissions,role}'),
               (4, '{clients,client}'),
               (5, '{project,project}'),
               (6, '{deals,deal}'),
               (7, '{deals,payment}'),
               (8, '{auth,permission}'),
               (9, '{contenttypes,contenttype}')) t (i, m);

insert into auth_permission (id, name, content_type_id, codename)
select (c.id - 1) * 4 + v.i, 'Can ' || v.verb || ' ' || c.model, c.id, v.verb || '_' || c.model
  from django_content_type c
 cross join (values (1, 'add'), (2, 'change'), (3, 'delete'), (4, 'view')) v (i, verb);

insert into auth_permission (id, name, content_type_id, codename)
values (37, 'Can verify deals and their payments', 6, 'verify_deal'),
       (38, 'Can see analytics', 6, 'view_analytics'),
       (39, 'Can export reports', 6, 'export_report'),
       (40, 'Can export the organization''s data', 1, 'export_organization');

insert into organization_organization (id, name, description, is_active, sales_goal, created_at, updated_at)
select i,
       case i when 3 then 'Quote "&" Söhne' when 4 then '東京 Trading {generation}:%' else 'Organization ' || i end,
       'An organization of the demo.',
       i % 17 <> 0,
       case when i % 5 <> 0 then 10000 * (1 + pg_temp.roll(i, 11, 90)) end,
       pg_temp.today() - make_interval(days => (400 + pg_temp.roll(i, 12, 1000))::int, secs => pg_temp.roll(i, 13, 86400000000) / 1e6),
       pg_temp.today() - make_interval(days => pg_temp.roll(i, 14, 400)::int)
  from generate_series(1, pg_temp.size('organizations', 50)) i;

-- Three global roles; each organization has four of its own, of which one is named like a
-- global one. The last of an organization has no permissions.
insert into permissions_role (id, name, organization_id)
values (1, 'Organization Admin', null), (2, 'Support', null), (3, 'Auditor', null);

insert into permissions_role (id, name, organization_id)
select 4 * o.id + r.i, r.name, o.id
  from organization_organization o
 cross join (values (0, 'Organization Admin'), (1, 'Salesperson'), (2, 'Verifier'), (3, 'Trainee')) r (i, name);

insert into permissions_role_permissions (role_id, permission_id)
select r.id, p.id
  from permissions_role r
  join auth_permission p
    on case r.name
           when 'Organization Admin' then p.content_type_id <= 7
           when 'Support' then p.codename like 'view\_%' or p.codename = 'change_user'
           when 'Auditor' then p.codename like 'view\_%' or p.codename like 'export\_%'
           when 'Salesperson' then p.codename ~ '^(add|change|view)_(client|deal|payment|project)$'
           when 'Verifier' then p.codename in ('view_deal', 'view_payment', 'change_payment', 'verify_deal')
           else false
       end
   and not (p.codename = 'verify_deal' and r.organization_id is null) -- no global role has it
   and pg_temp.roll(r.id, p.id, 20) > 0 -- so that no two organizations are quite alike
 order by r.id, p.id;

-- Every 40th has no role, every 60th no organization; some are inactive; five superusers.
insert into authentication_user
       (id, password, last_login, is_superuser, email, first_name, last_name, phone,
        is_staff, is_active, date_joined, organization_id, role_id)
select i,
       '!demo', -- what Django writes where nobody can log in
       case when i % 7 <> 0 then pg_temp.today() - make_interval(secs => pg_temp.roll(i, 21, 3000000)) end,
       i <= 5,
       'user' || i || '@example.com',
       (array['Ada', 'Björn', 'Chiara', 'Dmitri', 'Esra', 'Fatou', 'Grace', 'Hiro'])[1 + pg_temp.roll(i, 22, 8)],
       (array['Abe', 'Brandt', 'Costa', 'Diaz', 'Eze', 'Fischer', 'Gurung', 'O''Hara'])[1 + pg_temp.roll(i, 23, 8)],
       '+1-555-' || lpad((i % 10000)::text, 4, '0'),
       i <= 5,
       pg_temp.roll(i, 24, 12) > 0,
       pg_temp.today() - make_interval(days => pg_temp.roll(i, 25, 900)::int),
       org,
       case when i % 40 = 0 then null
            when org is null or pg_temp.roll(i, 26, 15) = 0 then 1 + pg_temp.roll(i, 27, 3)
            else 4 * org + case pg_temp.roll(i, 28, 10) when 0 then 0 when 1 then 2 when 2 then 2 when 3 then 3 else 1 end
       end
  from (select i,
               case when i % 60 = 0 then null
                    -- every organization has somebody, the first ones most
                    when i <= n then i
                    else 1 + floor(n * power(pg_temp.roll(i, 29, 1000000) / 1e6, 2))::bigint
               end as org
          from generate_series(1, pg_temp.size('users', 2000)) i,
               pg_temp.size('organizations', 50) n) u;

insert into clients_client (id, client_name, email, phone, remarks, organization_id, created_at, updated_at)
select (o.id - 1) * n + i,
       case when pg_temp.roll(o.id, 1000 + i, 50) = 0 then 'Acme "100%_" Åkesson' -- shared by several
            else (array['Acme', 'Borealis', 'Cobalt', 'Dune', 'Everest', 'Fjord', 'Granite', 'Himal', 'Iris', 'Juniper'])[1 + (i * 7 + o.id) % 10]
                 || ' ' || (array['Labs', 'Traders', 'Foods', 'Media', 'Motors', 'Energy', 'Textiles'])[1 + (i * 3 + o.id) % 7]
                 || ' ' || i
       end,
       'client' || i || '@organization' || o.id || '.example.com',
       '', null, o.id, o.created_at, o.updated_at
  from organization_organization o,
       pg_temp.size('clients', 80) n,
       generate_series(1, n) i;

insert into project_project (id, name, status, organization_id, client_id, created_at)
select c.id, 'Project for ' || c.client_name, (array['open', 'done'])[1 + c.id % 2], c.organization_id, c.id, c.created_at
  from clients_client c
 where c.id % 10 = 0;

-- Half of the deals are of the last 90 days, the others of the last three years. One in a
-- thousand is with another organization's client.
insert into deals_deal
       (id, deal_id, organization_id, client_id, project_id, deal_name, deal_value, currency,
        verification_status, payment_status, payment_method, source_type,
        deal_date, due_date, deal_remarks, created_at, updated_at)
select md5('deal ' || i)::uuid,
       'DLID' || lpad(i::text, 7, '0'),
       org,
       client,
       case when client % 10 = 0 then client end,
       (array['Website', 'Annual licence', 'Support plan', 'Training', 'Migration', 'Été campaign', 'Audit', 'Hardware'])[1 + pg_temp.roll(i, 31, 8)]
           || ' ' || (array['small', 'medium', 'large', 'renewal', 'pilot'])[1 + pg_temp.roll(i, 32, 5)] || ' #' || i,
       (100 + pg_temp.roll(i, 33, 5000000)) / 100.0,
       (array['USD', 'USD', 'USD', 'EUR', 'NPR'])[1 + pg_temp.roll(i, 34, 5)],
       (array['verified', 'verified', 'verified', 'verified', 'pending', 'pending', 'rejected'])[1 + pg_temp.roll(i, 35, 7)],
       (array['initial payment', 'partial_payment', 'partial_payment', 'full_payment'])[1 + pg_temp.roll(i, 36, 4)],
       (array['wallet', 'bank', 'bank', 'cheque', 'cash'])[1 + pg_temp.roll(i, 37, 5)],
       (array['linkedin', 'instagram', 'google', 'google', 'referral', 'others'])[1 + pg_temp.roll(i, 38, 6)],
       (created at time zone 'UTC')::date,
       (created at time zone 'UTC')::date + 30,
       case when i % 3 = 0 then 'Called twice; asked for an offer in writing.' end,
       created,
       created
  from (select i, org,
               case when pg_temp.roll(i, 41, 1000) = 0 then 1 + pg_temp.roll(i, 42, organizations * clients)
                    else (org - 1) * clients + 1 + pg_temp.roll(i, 43, clients)
               end as client,
               pg_temp.today() - make_interval(
                   secs => pg_temp.roll(i, 44, (case when i % 2 = 0 then 90 else 1095 end) * 86400::bigint * 1000000) / 1e6) as created
          from (select i, 1 + floor(organizations * power(pg_temp.roll(i, 45, 1000000) / 1e6, 2))::bigint as org, organizations, clients
                  from generate_series(1, pg_temp.size('deals', 50000)) i,
                       pg_temp.size('organizations', 50) organizations,
                       pg_temp.size('clients', 80) clients) o) d;

insert into deals_payment (deal_id, received_amount, status, payment_date, remarks, created_at)
select id,
       round(deal_value / (case payment_status when 'full_payment' then 1 when 'partial_payment' then 2 else 10 end), 2),
       case verification_status when 'pending' then 'initiated' else verification_status end,
       deal_date, null, created_at
  from deals_deal
 where right(deal_id, 1) < '6';

-- The next row that the application inserts gets the next number.
select setval(pg_get_serial_sequence('django_content_type', 'id'), (select max(id) from django_content_type)),
       setval(pg_get_serial_sequence('auth_permission', 'id'), (select max(id) from auth_permission)),
       setval(pg_get_serial_sequence('organization_organization', 'id'), (select max(id) from organization_organization)),
       setval(pg_get_serial_sequence('permissions_role', 'id'), (select max(id) from permissions_role)),
       setval(pg_get_serial_sequence('authentication_user', 'id'), (select max(id) from authentication_user)),
       setval(pg_get_serial_sequence('clients_client', 'id'), (select max(id) from clients_client)),
       setval(pg_get_serial_sequence('project_project', 'id'), (select max(id) from project_project));

drop function pg_temp.roll, pg_temp.size, pg_temp.today;

analyze;
