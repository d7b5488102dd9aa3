"""A Django project as the default configuration expects it, on the test's own servers."""

import os

SECRET_KEY = "of the tests"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "authentication.User"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "organization",
    "permissions",
    "authentication",
    "clients",
    "project",
    "deals",
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["TEST_POSTGRES_HOST"],
        "PORT": os.environ["TEST_POSTGRES_PORT"],
        "USER": "postgres",
        "NAME": "postgres",
    }
}

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": os.environ["TEST_REDIS_URL"],
        "KEY_PREFIX": "prs_cache",
        "OPTIONS": {"SERIALIZER": "django_redis.serializers.json.JSONSerializer"},
    }
}
