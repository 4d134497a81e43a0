from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pra_agent.errors import SecretError
from pra_agent.storage.s3.client import ClientSource
from pra_agent.storage.settings import StorageSettings

KEYS = "aws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = very-secret\n"


def source(**more: Any) -> ClientSource:
    return ClientSource(StorageSettings.model_validate({"url": "s3://bucket-1/x", "region": "eu-west-3", **more}))


def keys_of(client: Any) -> Any:
    return client._request_signer._credentials.get_frozen_credentials()


def test_a_credential_file(tmp_path):
    path = tmp_path / "s3.ini"
    path.write_text(f"[default]\n{KEYS}[other]\n{KEYS.replace('AKIA', 'ASIA')}aws_session_token = token\n")
    default = keys_of(source(credentials={"file": path}).get())
    assert (default.access_key, default.secret_key, default.token) == ("AKIAEXAMPLE", "very-secret", None)
    other = keys_of(source(credentials={"file": path, "profile": "other"}).get())
    assert (other.access_key, other.token) == ("ASIAEXAMPLE", "token")


def test_a_credential_of_the_unit(tmp_path, monkeypatch):
    (tmp_path / "s3").write_text(f"[default]\n{KEYS}")
    settings = {"credential": "s3"}
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretError, match="systemd"):
        source(credentials=settings).get()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert keys_of(source(credentials=settings).get()).access_key == "AKIAEXAMPLE"


def test_the_standard_chain(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert keys_of(source().get()).access_key == "AKIAENV"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[elsewhere]\n{KEYS}", "no section"),
        ("[default]\naws_access_key_id = AKIA\n", "lacks"),
        ("very-secret\n", "not an ini file"),
        ("[default]\nvery-secret\n", "not an ini file"),
        (f"[default]\n{KEYS}[default]\n{KEYS}", "not an ini file"),
        ("\udcff", "not an ini file"),
        (None, "No such file"),
    ],
)
def test_a_bad_credential_file_is_told_without_its_secret(tmp_path, text, said):
    path = tmp_path / "s3.ini"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SecretError, match=said) as caught:
        source(credentials={"file": path}).get()
    assert "very-secret" not in str(caught.value)


def test_all_threads_share_one_client():
    clients = source(endpoint="http://127.0.0.1:9")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: clients.get(), range(8)))
    assert len({id(client) for client in made}) == 1
    clients.close()
    clients.close()
    assert clients.get() is not made[0]
    clients.close()


@pytest.mark.parametrize(
    ("more", "url"),
    [
        ({}, "https://bucket-1.s3.eu-west-3.amazonaws.com/k"),
        ({"path_style": True}, "https://s3.eu-west-3.amazonaws.com/bucket-1/k"),
        ({"endpoint": "https://s3.example.org"}, "https://s3.example.org/bucket-1/k"),
        ({"endpoint": "https://s3.example.org", "path_style": False}, "https://bucket-1.s3.example.org/k"),
    ],
)
def test_where_a_request_goes(monkeypatch, more, url):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    signed = source(**more).get().generate_presigned_url("get_object", Params={"Bucket": "bucket-1", "Key": "k"})
    assert signed.partition("?")[0] == url


def test_timeouts_connections_and_no_hidden_retries():
    timeouts = {"connect": "3s", "read": "7s"}
    config: Any = source(endpoint="http://127.0.0.1:9", timeouts=timeouts, limits={"connections": 5}).get().meta.config
    assert (config.connect_timeout, config.read_timeout) == (3, 7)
    assert config.max_pool_connections >= 6
    assert config.retries["total_max_attempts"] == 1
