from django.db import models


class Client(models.Model):
    client_name = models.CharField(max_length=255)
    email = models.EmailField(default="")
    phone = models.CharField(max_length=30, default="")
    remarks = models.TextField(null=True)
    organization = models.ForeignKey("organization.Organization", models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
