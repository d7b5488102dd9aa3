from django.db import models


class Project(models.Model):
    name = models.CharField(max_length=255)
    status = models.CharField(max_length=20)
    organization = models.ForeignKey("organization.Organization", models.CASCADE)
    client = models.ForeignKey("clients.Client", models.SET_NULL, null=True)
    created_at = models.DateTimeField(auto_now_add=True)
