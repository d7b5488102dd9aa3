"""The application's own cache, as such applications have it: values are stored when they are
computed, and receivers of `post_save` and `post_delete` remove what the changed row concerns.

They are careful: each removes all that its model can concern. What they miss, Django never tells
them of."""

from django.core.cache import cache
from django.db.models.signals import post_delete, post_save

import truth
from authentication.models import User
from deals.models import Deal
from organization.models import Organization
from permissions.models import Role


def of_organization(sender, instance, **_):
    users = User.objects.filter(organization=instance).values_list("id", flat=True)
    keys = [f"v1:identity:{user}" for user in users]
    cache.delete_many([f"v1:org:data:{instance.id}", f"v1:role_info:{instance.id}", *keys])


def of_user(sender, instance, **_):
    user, org = instance.id, instance.organization_id
    keys = [f"v1:identity:{user}", f"v1:user_perms:{user}:{org}"]
    cache.delete_many([*keys, f"v1:org:data:{org}", f"v1:role_info:{org}"])


def of_deal(sender, instance, **_):
    cache.delete(f"v1:org:data:{instance.organization_id}")


def of_role(sender, instance, **_):
    holders = User.objects.filter(role=instance).values_list("id", "organization_id")
    keys = [f"v1:user_perms:{user}:{org}" for user, org in holders]
    identities = [f"v1:identity:{user}" for user, _ in holders]
    cache.delete_many([*keys, *identities, f"v1:role_info:{instance.organization_id}"])


RECEIVERS = {Organization: of_organization, User: of_user, Deal: of_deal, Role: of_role}


def connect():
    for model, receiver in RECEIVERS.items():
        post_save.connect(receiver, sender=model)
        post_delete.connect(receiver, sender=model)


def fill(entries):
    """Computes each value and stores it."""
    values = {key: value for key, value in truth.compute(entries).items() if value is not None}
    cache.set_many(values, timeout=3600)
