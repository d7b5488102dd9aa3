from django.contrib.auth.models import Permission
from django.db import models


class Role(models.Model):
    name = models.CharField(max_length=100)
    # None: a global role, which every organization has.
    organization = models.ForeignKey("organization.Organization", models.CASCADE, null=True)
    permissions = models.ManyToManyField(Permission)

    class Meta:
        unique_together = [("name", "organization")]
