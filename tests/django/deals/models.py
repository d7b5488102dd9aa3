import uuid

from django.db import models
from django.utils import timezone


def today():
    return timezone.now().date()


class Deal(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    deal_id = models.CharField(max_length=50)
    organization = models.ForeignKey("organization.Organization", models.CASCADE)
    client = models.ForeignKey("clients.Client", models.CASCADE)
    project = models.ForeignKey("project.Project", models.SET_NULL, null=True)
    deal_name = models.CharField(max_length=255)
    deal_value = models.DecimalField(max_digits=15, decimal_places=2)
    currency = models.CharField(max_length=3, default="USD")
    verification_status = models.CharField(max_length=20, default="pending")
    payment_status = models.CharField(max_length=20, default="initial payment")
    payment_method = models.CharField(max_length=20, default="bank")
    source_type = models.CharField(max_length=20, default="google")
    deal_date = models.DateField(default=today)
    due_date = models.DateField(null=True)
    deal_remarks = models.TextField(null=True)
    # Not auto_now_add: deals are imported with the day that they were made on.
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        unique_together = [("organization", "deal_id")]


class Payment(models.Model):
    deal = models.ForeignKey(Deal, models.CASCADE)
    received_amount = models.DecimalField(max_digits=15, decimal_places=2)
    status = models.CharField(max_length=20)
    payment_date = models.DateField(default=today)
    cheque_number = models.CharField(max_length=50, default="")
    remarks = models.TextField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
