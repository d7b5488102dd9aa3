"""Every way in which a Django application writes, one function each.

Each returns the keys whose values it changes for certain; the test finds out about
others by itself. Those that return none must not drop anything at all. Organization 1
is what most of them change, 3 is the one that goes, and 4 is a bystander.
"""

from datetime import date, timedelta
from decimal import Decimal

from django.contrib.auth.models import Group, Permission, update_last_login
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from authentication.models import User
from clients.models import Client
from deals.models import Deal, Payment
from organization.models import Organization
from permissions.models import Role

WRITES = {}


def write(function):
    WRITES[function.__name__] = function
    return function


def figures(*orgs):
    """The entries that a deal of today or its value changes."""
    return [key for org in orgs for key in (f"v1:org:data:{org}", f"v1:deal_stats:{org}:30")]


def perms(users):
    return [f"v1:user_perms:{user.id}:{user.organization_id}" for user in users]


def identities(users):
    return [f"v1:identity:{user.id}" for user in users]


def recent(org):
    """Deals that the last 30 days count, the same ones each time."""
    since = timezone.now() - timedelta(days=25)
    return Deal.objects.filter(organization=org, created_at__gt=since).order_by("id")


def role(name, org):
    return Role.objects.get(name=name, organization=org)


def holders(role):
    users = list(User.objects.filter(role=role).exclude(organization=None).order_by("id"))
    assert users, f"nobody has the role {role.name}: the write would prove little"
    return users


def deal(number, org, **fields):
    client = Client.objects.filter(organization=org).order_by("id").first()
    fields = {"deal_name": "new", "deal_value": Decimal("12.34"), **fields}
    return Deal(deal_id=f"NEW{number}", organization_id=org, client=client, **fields)


def prepare():
    """What django.contrib.auth has and the demo's schema does without: deleting a
    permission asks for the groups that have it. And somebody in each role."""
    with connection.schema_editor() as editor:
        editor.create_model(Group)
    for org in Organization.objects.order_by("id"):
        for name in ("Salesperson", "Verifier", "Trainee"):
            User.objects.create(
                email=f"{name}@{org.id}.example.com", organization=org, role=role(name, org)
            )
    support = role("Support", None)
    for org in (1, 2):
        User.objects.create(email=f"support@{org}.example.com", organization_id=org, role=support)


def unusual_rows():
    """Rows that the demo does not have and a loader could get wrong."""
    names = ["", "back\\slash", "line\nbreak\ttab", "\u2028\x7f</script>", "emoji 🦀", "null", "{org_id}"]
    for name in names:
        Organization.objects.create(name=name)
    Organization.objects.filter(name="null").update(
        created_at="1999-12-31T23:59:59.999999+14:00", is_active=False
    )
    own, other = Organization.objects.order_by("-id")[:2]
    client = Client.objects.create(client_name='"\\"', organization=own)
    twin = Client.objects.create(client_name='"\\"', organization=other)
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    instant = timedelta(microseconds=1)
    moments = [midnight - timedelta(days=n) + edge for n in (0, 6, 7, 29, 30) for edge in (-instant, instant * 0)]
    values = ["0.00", "0.01", "-0.01", "9999999999999.99", "0.02", "0.01", "1.10", "1.10", "3", "-7.77"]
    for n, (moment, value) in enumerate(zip(moments, values, strict=True)):
        Deal.objects.create(
            deal_id=f"D{n}",
            organization=own,
            client=(client, twin)[n % 2],
            deal_value=Decimal(value),
            source_type=("é", "Z", "a", "_")[n % 4],
            payment_method=("", "Bank", "bank")[n % 3],
            created_at=moment,
        )
    # An average that lies exactly between two cents, and sums that tie.
    for n, value in enumerate(["0.01", "0.02"]):
        for client in (twin, Client.objects.create(client_name=f"tie {n}", organization=other)):
            Deal.objects.create(deal_id=f"T{n}{client.id}", organization=other, client=client, deal_value=Decimal(value))
    content_type = ContentType.objects.create(app_label="dotted.app", model='mod"el')
    odd = Permission.objects.create(codename="odd\n", name="Can't \"do\"", content_type=content_type)
    # Two global roles with one name, and one of the organization's own.
    twins = [Role.objects.create(name="Ünïque", organization=o) for o in (None, None, own)]
    twins[0].permissions.add(odd)
    Role.objects.create(name="", organization=own).permissions.set([odd, *Permission.objects.all()[:3]])
    for n, (org, role_, active) in enumerate(
        [(own, twins[0], True), (own, twins[2], False), (own, None, True), (None, twins[1], True), (other, twins[2], True)]
    ):
        User.objects.create(
            email=f"odd{n}@example.com", organization=org, role=role_, is_active=active, is_superuser=n == 1
        )


