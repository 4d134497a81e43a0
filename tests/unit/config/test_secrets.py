"""Where secrets come from, which files are refused, and that no message holds one."""

from pathlib import Path

import pytest

from pra_agent.config.secrets import Resolver, read_secret
from pra_agent.errors import SecretError
from pra_agent.model.references import SecretRef


@pytest.fixture
def secret(tmp_path):
    def write(name, text="correct horse\n", mode=0o600):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


@pytest.fixture
def resolver(tmp_path):
    def make(**environ: str) -> Resolver:
        return Resolver(
            environ=environ, unit_directories=(tmp_path / "etc", tmp_path / "lib"), stores=(tmp_path / "credstore",)
        )

    return make


def test_a_file_without_the_newline_at_its_end(resolver, secret):
    assert resolver().resolve(SecretRef(file=secret("pw"))) == "correct horse"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_that_others_can_read_is_refused_unless_that_is_said(resolver, secret, mode):
    path = secret("pw", mode=mode)
    with pytest.raises(SecretError, match="others than its owner") as caught:
        resolver().resolve(SecretRef(file=path))
    assert "chmod 600" in caught.value.advice
    assert resolver().resolve(SecretRef(file=path, allow_readable=True)) == "correct horse"


def test_an_environment_variable(resolver):
    assert resolver(PW="x y").resolve(SecretRef(env="PW")) == "x y"
    with pytest.raises(SecretError, match="environment variable PW: is empty or not set"):
        resolver().resolve(SecretRef(env="PW"))


def test_a_credential_within_the_unit(resolver, secret, tmp_path):
    secret("creds/repository", mode=0o640)  # systemd gives them so, in a directory of the service's own
    found = resolver(CREDENTIALS_DIRECTORY=str(tmp_path / "creds")).resolve(SecretRef(credential="repository"))
    assert found == "correct horse"


def test_a_credential_from_the_file_that_the_unit_loads(resolver, secret, tmp_path):
    path = secret("pw")
    secret("lib/pra-agent.service", f"[Service]\n  LoadCredential = repository:{path}\nLoadCredential=other:/none\n")
    assert resolver().resolve(SecretRef(credential="repository")) == "correct horse"
    assert resolver().path(SecretRef(credential="other")) == Path("/none")


def test_a_drop_in_has_the_last_word(resolver, secret, tmp_path):
    old, new = secret("old", "old"), secret("new", "new")
    secret("etc/pra-agent.service", f"[Service]\nLoadCredential=repository:{old}\n")
    secret("etc/pra-agent.service.d/10.conf", f"[Service]\nLoadCredential=repository:{old}\n")
    secret("etc/pra-agent.service.d/20.conf", f"[Service]\nLoadCredential=repository:{new}\n")
    assert resolver().resolve(SecretRef(credential="repository")) == "new"


def test_a_credential_from_the_store(resolver, secret):
    secret("credstore/repository", "stored")
    assert resolver().resolve(SecretRef(credential="repository")) == "stored"


def test_a_credential_that_is_nowhere_is_asked_for(resolver):
    asked: list[str] = []

    def ask(what: str) -> str:
        asked.append(what)
        return "typed"

    nowhere = resolver()
    assert Resolver(ask, nowhere.unwrap, {}, nowhere.unit_directories, ()).resolve(SecretRef(credential="x")) == "typed"
    assert asked == ["credential x"]
    with pytest.raises(SecretError, match="cannot be had"):
        nowhere.resolve(SecretRef(credential="x"))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "UTF-8"), (b"x" * (1 << 21), "too large")],
)
def test_files_that_hold_no_secret(resolver, tmp_path, content, says):
    path = tmp_path / "pw"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SecretError, match=says):
        resolver().resolve(SecretRef(file=path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SecretError, match="cannot be read: No such file"):
        read_secret(tmp_path / "none")


def test_kms_unwraps_through_a_seam(tmp_path):
    reference = SecretRef.model_validate({"kms": {"ciphertext_file": tmp_path / "c", "region": "eu-west-3"}})
    assert Resolver(unwrap=lambda kms: f"from {kms.region}").resolve(reference) == "from eu-west-3"
    assert str(reference) == f"KMS ciphertext {tmp_path}/c"
    with pytest.raises(SecretError, match="cannot be read: No such file"):
        Resolver().resolve(reference)
