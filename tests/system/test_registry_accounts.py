"""Who asks: TLS, Basic and Bearer against docker-registry, login and logout, and that an account goes nowhere else."""

import base64
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import Lamina
from registries import (
    HTPASSWD,
    PASSWORD,
    USER,
    Handler,
    Place,
    Registry,
    Server,
    TokenServer,
    make_certificates,
    make_image,
    sample_layers,
)
from terminals import Terminal

from lamina.errors import LaminaError, TransferError
from lamina.registry.auth import UnauthorizedError

BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch.setenv)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_registry(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Registry]:
    """One with a certificate of the tests' own CA, and htpasswd."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "htpasswd").write_text(HTPASSWD)
    registry = Registry(
        folder,
        scheme="https",
        tls=f"  tls:\n    certificate: {certificates}/server.crt\n    key: {certificates}/server.key\n",
        settings=f"auth:\n  htpasswd:\n    realm: tests\n    path: {folder}/htpasswd\n",
    )
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def strict_registry(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Registry]:
    """One that wants to see a certificate."""
    registry = Registry(
        tmp_path_factory.mktemp("strict"),
        scheme="https",
        tls=f"  tls:\n    certificate: {certificates}/server.crt\n    key: {certificates}/server.key\n"
        f"    clientcas:\n      - {certificates}/ca.crt\n",
    )
    yield registry
    registry.stop()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenServer]:
    tokens = TokenServer(tmp_path_factory.mktemp("tokens"))
    yield tokens
    tokens.stop()


@pytest.fixture(scope="module")
def token_registry(tmp_path_factory: pytest.TempPathFactory, tokens: TokenServer) -> Iterator[Registry]:
    """One that believes the token server."""
    registry = Registry(tmp_path_factory.mktemp("token"), settings=tokens.registry_settings())
    yield registry
    registry.stop()


def certs_dir(place: Path, host: str, certificates: Path, *names: tuple[str, str]) -> Path:
    folder = place / "certs.d" / host
    folder.mkdir(parents=True)
    for source, target in names:
        shutil.copy(certificates / source, folder / target)
    return place / "certs.d"


def round_trip(place: Place, host: str, path: str) -> None:
    """Push, and pull into another store."""
    with place.engine("other") as engine:
        make_image(engine, place.directory, f"{host}/{path}:1", sample_layers(path, sizes=(2000, 1000)))
        pushed = engine.images.push(f"{host}/{path}:1")
    with place.engine() as engine:
        assert engine.images.pull(f"{host}/{path}:1").digest == pushed.digest


def test_a_ca_for_the_host_is_believed_and_a_wrong_one_is_not(
    tls_registry: Registry, place: Place, certificates: Path, tmp_path: Path
) -> None:
    place.log_in(tls_registry.host)
    place.configure(f'[registries]\ncerts-dir = "{certs_dir(tmp_path, tls_registry.host, certificates, ("ca.crt", "ca.crt"))}"\n')
    round_trip(place, tls_registry.host, "tls/ca")
    wrong = make_certificates(tmp_path / "wrong")
    shutil.copy(wrong / "ca.crt", tmp_path / "certs.d" / tls_registry.host / "ca.crt")
    with place.engine() as engine, pytest.raises(TransferError, match="its certificate is not trusted") as caught:
        engine.images.pull(f"{tls_registry.host}/tls/ca:1")
    assert "certs.d" in caught.value.hint


def test_loopback_needs_no_ca(tls_registry: Registry, place: Place) -> None:
    place.log_in(tls_registry.host)
    round_trip(place, tls_registry.host, "tls/loopback")


def test_a_client_shows_its_certificate(strict_registry: Registry, place: Place, certificates: Path, tmp_path: Path) -> None:
    names = (("ca.crt", "ca.crt"), ("client.crt", "client.cert"), ("client.key", "client.key"))
    folder = certs_dir(tmp_path, strict_registry.host, certificates, *names)
    place.configure(f'[registries]\ncerts-dir = "{folder}"\n')
    round_trip(place, strict_registry.host, "tls/client")
    (folder / strict_registry.host / "client.key").unlink()
    with place.engine() as engine, pytest.raises(LaminaError, match="has no key"):
        engine.images.pull(f"{strict_registry.host}/tls/client:1")


def test_without_an_account_the_error_says_how_to_log_in(tls_registry: Registry, place: Place) -> None:
    with place.engine() as engine, pytest.raises(UnauthorizedError) as caught:
        engine.images.pull(f"{tls_registry.host}/private/app:1")
    assert caught.value.message.startswith(f"'{tls_registry.host}/private/app:1': registry '{tls_registry.host}'")
    assert caught.value.hint == f"`lamina login {tls_registry.host}`"


def test_a_wrong_password_is_said_and_never_shown(tls_registry: Registry, token_registry: Registry, place: Place) -> None:
    for registry in (tls_registry, token_registry):
        place.log_in(registry.host, password="not the right secret")
        done = Lamina(place.root, "overlay").result("pull", f"{registry.host}/private/app:1")
        assert done.returncode == 1
        assert "refuses the account" in done.stderr
        assert f"lamina login {registry.host}" in done.stderr
        assert "right secret" not in done.stderr + done.stdout


def test_a_token_is_got_with_the_account_and_for_the_scope(token_registry: Registry, tokens: TokenServer, place: Place) -> None:
    tokens.asked.clear()
    place.log_in(token_registry.host)
    round_trip(place, token_registry.host, "token/app")
    scopes = [query["scope"] for _, query, _ in tokens.asked]
    assert ["repository:token/app:pull"] in scopes
    assert all(account == USER for _, _, account in tokens.asked)
    assert all(query["service"] == ["test registry"] for _, query, _ in tokens.asked)
    assert len(tokens.asked) <= 4, "a token is used for all that it is good for"


def test_who_is_nobody_pulls_what_all_may(token_registry: Registry, tokens: TokenServer, place: Place) -> None:
    place.log_in(token_registry.host)
    round_trip(place, token_registry.host, "token/public")
    (place.docker_config / "config.json").unlink()
    tokens.anonymous_may_pull = True
    try:
        with place.engine("third") as engine:
            engine.images.pull(f"{token_registry.host}/token/public:1")
            engine.images.tag(f"{token_registry.host}/token/public:1", f"{token_registry.host}/token/public:2")
            with pytest.raises(UnauthorizedError):
                engine.images.push(f"{token_registry.host}/token/public:2")
    finally:
        tokens.anonymous_may_pull = False


def test_a_token_that_has_ended_is_got_anew(token_registry: Registry, tokens: TokenServer, place: Place) -> None:
    place.log_in(token_registry.host)
    tokens.life_s = 0  # not a life at all, so the default
    round_trip(place, token_registry.host, "token/zero")
    tokens.life_s = 1  # as good as ended when it comes
    tokens.asked.clear()
    try:
        round_trip(place, token_registry.host, "token/short")
        assert len(tokens.asked) >= 2
    finally:
        tokens.life_s = 300


def test_a_mount_is_asked_for_with_both_scopes(token_registry: Registry, tokens: TokenServer, place: Place) -> None:
    place.log_in(token_registry.host)
    with place.engine() as engine:
        name = f"{token_registry.host}/token/from:1"
        make_image(engine, place.directory, name, sample_layers("token/from", sizes=(3000,)))
        engine.images.push(name)
        other = f"{token_registry.host}/token/to:1"
        engine.images.tag(name, other)
        tokens.asked.clear()
        told = []
        engine.images.push(other, report=told.append)
    assert [each.state.value for each in told] == ["Mounted from"]
    asked = [{each.replace("push,pull", "pull,push") for each in query["scope"]} for _, query, _ in tokens.asked]
    assert {"repository:token/to:pull,push", "repository:token/from:pull"} in asked


def test_an_identity_token_is_exchanged_for_tokens(token_registry: Registry, tokens: TokenServer, place: Place) -> None:
    place.log_in(token_registry.host, "someone", "", identitytoken=tokens.refresh_token)
    tokens.asked.clear()
    round_trip(place, token_registry.host, "token/identity")
    assert {method for method, _, _ in tokens.asked} == {"POST"}
    place.log_in(token_registry.host, "someone", "", identitytoken="a-stale-token")
    with place.engine("third") as engine, pytest.raises(UnauthorizedError, match="refuses the account") as caught:
        engine.images.pull(f"{token_registry.host}/token/identity:1")
    assert "stale" not in str(caught.value)


def test_login_proves_the_account_and_keeps_what_else_is_in_the_file(
    tls_registry: Registry, token_registry: Registry, place: Place
) -> None:
    lamina = Lamina(place.root, "overlay")
    place.docker_config.mkdir()
    config = place.docker_config / "config.json"
    config.write_text('{"HttpHeaders": {"X": "y"}, "auths": {"other": {"auth": "eDp5", "email": "z"}}, "proxies": {}}')
    for registry in (tls_registry, token_registry):
        done = lamina.result("login", "-u", USER, "--password-stdin", registry.host, stdin=PASSWORD + "\n")
        assert done.stdout == "Login Succeeded\n", done.stderr
        assert done.stderr.startswith("warning: the password is stored unencrypted in ")
        document = json.loads(config.read_text())
        assert document["HttpHeaders"] == {"X": "y"}
        assert document["auths"]["other"] == {"auth": "eDp5", "email": "z"}
        assert document["auths"][registry.host] == {"auth": BASIC}
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        round_trip(place, registry.host, "login/app")
        assert lamina("logout", registry.host) == f"Removing login credentials for {registry.host}"
        assert registry.host not in json.loads(config.read_text())["auths"]
        assert lamina("logout", registry.host) == f"Not logged in to {registry.host}"
    assert sorted(os.listdir(place.docker_config)) == ["config.json"]


@pytest.mark.parametrize("name", [USER, "nobody"])
def test_login_with_a_wrong_password_stores_nothing(
    name: str, tls_registry: Registry, token_registry: Registry, place: Place
) -> None:
    lamina = Lamina(place.root, "overlay")
    for registry in (tls_registry, token_registry):
        done = lamina.result("login", "-u", name, "--password-stdin", registry.host, stdin="wrong-secret")
        assert done.returncode == 1
        assert "refuses the account" in done.stderr
        assert "wrong-secret" not in done.stderr
    assert not (place.docker_config / "config.json").exists()


def test_a_password_in_the_command_line_is_warned_of(tls_registry: Registry, place: Place) -> None:
    done = Lamina(place.root, "overlay").result("login", "-u", USER, "-p", PASSWORD, tls_registry.host)
    assert "others" in done.stderr.splitlines()[0]
    assert done.stdout == "Login Succeeded\n"


def test_a_password_that_is_typed_is_not_shown(tls_registry: Registry, place: Place) -> None:
    with Terminal(Lamina(place.root, "overlay").command("login", tls_registry.host)) as terminal:
        terminal.expect("Username: ")
        terminal.type(f"{USER}\n")
        terminal.expect("Password: ")
        terminal.type(f"{PASSWORD}\n")
        terminal.expect("Login Succeeded")
        assert terminal.wait() == 0
    assert PASSWORD not in terminal.all
    assert json.loads((place.docker_config / "config.json").read_text())["auths"][tls_registry.host] == {"auth": BASIC}


def test_a_web_page_is_no_registry_to_log_in_to(place: Place) -> None:
    server = Server(lambda request: request.reply(200, b"<html>", {"Content-Type": "text/html"}))
    try:
        done = Lamina(place.root, "overlay").result("login", "-u", USER, "--password-stdin", server.host, stdin=PASSWORD)
        assert "answers with a web page" in done.stderr
        assert not (place.docker_config / "config.json").exists()
    finally:
        server.stop()


HELPER = """#!/bin/sh
case $1 in
get) read server; if [ -f "$0.$server" ]; then cat "$0.$server"; else echo "credentials not found in native keychain"; exit 1; fi ;;
store) cat >"$0.stored" ;;
erase) read server; rm "$0.$server" ;;
esac
"""


def test_a_credential_helper_is_asked_and_told(
    tls_registry: Registry, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin" / "docker-credential-testing"
    helper.parent.mkdir()
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
    place.docker_config.mkdir()
    config = place.docker_config / "config.json"
    config.write_text(json.dumps({"credHelpers": {tls_registry.host: "testing"}}))
    lamina = Lamina(place.root, "overlay")
    done = lamina.result("login", "-u", USER, "--password-stdin", tls_registry.host, stdin=PASSWORD)
    assert (done.stdout, done.stderr) == ("Login Succeeded\n", "")
    stored = (helper.parent / f"{helper.name}.stored").read_text()
    assert json.loads(stored) == {"ServerURL": tls_registry.host, "Username": USER, "Secret": PASSWORD}
    assert PASSWORD not in config.read_text()
    (helper.parent / f"{helper.name}.{tls_registry.host}").write_text(stored)
    round_trip(place, tls_registry.host, "helper/app")
    assert lamina("logout", tls_registry.host) == f"Removing login credentials for {tls_registry.host}"
    assert "lamina login" in lamina.error("pull", "-q", f"{tls_registry.host}/helper/app:1", code=1)


def test_a_helper_that_is_not_installed_is_a_warning(tls_registry: Registry, place: Place) -> None:
    place.docker_config.mkdir()
    (place.docker_config / "config.json").write_text('{"credsStore": "nowhere"}')
    done = Lamina(place.root, "overlay").result("pull", f"{tls_registry.host}/x:1")
    assert "warning: the credential helper 'docker-credential-nowhere' is not installed" in done.stderr
    assert "wants to know who asks" in done.stderr


def test_podmans_account_is_found(tls_registry: Registry, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {f"{tls_registry.host}/podman": {"auth": BASIC}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    round_trip(place, tls_registry.host, "podman/app")
    with place.engine() as engine, pytest.raises(UnauthorizedError):
        engine.images.pull(f"{tls_registry.host}/elsewhere/app:1")


def test_skopeo_takes_our_login_and_we_take_skopeos(tls_registry: Registry, place: Place, tmp_path: Path) -> None:
    words = ["--tls-verify=false", tls_registry.host]
    auth = tmp_path / "skopeo.json"
    subprocess.run(
        ["skopeo", "login", "-u", USER, "-p", PASSWORD, "--authfile", str(auth), *words], check=True, capture_output=True
    )
    entry = json.loads(auth.read_text())["auths"][tls_registry.host]
    place.log_in(tls_registry.host)
    assert json.loads((place.docker_config / "config.json").read_text())["auths"][tls_registry.host] == entry
    round_trip(place, tls_registry.host, "skopeo/login")


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another host, which notes what it is sent."""
    server = Server(lambda request: request.reply(404))
    yield server
    server.stop()