@write
def model_save():
    organization = Organization.objects.get(pk=1)
    organization.name += " & Söhne"
    organization.save()
    return ["v1:org:data:1"]


@write
def queryset_update():
    assert recent(1).update(deal_value=F("deal_value") + 1) > 0
    return figures(1)


@write
def queryset_update_that_moves_a_user():
    user = holders(role("Salesperson", 1))[0]
    User.objects.filter(pk=user.pk).update(organization=2)
    return ["v1:org:data:1", "v1:org:data:2", "v1:role_info:1", *perms([user]), *identities([user])]


@write
def queryset_update_that_moves_deals():
    ids = recent(1).values_list("pk")[:2]
    assert Deal.objects.filter(pk__in=list(ids.values_list("pk", flat=True))).update(organization=2) == 2
    return figures(1, 2)


@write
def queryset_update_across_a_relation():
    Organization.objects.filter(user__role__name="Verifier", pk=2).update(is_active=False)
    return ["v1:org:data:2", *identities(User.objects.filter(organization=2))]


@write
def queryset_update_of_a_clients_name():
    client = recent(1).filter(client__organization=1).order_by("-deal_value").first().client
    Client.objects.filter(pk=client.pk).update(client_name="Renamed")
    return ["v1:deal_stats:1:30"]


@write
def queryset_update_of_a_content_type():
    content_type = ContentType.objects.filter(app_label="deals", model="deal")
    content_type.update(model="bargain")
    return perms(holders(role("Salesperson", 1)))


@write
def login_and_columns_that_no_cache_reads():
    user = User.objects.filter(organization=1).first()
    update_last_login(None, user)
    User.objects.filter(organization=1).update(first_name="Same", phone="1")
    Deal.objects.filter(organization=1).update(deal_remarks="Called.", due_date=date(2030, 1, 1))
    return []


@write
def bulk_create():
    Deal.objects.bulk_create([deal(n, org) for org in (1, 2) for n in range(20)], batch_size=7)
    return figures(1, 2)


@write
def bulk_create_with_update_conflicts():
    deals = [deal(n, 1, deal_value=Decimal("99.99")) for n in range(10)]
    Deal.objects.bulk_create(
        deals,
        update_conflicts=True,
        unique_fields=["organization", "deal_id"],
        update_fields=["deal_value"],
    )
    return figures(1)


@write
def bulk_create_that_ignores_conflicts():
    Deal.objects.bulk_create([deal(n, 1) for n in range(10)], ignore_conflicts=True)
    return []


@write
def bulk_update():
    deals = list(recent(1))
    for each in deals:
        each.payment_status, each.deal_value = "full_payment", each.deal_value * 2
    assert Deal.objects.bulk_update(deals, ["payment_status", "deal_value"], batch_size=5) > 5
    return figures(1)


@write
def raw_sql():
    with connection.cursor() as cursor:
        cursor.execute(
            "update authentication_user set is_active = not is_active where organization_id = %s", [1]
        )
        assert cursor.rowcount > 0
    users = User.objects.filter(organization=1)
    return ["v1:org:data:1", *perms(users), *identities(users)]


@write
def raw_sql_that_writes_in_a_select():
    with connection.cursor() as cursor:
        cursor.execute(
            "with gone as (delete from permissions_role_permissions where role_id = %s returning id)"
            " select count(*) from gone",
            [role("Verifier", 1).pk],
        )
        assert cursor.fetchone()[0] > 0
    return ["v1:role_info:1", *perms(holders(role("Verifier", 1)))]


@write
def copy_through_the_driver():
    statement = """copy deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value,
                   verification_status, payment_status, payment_method, source_type, deal_date,
                   created_at, updated_at) from stdin"""
    now = timezone.now()
    deals = [deal(f"COPY{n}", 1, deal_name="copied\t\\N") for n in range(50)]
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for d in deals:
            copy.write_row(
                (d.id, d.deal_id, d.organization_id, d.client_id, d.deal_name, d.deal_value,
                 "verified", "full_payment", "cash", "others", d.deal_date, now, now)
            )
    return figures(1)


