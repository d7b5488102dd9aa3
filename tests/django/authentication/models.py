from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """Logs in by email. What it may do comes from its role alone."""

    username = None
    groups = None
    user_permissions = None
    email = models.EmailField(unique=True)
    phone = models.CharField(max_length=30, default="")
    organization = models.ForeignKey("organization.Organization", models.SET_NULL, null=True)
    role = models.ForeignKey("permissions.Role", models.SET_NULL, null=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []
