"""
Tests of the masking of secrets.
"""

from __future__ import annotations

import time

import pytest
from sqlalchemy.engine import make_url

from stillroom.secrets import is_secret, mask_mapping, mask_text, mask_url, mask_value
from stillroom.settings.schema import DATABASE_KEYS, TOP_KEYS


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://shop:s3cret@db/shop", "postgresql://shop:***@db/shop"),
        ("redis://:s3cret@cache:6379/0", "redis://:***@cache:6379/0"),
        ("postgresql://shop:s3@cr/e?t@db/shop", "postgresql://shop:***@db/shop"),
        ("postgresql://shop:s3 cr\net@db/shop", "postgresql://shop:***@db/shop"),
        ("postgresql://shop@corp:s3cret@db/shop", "postgresql://shop@corp:***@db/shop"),
        (
            "postgresql://db/shop?password=s3cret&sslpassword=s3cret",
            "postgresql://db/shop?password=***&sslpassword=***",
        ),
        ("postgresql//shop:s3cret@db", "postgresql//shop:***@db"),
        ("shop:s3cret@db", "shop:***@db"),
    ],
)
def test_a_password_in_a_url_is_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///C:/data/x@y.db",
        "sqlite:////srv/shop.db",
        "postgresql://db:5432/shop",
        "postgresql://[::1]:5432/d?x=a@b",
    ],
)
def test_a_url_without_a_password_is_unchanged(url: str) -> None:
    assert mask_url(url) == url


def test_the_query_of_a_sqlalchemy_url_is_masked_too() -> None:
    url = make_url("postgresql://shop:s3cret@db/shop?sslpassword=s3cret")
    assert mask_url(url) == "postgresql://shop:***@db/shop?sslpassword=***"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("cannot reach postgresql://u:s3cret@h/d at all", "cannot reach postgresql://u:***@h/d at all"),
        ("postgresql://u:s3cret@h1/d,postgresql://u:s3cret@h2/d", "postgresql://u:***@h1/d,postgresql://u:***@h2/d"),
        ("'postgresql://u:s3'cret@h/d'", "'postgresql://u:***@h/d'"),
        ("mysql://u:my s3cret@h/d", "mysql://u:***@h/d"),
        (r"host=h password='s3 \' cret' user=u", "host=h password='***' user=u"),
        ("host=h password = s3&cret user=u", "host=h password = *** user=u"),
        ("Driver=x;PWD={s3;cret};Server=h", "Driver=x;PWD=***;Server=h"),
        ("connect(password='s3cret', host='h')", "connect(password='***', host='h')"),
        ("{'password': 's3cret', 'host': 'h'}", "{'password': '***', 'host': 'h'}"),
        ('{"api_token":"s3cret","n":1}', '{"api_token":"***","n":1}'),
        ("ALTER USER u PASSWORD 's3''cret' x", "ALTER USER u PASSWORD '***' x"),
        ("CREATE USER u IDENTIFIED BY 's3cret'", "CREATE USER u IDENTIFIED BY '***'"),
        ("password='s3 cret not closed", "password='***'"),
    ],
)
def test_passwords_in_a_text_are_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "see http://host:8080/x and mail a@b",
        "postgresql://h:5432/d failed for a@b",
        "Access denied for user 'u'@'h' (using password: YES)",
        'FATAL: password authentication failed for user "x"',
        "primary_key=True sslkey='/etc/key.pem' passenger=1",
    ],
)
def test_a_text_without_a_password_is_unchanged(text: str) -> None:
    assert mask_text(text) == text


@pytest.mark.parametrize(
    "piece", ["a://", "a:b@", "postgres://u:", "password=", "'password':", "a_b-", "password='", "pass", "a://u:", "@c"]
)
def test_masking_a_long_text_takes_linear_time(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece)) + "@"
        started = time.process_time()
        mask_text(text)
        mask_url(text)
        return time.process_time() - started

    # Quadratic time would be minutes.
    assert seconds(200_000) < 5


def test_a_mapping_is_masked_by_key_and_inside() -> None:
    mapping = {
        "password": "s3cret",
        "ssl": {"key_passphrase": "s3cret", "ca": "/etc/ca.pem"},
        "dsn": ["host=h password=s3cret"],
        "url": make_url("postgresql://u:s3cret@h/d"),
        "token": None,
        "timeout": 5,
    }
    assert mask_mapping(mapping) == {
        "password": "***",
        "ssl": {"key_passphrase": "***", "ca": "/etc/ca.pem"},
        "dsn": ["host=h password=***"],
        "url": "postgresql://u:***@h/d",
        "token": None,
        "timeout": 5,
    }


def test_masking_a_mapping_leaves_the_original() -> None:
    inner = {"password": "s3cret"}
    mask_value({"ssl": inner})
    assert inner == {"password": "s3cret"}


@pytest.mark.parametrize(
    "name", ["password", "PASSFILE", "sslpassword", "passwd", "pwd", "access_token", "client_secret"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret(name)


def test_one_key_of_the_settings_alone_is_taken_for_a_secret() -> None:
    assert [key for key in [*DATABASE_KEYS, *TOP_KEYS] if is_secret(key)] == ["secret_key"]