@pytest.fixture
def liar(elsewhere: Server) -> Iterator[Server]:
    """A registry that wants an account and then sends elsewhere."""

    def answer(request: Handler) -> None:
        if "Authorization" not in request.headers:
            return request.reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return request.reply(307, headers={"Location": f"http://{elsewhere.host}{request.path}", "Set-Cookie": "a=b"})

    server = Server(answer)
    yield server
    server.stop()


def test_an_account_does_not_follow_a_redirect_to_another_port(liar: Server, elsewhere: Server, place: Place) -> None:
    place.log_in(liar.host)
    with place.engine() as engine, pytest.raises(LaminaError):
        engine.images.pull(f"{liar.host}/app:1")
    assert any("authorization" in headers for _, _, headers in liar.seen)
    assert elsewhere.seen
    assert not any("authorization" in headers or "cookie" in headers for _, _, headers in elsewhere.seen)


def test_who_is_redirected_to_cannot_ask_for_the_account(place: Place) -> None:
    thief = Server(lambda request: request.reply(401, headers={"WWW-Authenticate": f'Bearer realm="http://{thief.host}/token"'}))

    def answer(request: Handler) -> None:
        if "Authorization" not in request.headers:
            return request.reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return request.reply(307, headers={"Location": f"http://{thief.host}{request.path}"})

    server = Server(answer)
    try:
        place.log_in(server.host)
        with place.engine() as engine, pytest.raises(UnauthorizedError):
            engine.images.pull(f"{server.host}/app:1")
        assert thief.seen
        assert not [path for _, path, _ in thief.seen if path.startswith("/token")]
        assert not any("authorization" in headers for _, _, headers in thief.seen)
    finally:
        thief.stop()
        server.stop()


