"""What each cache has to hold, computed by Django's ORM: a second opinion on sql/caches.

It follows the product's description and not the SQL. Sums are made by the database, as
an application would; what is derived from them is made here.
"""

import functools
from datetime import datetime, time, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal

from django.db.models import Avg, Count, Q, Sum
from django.db.models.functions import TruncDate

from authentication.models import User
from deals.models import Deal
from organization.models import Organization
from permissions.models import Role


def money(value):
    return str((value or Decimal(0)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def moment(value):
    return value.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@functools.cache
def users():
    """All users by id, with all that is asked of them. Emptied before each computation."""
    found = User.objects.select_related("organization")
    return {user.pk: user for user in found.prefetch_related("role__permissions__content_type")}


def by_id(queryset):
    return sorted(queryset.all(), key=lambda row: row.pk)


def org_data(org_id):
    organization = Organization.objects.filter(pk=org_id).first()
    if organization is None:
        return None
    deals = Deal.objects.filter(organization=organization).aggregate(
        count=Count("pk"),
        verified=Count("pk", filter=Q(verification_status="verified")),
        sum=Sum("deal_value"),
    )
    members = User.objects.filter(organization=organization)
    return {
        "id": organization.id,
        "name": organization.name,
        "is_active": organization.is_active,
        "created_at": moment(organization.created_at),
        "statistics": {
            "total_users": members.count(),
            "active_users": members.filter(is_active=True).count(),
            "total_deals": deals["count"],
            "verified_deals": deals["verified"],
            "total_deal_value": money(deals["sum"]),
        },
    }


def user_perms(user_id, org_id):
    user = users().get(user_id)
    if user is None or user.organization_id != org_id:
        return None
    return {
        "user_id": user.id,
        "organization_id": user.organization_id,
        "role": user.role
        and {
            "id": user.role.id,
            "name": user.role.name,
            "permissions": [
                {
                    "id": permission.id,
                    "codename": permission.codename,
                    "name": permission.name,
                    "content_type": f"{permission.content_type.app_label}.{permission.content_type.model}",
                }
                for permission in by_id(user.role.permissions)
            ],
        },
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
    }


def identity(user_id):
    user = users().get(user_id)
    if user is None:
        return None
    return {
        "user_id": user.id,
        "organization_id": user.organization_id,
        "organization_is_active": user.organization and user.organization.is_active,
        "role_name": user.role and user.role.name,
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
    }


def role_info(org_id):
    listed = Role.objects.filter(Q(organization=org_id) | Q(organization=None))
    active = Q(user__organization=org_id, user__is_active=True)
    roles = []
    statistics = {}
    for role in by_id(listed.annotate(users=Count("user", filter=active)).prefetch_related("permissions")):
        permissions = by_id(role.permissions)
        counts = {"user_count": role.users, "permissions_count": len(permissions)}
        roles.append(
            {
                "id": role.id,
                "name": role.name,
                **counts,
                "permissions": [{"codename": p.codename, "name": p.name} for p in permissions],
            }
        )
        # Of two equal names the organization's own wins.
        if role.organization_id is not None or role.name not in statistics:
            statistics[role.name] = counts
    return {"organization_id": org_id, "roles": roles, "role_statistics": statistics}


def deal_stats(org_id, days):
    first_day = datetime.now(timezone.utc).date() - timedelta(days=days - 1)
    deals = Deal.objects.filter(
        organization=org_id,
        created_at__gte=datetime.combine(first_day, time.min, timezone.utc),
    )

    def having(**what):
        return Count("pk", filter=Q(**what))

    basic = deals.aggregate(
        total_deals=Count("pk"),
        verified_deals=having(verification_status="verified"),
        pending_deals=having(verification_status="pending"),
        rejected_deals=having(verification_status="rejected"),
        total_value=Sum("deal_value"),
        avg_deal_value=Avg("deal_value"),
        full_payment_deals=having(payment_status="full_payment"),
        partial_payment_deals=having(payment_status="partial_payment"),
    )
    for name in ("total_value", "avg_deal_value"):
        basic[name] = money(basic[name])

    def figures(name, value, row):
        return {name: value, "count": row["count"], "total_value": money(row["sum"])}

    def by(field):
        groups = deals.values(field).annotate(count=Count("pk"), sum=Sum("deal_value"))
        return [figures(field, row[field], row) for row in sorted(groups, key=lambda row: row[field])]

    trends = deals.values(date=TruncDate("created_at"))
    trends = trends.annotate(count=Count("pk"), sum=Sum("deal_value")).order_by("date")
    top = deals.values("client_id", "client__client_name")
    top = top.annotate(count=Count("pk"), sum=Sum("deal_value")).order_by("-sum", "client_id")[:10]
    return {
        "organization_id": org_id,
        "period_days": days,
        "basic_stats": basic,
        "daily_trends": [figures("date", row["date"].isoformat(), row) for row in trends],
        "source_distribution": by("source_type"),
        "payment_method_distribution": by("payment_method"),
        "top_clients": [
            {
                "client_name": row["client__client_name"],
                "deal_count": row["count"],
                "total_value": money(row["sum"]),
            }
            for row in top
        ],
    }


CACHES = {cache.__name__: cache for cache in (org_data, user_perms, identity, role_info, deal_stats)}


def compute(entries):
    users.cache_clear()
    return {key: CACHES[name](**parameters) for name, parameters, key in entries}


def entries(days):
    """All that these caches can hold: the cache, its parameters, and the key."""
    found = []
    for org in Organization.objects.order_by("id").values_list("id", flat=True):
        found.append(("org_data", {"org_id": org}, f"v1:org:data:{org}"))
        found.append(("role_info", {"org_id": org}, f"v1:role_info:{org}"))
        for n in days:
            found.append(("deal_stats", {"org_id": org, "days": n}, f"v1:deal_stats:{org}:{n}"))
    for user, org in User.objects.order_by("id").values_list("id", "organization_id"):
        found.append(("identity", {"user_id": user}, f"v1:identity:{user}"))
        if org is not None:
            parameters = {"user_id": user, "org_id": org}
            found.append(("user_perms", parameters, f"v1:user_perms:{user}:{org}"))
    return found