@write
def model_delete():
    victim = Payment.objects.filter(deal__in=recent(1)).first().deal
    _, by_model = victim.delete()
    assert by_model["deals.Payment"] > 0, "its payments go with it, by Django's hand"
    return figures(1)


@write
def queryset_delete():
    count, _ = Deal.objects.filter(organization=1, deal_id__startswith="NEW").delete()
    assert count > 0
    return figures(1)


@write
def queryset_raw_delete():
    """One DELETE without looking at the rows, as Django does where nothing hangs on them."""
    queryset = Role.permissions.through.objects.filter(role=role("Trainee", 2))
    Role.permissions.through.objects.create(role=role("Trainee", 2), permission_id=1)
    queryset._raw_delete(queryset.db)
    Role.permissions.through.objects.create(role=role("Trainee", 2), permission_id=2)
    return ["v1:role_info:2", *perms(holders(role("Trainee", 2)))]


@write
def m2m_add():
    trainee = role("Trainee", 1)
    trainee.permissions.add(*Permission.objects.order_by("id")[:5])
    return ["v1:role_info:1", *perms(holders(trainee))]


@write
def m2m_add_of_what_is_there():
    role("Trainee", 1).permissions.add(*Permission.objects.order_by("id")[:5])
    return []


@write
def m2m_add_from_the_other_side():
    trainee = role("Trainee", 1)
    Permission.objects.order_by("id").last().role_set.add(trainee)
    return ["v1:role_info:1", *perms(holders(trainee))]


@write
def m2m_remove():
    trainee = role("Trainee", 1)
    trainee.permissions.remove(trainee.permissions.first())
    return ["v1:role_info:1", *perms(holders(trainee))]


@write
def m2m_set():
    sales = role("Salesperson", 1)
    sales.permissions.set(Permission.objects.filter(codename__startswith="view_"))
    return ["v1:role_info:1", *perms(User.objects.filter(role=sales, organization=1))]


@write
def m2m_clear():
    trainee = role("Trainee", 1)
    trainee.permissions.clear()
    return ["v1:role_info:1", *perms(holders(trainee))]


@write
def m2m_of_a_global_role():
    support = role("Support", None)
    support.permissions.clear()
    return [*(f"v1:role_info:{org}" for org in (1, 2, 3, 4)), *perms(holders(support))]


@write
def select_for_update_transaction():
    with transaction.atomic():
        locked = recent(1).select_for_update().first()
        locked.deal_value += 1
        locked.save(update_fields=["deal_value"])
        user = User.objects.select_for_update().filter(organization=1).first()
        user.is_superuser = not user.is_superuser
        user.save()
    return [*figures(1), *perms([user]), *identities([user])]


@write
def transaction_rolled_back():
    try:
        with transaction.atomic():
            Deal.objects.filter(organization=1).update(deal_value=F("deal_value") + 1)
            User.objects.filter(organization=1).delete()
            Organization.objects.filter(pk=1).update(name="never")
            role("Verifier", 1).permissions.clear()
            raise LookupError
    except LookupError:
        return []


@write
def savepoint_rolled_back():
    with transaction.atomic():
        recent(2).update(deal_value=F("deal_value") + 1)
        try:
            with transaction.atomic():
                Organization.objects.filter(pk=1).update(name="never")
                raise LookupError
        except LookupError:
            pass
        Organization.objects.filter(pk=2).update(name="renamed in the same transaction")
    return figures(2)


@write
def cascade_of_a_permission():
    permission = Permission.objects.get(codename="view_deal")
    users = User.objects.filter(role__permissions=permission).exclude(organization=None)
    expected = perms(users)
    assert expected
    permission.delete()
    return expected


@write
def cascade_of_a_role():
    gone = role("Verifier", 1)
    users = holders(gone)
    gone.delete()
    return ["v1:role_info:1", *perms(users), *identities(users)]


@write
def cascade_of_an_organization():
    users = list(User.objects.filter(organization=3))
    assert users
    expected = [*figures(3), "v1:role_info:3", *perms(users), *identities(users)]
    Organization.objects.get(pk=3).delete()
    return expected