def test_an_upload_elsewhere_has_no_account(elsewhere: Server, place: Place) -> None:
    def answer(request: Handler) -> None:
        if "Authorization" not in request.headers:
            return request.reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if request.command == "POST":
            return request.reply(202, headers={"Location": f"http://{elsewhere.host}/upload?secret=1"})
        return request.reply(404)

    server = Server(answer)
    try:
        place.configure("[registries]\nattempts = 1\n")
        place.log_in(server.host)
        with place.engine() as engine:
            make_image(engine, place.directory, f"{server.host}/app:1", sample_layers("elsewhere", sizes=(100,)))
            with pytest.raises(LaminaError) as caught:
                engine.images.push(f"{server.host}/app:1")
        assert "secret" not in caught.value.message
        assert [method for method, _, _ in elsewhere.seen if method == "PUT"]
        assert not any("authorization" in headers for _, _, headers in elsewhere.seen)
    finally:
        server.stop()


def test_an_account_is_not_sent_to_a_realm_without_tls(place: Place) -> None:
    realm = "http://tokens.example/token"
    server = Server(lambda request: request.reply(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}))
    try:
        place.log_in(server.host)
        with place.engine() as engine, pytest.raises(LaminaError, match=r"log in at 'tokens\.example' without TLS"):
            engine.images.pull(f"{server.host}/app:1")
    finally:
        server.stop()


def test_a_registry_that_repeats_the_account_in_its_error_has_it_struck_out(place: Place) -> None:
    def answer(request: Handler) -> None:
        sent = request.headers.get("Authorization", "")
        if not sent:
            return request.reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        decoded = base64.b64decode(sent.partition(" ")[2]).decode()
        body = {"errors": [{"code": "DENIED", "message": f"you sent {sent} which is {decoded}"}]}
        return request.reply(403, json.dumps(body).encode())

    server = Server(answer)
    try:
        place.log_in(server.host)
        done = Lamina(place.root, "overlay").result("pull", f"{server.host}/app:1")
        assert "denies access" in done.stderr
        assert PASSWORD not in done.stderr
        assert BASIC.lower() not in done.stderr.lower()
    finally:
        server.stop()


def test_no_account_is_in_a_trace(tls_registry: Registry, place: Place, tmp_path: Path) -> None:
    place.log_in(tls_registry.host)
    with place.engine("other") as engine:
        engine.images.bootstrap(f"{tls_registry.host}/traced:1")
        engine.images.push(f"{tls_registry.host}/traced:1")
    trace = tmp_path / "trace"
    done = Lamina(place.root, "overlay").result(
        "run", "--rm", "--pull", "always", "--trace", "--trace-file", str(trace), f"{tls_registry.host}/traced:1", "true"
    )
    assert done.returncode == 0, done.stderr
    assert trace.stat().st_size > 1000
    for secret in (PASSWORD, BASIC):
        assert secret not in trace.read_text() + done.stderr + done.stdout
    assert not [path for path in (place.root).rglob("*") if path.is_file() and BASIC.encode() in path.read_bytes()]
